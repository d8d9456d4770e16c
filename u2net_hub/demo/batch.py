"""A batch of photos in, a zip of results out."""

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
    """What became of one file of a batch."""

    name: str
    """As the visitor knows it."""
    written: str | None = None
    """Its name in the archive; None where it failed."""
    error: str | None = None
    found: bool | None = None
    confidence: float | None = None
    preview: Image.Image | None = None
    """What is in the archive, small."""


def cut_all(
    models: Models,
    name: str,
    files: Sequence[tuple[Path, str]],
    archive: Path,
    *,
    kind: Literal["cutout", "mask"] = "cutout",
) -> Iterator[FileOutcome]:
    """Write the cutouts or maps of many files into a zip; yields what became of each. A bad file fails alone.

    Args:
        models: has the network.
        name: which one.
        files: path of each file, and the name that its visitor knows it by.
        archive: the zip to write; it is whole when the iterator is at its end.
        kind: RGBA cutouts, or maps in grey.
    """
    taken: set[str] = set()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:  # a PNG does not get smaller
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
    """The name of a visitor's file without folders and suffix, fit for any file system."""
    stem = Path(name.replace("\\", "/")).stem
    return re.sub(r"[^\w.()+, -]", "_", stem).strip(". ")[:100] or "photo"


def _free_name(stem: str, taken: set[str]) -> str:
    """A name for a PNG that is not taken yet, whatever its case; it is taken then."""
    name, i = f"{stem}.png", 1
    while name.lower() in taken:
        i += 1
        name = f"{stem} ({i}).png"
    taken.add(name.lower())
    return name
