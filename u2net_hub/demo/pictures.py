"""Draw maps as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..imaging import Photo


# from dark blue over purple, red and orange to pale yellow; lightness rises, so it can be read in grey too
_HEAT = ((10, 7, 48), (86, 18, 110), (187, 55, 84), (249, 142, 8), (252, 255, 190))
_ONLY_FIRST, _ONLY_SECOND = (255, 150, 40), (70, 150, 255)


def heat(photo: Photo, values: NDArray[np.float32]) -> Image.Image:
    """Draw a map (H, W) in [0, 1] in heat colours over the grey photo: mode RGB."""
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(values, stops, channel) for channel in zip(*_HEAT, strict=True)], axis=-1)
    grey = np.asarray(photo.on((255, 255, 255)).convert("L"), np.float32)[:, :, None]
    weight = 0.45 + 0.4 * values[:, :, None]
    return Image.fromarray(np.rint(colours * weight + grey * (1 - weight)).astype(np.uint8))


def grey(values: NDArray[np.float32]) -> Image.Image:
    """Draw a map (H, W) in [0, 1] in 256 grey levels: mode L."""
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> Image.Image:
    """Draw the difference of two maps (H, W): orange if only the first is bright, blue if only the second."""
    apart = (first - second)[:, :, None]
    colours = np.where(apart > 0, np.array(_ONLY_FIRST), np.array(_ONLY_SECOND))
    return Image.fromarray(np.rint(np.abs(apart) * colours).astype(np.uint8))
