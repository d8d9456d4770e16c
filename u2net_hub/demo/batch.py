"""Process a batch of photos into a zip archive."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from ..imaging import encode
from .models import Models, read_photo

if TYPE_CHECKING:
    from ..imaging import Photo
    from ..inference import SaliencyResult


class FileOutcome(NamedTuple):
    """The outcome of one file of a batch."""

    name: str
    """Name of the file on the visitor's machine."""
    written: str | None = None
    """Name of the result in the archive, or None if the file failed."""
    error: str | None = None
    found: bool | None = None
    confidence: float | None = None
    preview: Image.Image | None = None
    """A small version of the result."""
    same_as: str | None = None
    """Name of an earlier file with the same content, whose result this one shares."""


def cut_all(
    models: Models,
    name: str,
    files: Sequence[tuple[Path, str]],
    archive: Path,
    finish: Callable[[SaliencyResult], Image.Image],
    *,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    store: Callable[[int], object] = lambda size: None,
) -> Iterator[FileOutcome]:
    """Write a picture for each of many files into a zip archive, and yield the outcome of each file.

    A file that cannot be read does not stop the others. Files with the same content are processed once.

    Args:
        models: The models of the demo.
        name: Name of the model to use.
        files: The path of each file, and its name on the visitor's machine.
        archive: The zip archive to write. It is complete when the iterator ends.
        finish: It makes the picture from the result.
        turn: It is entered for each file, and waits until other visitors have had their turn.
        store: It is told the bytes of each picture before it is written, and raises ValueError if there is no
            room for it.
    """
    if models.get(name).engine.zero_gpu and len(files) > 1:
        with turn():
            models.run_ahead(name, _readable(files))
    taken: set[str] = set()
    done: dict[str, FileOutcome] = {}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:  # a PNG is compressed already
        for path, called in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            if content in done:
                first = done[content]
                error = first.error and first.error.replace(first.name, called)
                yield first._replace(name=called, error=error, preview=None, same_as=first.name)
                continue
            try:
                with turn():
                    result = models.run(name, read_photo(path, called)).result()
                    picture = finish(result)
                    png = encode(picture, "png")
                    store(len(png))
                    written = _free_name(safe_stem(called), taken)
                    bundle.writestr(written, png)
            except (ValueError, OSError, ImportError) as e:
                outcome = FileOutcome(called, error=str(e))
            else:
                picture.thumbnail((480, 480))
                outcome = FileOutcome(called, written, None, result.found, result.confidence, picture)
            done[content] = outcome._replace(preview=None)
            yield outcome


def _readable(files: Iterable[tuple[Path, str]]) -> Iterator[Photo]:
    for path, called in files:
        try:
            yield read_photo(path, called)
        except (ValueError, OSError, ImportError):
            continue  # it is reported when its turn comes


def safe_stem(name: str) -> str:
    """The name of a visitor's file without folders and suffix, valid on any file system."""
    stem = Path(name.replace("\\", "/")).stem
    return re.sub(r"[^\w.()+, -]", "_", stem).strip(". ")[:100] or "photo"


def _free_name(stem: str, taken: set[str]) -> str:
    """Choose a name for a PNG that differs from those taken, also in lower case, and mark it as taken."""
    name, i = f"{stem}.png", 1
    while name.lower() in taken:
        i += 1
        name = f"{stem} ({i}).png"
    taken.add(name.lower())
    return name
