"""Colours and backgrounds on which an object is placed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

if TYPE_CHECKING:
    from numpy.typing import NDArray


def parse_colour(colour: str | tuple[int, ...]) -> tuple[int, int, int]:
    """Turn the name or the numbers of a colour into (red, green, blue) from 0 to 255.

    Raises:
        ValueError: The colour is unknown or has transparency.
    """
    try:
        red, green, blue = bytes(ImageColor.getrgb(colour) if isinstance(colour, str) else colour)
    except (ValueError, TypeError) as e:
        raise ValueError(
            f"unknown colour {colour!r}, expected 'white', '#ff8800', (255, 136, 0), or 'blur'"
        ) from e
    return red, green, blue


# Colours are blurred on a copy whose longest side is at most this many pixels, with this radius in its
# pixels.
_BLUR_SIDE = 400
_BLUR_RADIUS = 8


def blur_background(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Make a blurred background without the object: RGB, of the photo's size.

    The object's own colours do not enter the mean, so no halo of them appears around the object.
    """
    colours, share = _small(image, alpha)
    return _enlarged(_mean_colour(colours, 1 - share), image.size)


def _small(image: Image.Image, alpha: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    small = image.copy()
    small.thumbnail((_BLUR_SIDE, _BLUR_SIDE))
    share = np.asarray(alpha.resize(small.size), np.float32)[:, :, None] / np.float32(255)
    return np.asarray(small, np.float32), share


def _mean_colour(colours: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur colours, each pixel with its weight: (H, W, 3), (H, W, 1) -> (H, W, 3)."""
    weight = weight + np.float32(1e-3)  # where all weights are 0, every pixel counts the same
    return np.divide(_blur(colours * weight), _blur(weight), dtype=np.float32)


def _enlarged(colours: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(colours, 0, 255)).astype(np.uint8)).resize(size)


def _blur(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply three box blurs, which together are nearly a Gaussian blur: (H, W, C) -> (H, W, C)."""
    width = 2 * _BLUR_RADIUS + 1
    for axis in (0, 1) * 3:
        pad = [(_BLUR_RADIUS + 1, _BLUR_RADIUS) if i == axis else (0, 0) for i in range(3)]
        total = np.cumsum(np.pad(values, pad, mode="edge"), axis, dtype=np.float64)
        n = values.shape[axis]
        upper, lower = total.take(range(width, width + n), axis), total.take(range(n), axis)
        values = ((upper - lower) / width).astype(np.float32)
    return values
