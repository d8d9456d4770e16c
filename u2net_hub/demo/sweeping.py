"""Delete the files that visitors leave behind."""

from __future__ import annotations

import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

SWEEP_SECONDS = 300
"""The time between two sweeps."""
KEPT_SECONDS = 3600 - SWEEP_SECONDS
"""How long a visitor's files stay. The next sweep deletes them, so no file stays for longer than an hour."""


@contextmanager
def swept(folder: Path) -> Iterator[Collection[Path]]:
    """Sweep a folder from time to time while the context lasts. What is in it at the start stays.

    The context's value are the paths that stay.

    Gradio's own deletion knows only the files of calls that ended well, and ends for good at the first path
    that it cannot delete.
    """
    kept = set(folder.rglob("*"))
    ended = Event()

    def run() -> None:
        while not ended.wait(SWEEP_SECONDS):
            sweep(folder, kept)

    thread = Thread(target=run, name="sweep", daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        ended.set()
        thread.join()


def sweep(folder: Path, kept: Collection[Path] = ()) -> None:
    """Delete the files and empty folders that have not changed for `KEPT_SECONDS`.

    Args:
        folder: The folder to look through, with its subfolders.
        kept: Paths that stay.
    """
    now = time.time()
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        try:
            if path in kept or now - path.lstat().st_mtime < KEPT_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        except OSError:  # deleted by another, in use, or a folder that is not empty
            continue


def shed(folder: Path, most: int, least: int, kept: Collection[Path] = ()) -> int:
    """Delete the oldest files until the others have few enough bytes.

    Args:
        folder: The folder to look through, with its subfolders.
        most: Most bytes that may stay.
        least: What a file counts at least, in bytes.
        kept: Paths that stay and do not count.

    Returns:
        The bytes of the files that stayed.
    """
    files = []
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:  # deleted by another
            continue
        if path not in kept and not stat.S_ISDIR(found.st_mode):
            files.append((found.st_mtime, max(found.st_size, least), path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            break
        try:
            path.unlink(missing_ok=True)
        except OSError:  # in use, on Windows
            continue
        total -= size
    return total
