from .exporting import export as export
from .graph_cache import cache_folder as cache_folder
from .open import open_engine as open_engine
from .precision import Precision as Precision
from .protocol import (
    Engine as Engine,
    EngineName as EngineName,
)
from .torch_engine import find_device as find_device
