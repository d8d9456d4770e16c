"""Read photos and masks as arrays for training and scoring."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .. import imaging as im

UInt8 = npt.NDArray[np.uint8]

# Pillow may open only these formats as masks. Others, such as EPS, start another program.
_MASK_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# The errors of Pillow's decoders for damaged files. UnidentifiedImageError is an OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# This many masks are looked at to tell class masks from saliency masks.
_INSPECTED = 16
# The network sees transparent photos on white, as in `imaging.preprocess`.
BACKGROUND = (255, 255, 255)


def read_image(path: Path) -> UInt8:
    """Decode a photo as the network sees it: RGB (H, W, 3), upright, on white where it is transparent.

    Raises:
        ValueError: The file is not a picture, or it is damaged.
        OSError: The file cannot be opened.
    """
    return np.asarray(im.load(path).on(BACKGROUND))


def read_mask(path: Path, *, classes: int | None = None) -> UInt8:
    """Decode a mask (H, W): grey values 0 … 255, or class numbers if the number of `classes` is given.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is damaged, or holds a class that is neither below `classes` nor 255 (ignored).
    """
    with open_mask(path) as picture:
        values = mask_values(picture, classes=classes)
    if classes is not None:
        wrong = np.unique(values[(values >= classes) & (values != 255)])
        if wrong.size:
            raise ValueError(
                f"{path} holds the classes {wrong.tolist()}, expected 0 to {classes - 1} or 255 to ignore"
            )
    return values


def mask_values(picture: Image.Image, *, classes: int | None = None) -> UInt8:
    """Return the values of a decoded mask, as `read_mask` does, but without a check of the classes."""
    deep = picture.mode.startswith("I;16")
    if classes is not None:  # the index into a palette is the class
        values = np.asarray(picture if deep or picture.mode in ("1", "L", "P") else picture.convert("L"))
    elif deep:  # Pillow's own conversion clips at 255
        values = np.asarray(picture) >> 8
    else:
        values = np.asarray(picture.convert("L"))
    return values.astype(np.uint8, copy=False)


def class_numbers(paths: Sequence[Path]) -> list[int]:
    """Return the values of saliency masks that look like class numbers; nothing if they do not.

    At most 16 masks are read, spread evenly over all of them. They look like class numbers if most of their
    labelled pixels hold small numbers and none holds a grey.

    Raises:
        OSError: A mask cannot be opened.
        ValueError: A mask is damaged.
    """
    count = np.zeros(256, np.int64)
    for path in _some(paths):
        numbers = read_mask(path, classes=256)
        # a mask with a black and white palette stores 0 and 1, which mean 0 and 255
        white = read_mask(path) >= 250
        count += np.bincount(np.where(white, IGNORED, numbers).ravel(), minlength=256)
    small, medium = int(count[1:100].sum()), int(count[100:IGNORED].sum())
    return np.flatnonzero(count).tolist() if small > count[IGNORED] and not medium else []


def without_classes(paths: Sequence[Path]) -> bool:
    """Tell whether masks that should hold class numbers hold nothing but 0 and 255, as saliency masks do.

    At most 16 masks are read, spread evenly over all of them. The errors are those of `class_numbers`.
    """
    seen = {int(value) for path in _some(paths) for value in np.unique(read_mask(path, classes=256))}
    return seen == {0, IGNORED}


def soft_share(paths: Sequence[Path]) -> float:
    """Return the share of pixels between 0 and 255 in saliency masks, from 0 to 1.

    At most 16 masks are read, spread evenly over all of them. The errors are those of `class_numbers`.
    """
    shares = [float(((values > 0) & (values < 255)).mean()) for values in map(read_mask, _some(paths))]
    return sum(shares) / len(shares) if shares else 0.0


def _some(paths: Sequence[Path]) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(_INSPECTED, len(paths))).astype(int)
    return [paths[i] for i in sorted(set(places.tolist()))]


@contextmanager
def open_mask(path: Path) -> Iterator[Image.Image]:
    """Open and fully decode a mask, for a `with` statement.

    The mask is turned upright by its EXIF orientation, as the photo is. Its mode stays as it is.

    Raises:
        ValueError: The file is not a picture, or it is damaged; the message names it.
        OSError: The file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            picture = Image.open(file, formats=_MASK_FORMATS)
            upright = ImageOps.exif_transpose(picture)
            upright.format = picture.format
        except _DAMAGED as e:
            raise ValueError(f"{path} cannot be read as a mask: {e}") from e
        yield upright


FOREGROUND = 128
"""A pixel of the ground truth is foreground if its 8-bit value is at least this."""
IGNORED = 255
"""The class number of pixels that training and scoring leave out."""
