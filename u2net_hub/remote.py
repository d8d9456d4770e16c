"""The former home of the Hub's error classes, which are in `u2net_hub` and `u2net_hub.hub` now."""

import warnings

from .hub.errors import *  # noqa: F403

warnings.warn("u2net_hub.remote is now u2net_hub.hub", DeprecationWarning, stacklevel=2)
