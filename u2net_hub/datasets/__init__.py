"""Photos with masks: find the pairs, read them, split them and check them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
