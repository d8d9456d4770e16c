from .benchmarks import benchmark_engines as benchmark_engines
from .config import U2NetConfig as U2NetConfig
from .datasets import (
    DataReport as DataReport,
    SaliencyDataset as SaliencyDataset,
    check_dataset as check_dataset,
)
from .engines import export as export, open_engine as open_engine
from .evaluation import Results as Results, evaluate as evaluate, evaluate_maps as evaluate_maps
from .hub import (
    AccessDeniedError as AccessDeniedError,
    ConflictError as ConflictError,
    CorruptFileError as CorruptFileError,
    GatedRepoError as GatedRepoError,
    HubError as HubError,
    HubUnavailableError as HubUnavailableError,
    MissingFileError as MissingFileError,
    NotCachedError as NotCachedError,
    RepoNotFoundError as RepoNotFoundError,
    RevisionNotFoundError as RevisionNotFoundError,
    UnusableRepoError as UnusableRepoError,
    download as download,
    list_bundled as list_bundled,
    list_models as list_models,
)
from .imaging import Cleanup as Cleanup
from .inference import (
    ClusterSummary as ClusterSummary,
    CutoutBatch as CutoutBatch,
    MaskBatch as MaskBatch,
    SaliencyPipeline as SaliencyPipeline,
    SaliencyResult as SaliencyResult,
    Session as Session,
    Summary as Summary,
    new_session as new_session,
    remove as remove,
    run_files as run_files,
    run_on_ray as run_on_ray,
)
from .model import U2Net as U2Net
from .training import Phase as Phase, Recipe as Recipe, TrainConfig as TrainConfig, train as train

__version__: str
