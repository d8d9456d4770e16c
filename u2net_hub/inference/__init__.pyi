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
from .removal import (
    Session as Session,
    new_session as new_session,
    remove as remove,
)
from .result import SaliencyResult as SaliencyResult
from .watching import watch_files as watch_files
