"""The backgrounds of a cutout: a colour, a picture, or the photo's own background out of focus."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image, ImageOps

from ..imaging import blur_background, load, parse_colour

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..imaging import Photo

Background: TypeAlias = "str | tuple[int, int, int] | Path | Image.Image | NDArray[np.generic] | Photo"
ReadBackground: TypeAlias = "tuple[int, int, int] | Photo | Literal['blur']"


def read_background(background: Background) -> ReadBackground:
    """Turn a background of any kind into a colour, a photo or "blur".

    Args:
        background: What `SaliencyResult.over` takes. A str is a colour if it names one, then a file.

    Raises:
        ValueError: The background is none of those.
    """
    if isinstance(background, tuple):
        return parse_colour(background)
    if not isinstance(background, str):
        return load(background, name="background")
    if background == "blur":
        return "blur"
    try:
        return parse_colour(background)
    except ValueError:
        if os.path.exists(background):
            return load(background)
        raise ValueError(
            f"background {background!r} is neither a colour ('white', '#ff8800'), nor 'blur', nor a file "
            "that exists"
        ) from None


def render_background(background: ReadBackground, photo: Photo, alpha: Image.Image) -> Image.Image:
    """Make the picture on which a photo's cutout is placed: RGB, of the photo's size.

    Args:
        background: What `read_background` returned.
        photo: The photo.
        alpha: The alpha channel of the cutout, which "blur" needs.
    """
    size = photo.rgb.size
    if background == "blur":
        return blur_background(photo.on((255, 255, 255)), alpha)
    if isinstance(background, tuple):
        return Image.new("RGB", size, background)
    return ImageOps.fit(background.on((255, 255, 255)), size)
