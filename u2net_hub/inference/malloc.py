"""Make glibc's malloc fit processes that turn many photos into pictures."""

from __future__ import annotations

import ctypes
import logging
import sys

logger = logging.getLogger(__name__)

_MB = 1 << 20
# For each setting: the parameter of mallopt(3), and the value
_SETTINGS = {
    "MALLOC_ARENA_MAX": (-8, 2),
    "MALLOC_MMAP_THRESHOLD_": (-3, 4 * _MB),
    "MALLOC_TRIM_THRESHOLD_": (-1, 32 * _MB),
}

MALLOC_ENVIRONMENT = {name: str(value) for name, (_, value) in _SETTINGS.items()}
"""The settings as environment variables, for a process that is not started yet."""


def tune_malloc() -> None:
    """Make glibc keep what the next photo needs, and give the rest back, for the whole process.

    By default glibc has an arena for each thread, up to eight for each core, and one arena does not use what
    is free in another. So a process that lives long grows: a server by 300 MB with photos of 0.1 to 12
    megapixels, a worker of a cluster by 170 MB in 2,000 small ones. Here there are two arenas. Each keeps 32
    MB that are free, so that the next photo finds its pages, and blocks from 4 MB on, which only large photos
    need, go back at once. `model_cards/cluster/measure.py malloc` measures what that does to the speed.

    Call this only in a process that belongs to this package, and before it starts threads. Other systems and
    C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # e.g. musl
        return
    for name, (parameter, value) in _SETTINGS.items():
        if not mallopt(parameter, value):
            logger.debug("mallopt refused %s=%d", name, value)
