from .batch_callables import CutoutBatch as CutoutBatch, MaskBatch as MaskBatch
from .pool import Progress as Progress
from .remote_files import is_url as is_url
from .run import ClusterSummary as ClusterSummary, run_on_ray as run_on_ray
