from .config import (
    RECIPES as RECIPES,
    Phase as Phase,
    Recipe as Recipe,
    TrainConfig as TrainConfig,
    field_help as field_help,
)
from .dry_runs import (
    Estimate as Estimate,
    dry_run as dry_run,
    overfit_one as overfit_one,
)
from .run import train as train
from .trainer import TrainingDiverged as TrainingDiverged
