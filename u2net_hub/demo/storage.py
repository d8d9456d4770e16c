"""Bound what visitors store on the disk of the demo."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Collection
from pathlib import Path
from threading import Lock

from .sweeping import KEPT_SECONDS, SWEEP_SECONDS, shed

ALL_BYTES = 20_000_000_000
"""Most bytes that all visitors store together; less on a small disk, of which half stays free."""
SHARE = 5
"""One address may store this part of it: a fifth."""
FILE_BYTES = 65_536
"""What a file counts at least, because a disk holds a limited number of files too."""


class Storage:
    """Bound what each address stores within an hour, and what all store together.

    An address that has stored too much is refused. If all together have, the oldest files are deleted, so
    that nobody can shut out the others by filling the disk.

    Args:
        folder: The folder with the uploads and results.
        most: Most bytes of all visitors; by default `ALL_BYTES`, or half of what is free on the disk.
    """

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self.kept: Collection[Path] = ()
        """Files that belong to the demo."""
        self._folder = folder
        self._most = min(ALL_BYTES, shutil.disk_usage(folder).free // 2) if most is None else most
        self._lock = Lock()
        self._charges: deque[tuple[float, str, int]] = deque()
        self._sums: Counter[str] = Counter()
        self._total = 0
        """An upper bound of the size of the folder in bytes."""

    def charge(self, address: str, size: int, *, stored: bool = False) -> None:
        """Charge an address for a file before it is written.

        Args:
            address: The address of the visitor.
            size: Size of the file in bytes.
            stored: The file is there already, so that it is too late to refuse it.

        Raises:
            ValueError: The address has stored too much within the last hour.
        """
        size = max(size, FILE_BYTES)
        with self._lock:
            now = time.monotonic()
            while self._charges and now - self._charges[0][0] > KEPT_SECONDS + SWEEP_SECONDS:
                _, who, past = self._charges.popleft()
                self._sums[who] -= past
                if not self._sums[who]:
                    del self._sums[who]
            used, share = self._sums[address], self._most // SHARE
            if used + size > share and not stored:
                raise ValueError(
                    f"your uploads and results of the last hour have {used / 1e6:,.1f} MB, this one has "
                    f"{size / 1e6:,.1f} MB, expected at most {share / 1e6:,.1f} MB together; try again later"
                )
            self._charges.append((now, address, size))
            self._sums[address] += size
            self._total += size
            if self._total > self._most:
                self._total = size + shed(self._folder, self._most * 4 // 5 - size, FILE_BYTES, self.kept)
