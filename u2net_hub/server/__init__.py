"""An HTTP server for programs: photos in, masks and cutouts out, with the APIs of rembg and remove.bg."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
