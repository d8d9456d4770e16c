from .batch_callables import CutoutBatch as CutoutBatch, MaskBatch as MaskBatch
from .batching import (
    Batcher as Batcher,
    QueueFullError as QueueFullError,
)
from .cluster import ClusterSummary as ClusterSummary, run_on_ray as run_on_ray
from .cluster_pool import Progress as Progress
from .folders import (
    FileReport as FileReport,
    Summary as Summary,
    run_files as run_files,
)
from .pipeline import (
    Prepared as Prepared,
    SaliencyPipeline as SaliencyPipeline,
)
from .remote_files import is_url as is_url
from .removal import (
    Session as Session,
    new_session as new_session,
    remove as remove,
)
from .result import SaliencyResult as SaliencyResult
from .watching import watch_files as watch_files
