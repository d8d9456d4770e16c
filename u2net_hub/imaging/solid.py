"""Solid objects: see-through patches that are doubts of the network are closed, in its map and in the matte.

All sizes in pixels are those at which mattes are solved, 320 for the longest side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Saliency up to which a pixel keeps a patch around it open, and levels at which a patch may be enclosed
_SURE_BACKGROUND = 0.25
_RIMS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# A pixel that is mostly opaque becomes wholly opaque if it is farther than this from what is transparent.
# A lower `solid` would make hair opaque that is not.
_TRANSPARENT = 0.1
_DEPTH = 8.0  # pixels

# Standard deviations in pixels: of the mean that decides on a doubtful region, and of the line in it
_AROUND = 2.0
_LINE = 0.7


def close_patches(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """The saliency without see-through patches that the object encloses: (h, w) -> (h, w), in [0, 1].

    A patch that is not surely foreground becomes 1 where pixels that are rather object than not enclose it,
    and nothing in it is surely background. The hole of a ring stays open, and so does whatever touches the
    background through a gap.
    """
    background = saliency <= _SURE_BACKGROUND
    if not background.any():  # nothing is outside, so nothing can be told to be inside
        return saliency
    enclosed = np.zeros(saliency.shape, np.bool_)
    for rim in _RIMS:
        patches, n = ndimage.label(saliency < rim)
        closed = np.ones(n + 1, np.bool_)
        closed[0] = False
        closed[patches[background]] = False
        enclosed |= closed[patches]
    return np.where(enclosed, np.float32(1), saliency)


def decide(matte: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """A matte without wide regions that are neither opaque nor transparent: alpha (h, w) -> (h, w).

    No edge is so wide; there the network is in doubt about what belongs to the object. Such a region becomes
    opaque where the mean alpha around a pixel is above ½, and transparent where it is below, with a soft line
    between the two.

    Args:
        matte: alpha in [0, 1].
        width: side in pixels of the squares that make up a wide region.
    """
    doubtful = (matte > _TRANSPARENT) & (matte < 1 - _TRANSPARENT)
    if doubtful.all():  # nothing is known, so nothing can be decided
        return matte
    wide = ndimage.minimum_filter(doubtful, width)
    if not wide.any():
        return matte
    wide = ndimage.maximum_filter(wide, width) & doubtful
    opaque = ndimage.gaussian_filter(matte, _AROUND) >= 0.5
    return np.where(wide, ndimage.gaussian_filter(opaque.astype(np.float32), _LINE), matte)


def make_solid(matte: NDArray[np.float32], solid: float) -> NDArray[np.float32]:
    """A matte that is opaque far from the background: alpha (h, w) -> (h, w), both in [0, 1].

    A pixel whose alpha is at least `solid` becomes 1 where no pixel within 8 is transparent: hardly any soft
    edge is so wide. What is more transparent than that stays as it is.
    """
    background = matte <= _TRANSPARENT
    if not background.any():
        return matte
    doubtful = (matte >= solid) & (matte < 1)
    if not doubtful.any():
        return matte
    deep = ndimage.distance_transform_edt(~background) > _DEPTH
    return np.where(doubtful & deep, np.float32(1), matte)
