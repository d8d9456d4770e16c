"""The command `u2net VERB`: each verb parses its options and makes one public call."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
