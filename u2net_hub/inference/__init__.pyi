from .batching import (
    Batcher as Batcher,
    QueueFullError as QueueFullError,
)
from .cluster import (
    ClusterSummary as ClusterSummary,
    CutoutBatch as CutoutBatch,
    MaskBatch as MaskBatch,
    Progress as Progress,
    is_url as is_url,
    run_on_ray as run_on_ray,
)
from .folders import (
    FileReport as FileReport,
    Summary as Summary,
    run_files as run_files,
)
from .malloc import tune_malloc as tune_malloc
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
