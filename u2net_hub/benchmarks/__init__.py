"""Measure engines and rembg side by side, and compute the theoretical cost of each layer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
