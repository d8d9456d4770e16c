"""The pictures that the demo shows, and the archive that it makes of many files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from .files import encode
from .serving import Models, read_photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image import Photo

# Dark blue, purple, red, orange, pale yellow: lightness rises steadily, so that it reads in grey as well
_HEAT = ((10, 7, 48), (86, 18, 110), (187, 55, 84), (249, 142, 8), (252, 255, 190))
_ONLY_FIRST, _ONLY_SECOND = (255, 150, 40), (70, 150, 255)


def heat(photo: Photo, values: NDArray[np.float32]) -> Image.Image:
    """A map (H, W) in [0, 1] in colours of heat over the photo in grey: mode RGB."""
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(values, stops, channel) for channel in zip(*_HEAT, strict=True)], axis=-1)
    grey = np.asarray(photo.on((255, 255, 255)).convert("L"), np.float32)[:, :, None]
    weight = 0.45 + 0.4 * values[:, :, None]
    return Image.fromarray(np.rint(colours * weight + grey * (1 - weight)).astype(np.uint8))


def grey(values: NDArray[np.float32]) -> Image.Image:
    """A map (H, W) in [0, 1] in 256 grey levels: mode L."""
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> Image.Image:
    """Where two maps (H, W) differ: orange where only the first is bright, blue where only the second is."""
    apart = (first - second)[:, :, None]
    colours = np.where(apart > 0, np.array(_ONLY_FIRST), np.array(_ONLY_SECOND))
    return Image.fromarray(np.rint(np.abs(apart) * colours).astype(np.uint8))


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
