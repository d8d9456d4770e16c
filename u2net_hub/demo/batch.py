"""Process a batch of photos into a zip archive."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from ..imaging import encode
from .models import Models, read_photo


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


def cut_all(
    models: Models,
    name: str,
    files: Sequence[tuple[Path, str]],
    archive: Path,
    *,
    kind: Literal["cutout", "mask"] = "cutout",
) -> Iterator[FileOutcome]:
    """Write the cutouts or maps of many files into a zip archive, and yield the outcome of each file.

    A file that cannot be read does not stop the others.

    Args:
        models: The models of the demo.
        name: Name of the model to use.
        files: The path of each file, and its name on the visitor's machine.
        archive: The zip archive to write. It is complete when the iterator ends.
        kind: Whether to write RGBA cutouts or grey maps.
    """
    taken: set[str] = set()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:  # a PNG is compressed already
        for path, called in files:
            try:
                result = models.run(name, read_photo(path, called)).result()
            except (ValueError, OSError, ImportError) as e:
                yield FileOutcome(called, error=str(e))
                continue
            picture = result.mask(None) if kind == "mask" else result.cutout()
            written = _free_name(safe_stem(called), taken)
            bundle.writestr(written, encode(picture, "png"))
            picture.thumbnail((480, 480))
            yield FileOutcome(called, written, None, result.found, result.confidence, picture)


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
