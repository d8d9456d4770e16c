"""The journal of a watched folder: what became of each photo, so that a restart goes on where it stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ..atomic import write_file

logger = logging.getLogger(__name__)

# One line for each entry; if so many lines have been replaced by later ones, the file is written anew.
_STALE_LINES = 1000

Look: TypeAlias = "tuple[int, int]"
"""The size of a file in bytes, and the time of its last change in nanoseconds."""


class Entry(NamedTuple):
    """What became of a photo."""

    source: str
    look: Look
    """The photo's file when it was read."""
    status: Literal["started", "written", "skipped", "failed"]
    target: str
    before: Look | None = None
    """The file that had the output's name before the photo was started; None if there was none."""


class Journal:
    """The entries of a file, the last one of each photo. A new entry is added to the end of the file.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = ""
        self.entries: dict[str, Entry] = {}
        """The last entry of each photo, by its path."""
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
        for line in lines:
            entry = _parse(line)
            if entry is not None:
                self.entries[entry.source] = entry
        if len(lines) > len(self.entries) + _STALE_LINES:
            write_file(path, "".join(map(_line, self.entries.values())).encode())
        elif lines[-1]:  # the program was killed in the middle of a line
            self._waiting = "\n"

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries. What cannot be written, for example because the disk is full, waits for the next."""
        for entry in entries:
            self.entries[entry.source] = entry
            self._waiting += _line(entry)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._waiting)
        except OSError as e:
            logger.warning("The journal %s cannot be written, and is tried again: %s", self._path, e)
            if not self._waiting.startswith("\n"):
                self._waiting = "\n" + self._waiting  # after a part of a line
        else:
            self._waiting = ""


def _line(entry: Entry) -> str:
    return json.dumps(entry) + "\n"


def _parse(line: str) -> Entry | None:
    """Read a line; None if it is not whole, or was changed by hand."""
    try:
        source, (size, changed), status, target, before = json.loads(line)
        if status not in ("started", "written", "skipped", "failed"):
            return None
        replaced = None if before is None else (int(before[0]), int(before[1]))
        return Entry(str(source), (int(size), int(changed)), status, str(target), replaced)
    except (ValueError, TypeError, IndexError):
        return None
