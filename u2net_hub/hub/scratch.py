"""A temporary folder that a killed process leaves behind only until the next push."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "u2net-push-"
_YOUNG = 60.0
"""Seconds during which a folder may not be locked yet."""
_OLD = 86400.0
"""Seconds after which a folder is left behind, where the system has no locks on folders."""


class ScratchFolder:
    """A temporary folder for a push. Making one removes those that killed processes left behind.

    Attributes:
        name: The path of the folder.
    """

    def __init__(self) -> None:
        remove_left_behind()
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX)
        self.name = self._folder.name
        self._lock = _lock(Path(self.name))

    def cleanup(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *exc: object) -> None:
        self.cleanup()


def remove_left_behind() -> None:
    """Remove folders of pushes whose process is dead: the system releases its lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process removes it, or it is another user's
            age = time.time() - folder.stat().st_mtime
            if age < _YOUNG or folder.is_symlink() or not folder.is_dir():
                continue
            if sys.platform == "win32":
                if age > _OLD:
                    shutil.rmtree(folder, ignore_errors=True)
            elif (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None if another process holds it."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
