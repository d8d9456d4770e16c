"""Photos by the million on a Ray cluster: any place of files, a manifest, restartable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
