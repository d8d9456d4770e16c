"""Delete what visitors leave behind: old files, and results that nobody collects."""

from __future__ import annotations

import time
from asyncio import Queue as AsyncQueue
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from gradio.utils import LRUCache

if TYPE_CHECKING:
    from .visitors import Presence

KEPT_SECONDS = 3600
"""How long a visitor's files stay."""
SWEEP_SECONDS = 600
"""The time between two sweeps."""


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Sweep a folder from time to time while the context lasts. What is in it at the start stays.

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
        yield
    finally:
        ended.set()
        thread.join()


def sweep(folder: Path, kept: Collection[Path] = ()) -> None:
    """Delete the files and empty folders that have not changed for an hour.

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


class ResultQueues(LRUCache):  # type: ignore[type-arg]
    """The results of each session that wait to be read, in place of Gradio's, which keeps those of 2,000.

    If there are too many, those of the oldest session that nobody listens for are dropped.

    Args:
        presence: Knows which sessions listen.
        most: Number of sessions to keep.
    """

    def __init__(self, presence: Presence, most: int) -> None:
        super().__init__(most)
        self._presence = presence

    def __setitem__(self, session: str, queue: Any) -> None:
        if session not in self and len(self) >= self.max_size:
            left = next((each for each in self if not self._presence.listens(each)), None)
            if left is not None:
                del self[left]
        super().__setitem__(session, queue)

    def __missing__(self, session: str) -> AsyncQueue[Any]:
        """What is still sent to a session whose results were dropped goes nowhere."""
        return AsyncQueue()
