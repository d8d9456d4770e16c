"""Engines and rembg measured side by side, and what each layer costs in theory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
