from .exporting import export as export
from .graph_cache import cache_folder as cache_folder
from .open import open_engine as open_engine
from .precision import Precision as Precision
from .protocol import (
    Engine as Engine,
    EngineName as EngineName,
)
from .repo_files import (
    check_loaders as check_loaders,
    keep_loaders as keep_loaders,
    loader_files as loader_files,
)
from .torch_engine import find_device as find_device
