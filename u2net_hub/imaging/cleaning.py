"""Clean a matte: keep the largest part, fill holes, grow or shrink the object. Soft edges stay soft.

All steps work on 8-bit mattes at the photo's size. Masks of 0 and 255 stay masks of 0 and 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cleanup import Cleanup

# Pixels of opacity below this share of the highest neither join parts nor are parts themselves.
_HAZE = 0.1
# Which part a faint pixel belongs to is decided on a grid of at most this many cells on the longest side.
_GRID = 1024
# Holes become as opaque as what encloses them, in these steps of the highest opacity.
_RIMS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
# The share of a radius that is grown as a square, and the rest as a diamond: together a regular octagon.
_SQUARE = 1 - 1 / np.sqrt(2)
_SQUARE /= np.sqrt(2) - 1 / np.sqrt(2)

_DIAGONAL = np.ones((3, 3), np.bool_)  # parts that touch at a corner are one part
_SMOOTHING = 2.0  # pixels; this and the opening before it are those of rembg's post_process_mask


def clean(matte: NDArray[np.uint8], cleanup: Cleanup) -> NDArray[np.uint8]:
    """Clean a matte: uint8 (H, W) -> uint8 (H, W). An empty matte stays empty."""
    if not matte.any():
        return matte
    if cleanup.largest_part:
        matte = _keep_largest(matte)
    if cleanup.fill_holes:
        matte = _fill_holes(matte)
    if cleanup.smooth:
        matte = _smooth(matte)
    if cleanup.grow > 0:
        matte = _grow(matte, cleanup.grow)
    elif cleanup.grow < 0:
        matte = ~_grow(~matte, -cleanup.grow)
    return matte


def clean_labels(labels: NDArray[np.uint8], cleanup: Cleanup) -> NDArray[np.uint8]:
    """Clean a map of classes, in which 0 is the background: uint8 (H, W) -> uint8 (H, W).

    All classes together are the object. Pixels that it loses become background, and pixels that it gains get
    the class of the nearest pixel of the object.
    """
    before = labels > 0
    after = clean(np.where(before, np.uint8(255), np.uint8(0)), cleanup) > 0
    if (after & ~before).any():
        nearest = ndimage.distance_transform_edt(~before, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
    return np.where(after, labels, np.uint8(0))


def _keep_largest(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the largest part with its soft edge.

    A pixel that is fainter than a part belongs to the nearest part. Faint regions that are not connected to
    any part are dropped.
    """
    top = int(matte.max())
    parts, _ = ndimage.label(matte >= top / 2, _DIAGONAL)
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    core: NDArray[np.bool_] = parts == largest
    soft: NDArray[np.bool_] = (matte > 0) & (parts == 0)
    if not soft.any():
        return np.where(core, matte, np.uint8(0))
    step = -(-max(matte.shape) // _GRID)
    ours, any_part = _cells(core, step), _cells(parts > 0, step)
    regions, _ = ndimage.label(_cells(matte >= max(1.0, top * _HAZE), step), _DIAGONAL)
    ghosts = (regions > 0) & ~np.isin(regions, regions[any_part])
    others = _cells((parts > 0) & ~core, step) | ghosts
    if others.any():
        to_ours, to_others = (ndimage.distance_transform_edt(~cells) for cells in (ours, others))
        near = to_ours <= to_others
        soft &= near.repeat(step, 0).repeat(step, 1)[: matte.shape[0], : matte.shape[1]]
    return np.where(core | soft, matte, np.uint8(0))


def _cells(pixels: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Tell which cells of `step` × `step` pixels hold a pixel: (H, W) -> (⌈H / step⌉, ⌈W / step⌉)."""
    for axis in (0, 1):
        pixels = np.logical_or.reduceat(pixels, np.arange(0, pixels.shape[axis], step), axis)
    return pixels


def _fill_holes(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make each hole, with the soft edge around it, as opaque as what encloses it."""
    top = int(matte.max())
    if not _enclosed(matte < top * _RIMS[0]).any():
        return matte
    filled: NDArray[np.uint8] = matte
    for rim in _RIMS:
        level = int(np.ceil(top * rim))
        filled = np.where(_enclosed(matte < level), np.maximum(filled, np.uint8(level)), filled)
    return filled


def _enclosed(below: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the pixels whose region does not reach the picture's border: bool (H, W) -> bool (H, W).

    Regions are connected by edges only, so that a line of pixels that touch at corners encloses a region.
    """
    regions, n = ndimage.label(below)
    enclosed = np.ones(n + 1, np.bool_)
    enclosed[0] = False
    for border in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        enclosed[border] = False
    return np.asarray(enclosed[regions], np.bool_)


def _smooth(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    cross = ndimage.generate_binary_structure(2, 1)
    opened = ndimage.grey_opening(matte, footprint=cross).astype(np.float32)
    opaque = ndimage.gaussian_filter(opened, _SMOOTHING) >= 127
    return np.where(opaque, np.uint8(255), np.uint8(0))


def _grow(matte: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Replace each pixel by the highest within a regular octagon: uint8 (H, W) -> uint8 (H, W).

    The octagon is at most 8 % wider at its corners than a circle, and costs a few steps for any radius. Such
    a maximum moves every level of a soft edge by the same distance, so the edge is as soft as before.
    """
    radius = min(radius, sum(matte.shape))
    square = round(radius * _SQUARE)
    if square:
        side = max(matte.shape)  # a wider window sees no more pixels
        matte = ndimage.maximum_filter(matte, 2 * min(square, side) + 1, mode="nearest")
    return _diamond(matte, radius - square)


def _diamond(matte: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Replace each pixel by the highest within `radius` steps along rows and columns."""
    done = 0
    while done < radius:
        # The maximum of a diamond and of its copies moved along the axes is a larger diamond. A copy that is
        # moved by more than this would have to look beyond the picture's border.
        step = min(done // 2 + 1, radius - done)
        wider = matte.copy()
        np.maximum(wider[step:], matte[:-step], out=wider[step:])
        np.maximum(wider[:-step], matte[step:], out=wider[:-step])
        np.maximum(wider[:, step:], matte[:, :-step], out=wider[:, step:])
        np.maximum(wider[:, :-step], matte[:, step:], out=wider[:, :-step])
        matte = wider
        done += step
    return matte
