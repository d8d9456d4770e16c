"""The model card: a README.md made from a config and its results; text that people added stays."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
