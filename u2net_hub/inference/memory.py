"""Let the memory of photos go back to the system when they are answered."""

from __future__ import annotations

import ctypes
import logging
import sys

logger = logging.getLogger(__name__)

# The parameters of mallopt(3) in glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 1 << 20


def return_memory() -> None:
    """Make glibc give large blocks back as soon as they are free, for the whole process.

    By default glibc raises its idea of "large" up to 32 MB when such blocks are freed, and keeps an arena for
    each thread. A process that lives long and reads photos in several threads then grows: a server by about
    300 MB (measured with photos of 0.1 to 12 megapixels), a worker of a cluster by about 200 MB (measured
    over 800 photos). Call this only in a process that belongs to this package. Other systems and C libraries
    are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # e.g. musl
        return
    for parameter, value in ((_ARENA_MAX, 2), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
        if not mallopt(parameter, value):
            logger.debug("mallopt(%d, %d) was refused", parameter, value)
