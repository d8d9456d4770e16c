from .batching import (
    Batcher as Batcher,
    QueueFullError as QueueFullError,
)
from .folders import (
    FileReport as FileReport,
    Summary as Summary,
    run_files as run_files,
)
from .pipeline import (
    Prepared as Prepared,
    SaliencyPipeline as SaliencyPipeline,
)
from .result import (
    CUTOUT_EDGES as CUTOUT_EDGES,
    SaliencyResult as SaliencyResult,
)
