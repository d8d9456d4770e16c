"""Read photos and masks as the arrays that training and scoring work on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .. import imaging as im

if TYPE_CHECKING:
    pass


UInt8 = npt.NDArray[np.uint8]

# What Pillow may open as a mask: nothing that starts another program, as EPS does.
_MASK_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# What its decoders raise at damaged files, besides UnidentifiedImageError, which is an OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# Transparent photos are shown to the network on white, as `image.preprocess` does.
BACKGROUND = (255, 255, 255)


def read_image(path: Path) -> UInt8:
    """Decode a photo as the network sees it: RGB (H, W, 3), upright, on white where it is transparent.

    Raises:
        ValueError: the file is no picture, or damaged.
        OSError: the file cannot be opened.
    """
    return np.asarray(im.load(path).on(BACKGROUND))


def read_mask(path: Path, *, classes: int | None = None) -> UInt8:
    """Decode a mask: grey (H, W) of 0 … 255, or class numbers where `classes` says how many there are.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or holds a class number that is neither below `classes` nor 255 (ignored).
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
    """A decoded mask as `read_mask` gives it, unchecked."""
    deep = picture.mode.startswith("I;16")
    if classes is not None:  # the index into a palette is the class
        values = np.asarray(picture if deep or picture.mode in ("1", "L", "P") else picture.convert("L"))
    elif deep:  # Pillow's own conversion clips at 255
        values = np.asarray(picture) >> 8
    else:
        values = np.asarray(picture.convert("L"))
    return values.astype(np.uint8, copy=False)


@contextmanager
def open_mask(path: Path) -> Iterator[Image.Image]:
    """Open and fully decode a mask, in the mode it has; a failure names the file.

    Raises:
        ValueError: the file is no picture, or damaged.
        OSError: the file cannot be opened.
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
"""The ground truth is foreground from here: ½ of 8 bits."""
IGNORED = 255
"""The class number of pixels that count for no class."""
