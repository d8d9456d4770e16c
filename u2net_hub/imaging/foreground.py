"""The object's own colours at its edge, without those of the background that shine through.

A pixel of the edge is seen as I = αF + (1 - α)B. The colours F of the foreground and B of the background are
estimated at some hundred pixels from coarse to fine (Germer, Uelwer, Conrad and Harmeling 2020, "Fast
Multi-Level Foreground Estimation", arXiv 2006.14970), and then corrected by what each pixel of the full-size
photo shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .matting import TILE, blocks, shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 640
"""Longest side in pixels at which the colours are estimated."""

# Of the paper: how alike the colours of neighbours are where alpha does not differ
_SMOOTH = 1e-5
# Steps at each level, and at the last, which is by far the largest
_STEPS = 12
_LAST_STEPS = 2
# Pixels by which the estimate reaches beyond the outermost soft pixels
_REACH = 16


def foreground_colours(photo: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return the object's colours where alpha is between 0 and 255, the photo's elsewhere: RGB, same size.

    F = F' + α(I - αF' - (1 - α)B') with the estimates F' and B' (Forte 2021, "Approximate Fast Foreground
    Colour Estimation"). Beside the result it needs the memory of some strips of the photo, whatever its size.

    Args:
        photo: mode RGB.
        alpha: mode L, of the same size.

    Raises:
        ValueError: the two differ in size.
    """
    if photo.size != alpha.size:
        raise ValueError(f"photo is {photo.size} and alpha {alpha.size}, expected one (width, height)")
    clean = photo.copy()
    tiles = _soft_tiles(alpha)
    if not tiles.any():
        return clean
    small = shrink(photo, SIDE)
    share = alpha.resize(small.size, Image.Resampling.BILINEAR, reducing_gap=2)
    fore, back = _around_edges(small, np.asarray(share))
    across, down = small.width / photo.width, small.height / photo.height
    for box in blocks(tiles, (photo.height, photo.width)):
        left, top, right, bottom = box
        source = (left * across, top * down, right * across, bottom * down)
        around = [
            np.asarray(each.resize((right - left, bottom - top), Image.Resampling.BILINEAR, source))
            for each in (fore, back)
        ]
        values = np.asarray(alpha.crop(box))
        soft = (values > 0) & (values < 255)
        a = values[soft][:, None].astype(np.float32) / 255
        seen = np.array(photo.crop(box))
        f, b = (each[soft].astype(np.float32) for each in around)
        f += a * (seen[soft] - a * f - (1 - a) * b)
        seen[soft] = np.rint(f.clip(0, 255))
        clean.paste(Image.fromarray(seen), (left, top))
    return clean


def _soft_tiles(alpha: Image.Image) -> NDArray[np.bool_]:
    """Tell which tiles hold a value other than 0 and 255."""
    columns = np.arange(0, alpha.width, TILE)
    rows = []
    for top in range(0, alpha.height, TILE):
        strip = np.asarray(alpha.crop((0, top, alpha.width, min(top + TILE, alpha.height))))
        soft = ((strip > 0) & (strip < 255)).any(0)
        rows.append(np.logical_or.reduceat(soft, columns))
    return np.array(rows)


def _around_edges(photo: Image.Image, alpha: NDArray[np.uint8]) -> list[Image.Image]:
    """Estimate foreground and background around the soft pixels; farther away both are the photo."""
    soft = (alpha > 0) & (alpha < 255)
    if not soft.any():  # at this size; at full size there are some
        soft[:] = True
    rows, columns = (
        slice(max(int(found[0]) - _REACH, 0), int(found[-1]) + 1 + _REACH)
        for found in (np.flatnonzero(soft.any(axis)) for axis in (1, 0))
    )
    colours = np.asarray(photo)
    pictures = []
    for found in estimate(
        colours[rows, columns].astype(np.float32), alpha[rows, columns].astype(np.float32) / np.float32(255)
    ):
        picture = colours.copy()
        picture[rows, columns] = np.rint(found)
        pictures.append(Image.fromarray(picture))
    return pictures


def estimate(
    photo: NDArray[np.float32], alpha: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Estimate foreground and background, each (h, w, 3): photo (h, w, 3) of any range, alpha in [0, 1].

    At each level, from 1 × 1 pixel on, the energy of Germer et al. (2020) is lowered for all pixels at once:
    both colours explain what is seen, and are like those of the four neighbours, the more so the more alpha
    differs.
    """
    height, width = alpha.shape
    low, high = photo.min(), photo.max()
    levels = max(int(np.ceil(np.log2(max(height, width)))), 1)
    seen = np.ascontiguousarray(photo.transpose(2, 0, 1))
    # foreground and background, (2, 3, h, w), from the mean colours of both on
    shares = np.stack([alpha, 1 - alpha])[:, None]
    both = (seen * shares).sum((2, 3), keepdims=True) / np.maximum(shares.sum((2, 3), keepdims=True), 1e-3)
    for level in range(levels + 1):
        h, w = (max(round(side ** (level / levels)), 1) for side in (height, width))
        rows, columns = _nearest(height, h), _nearest(width, w)
        up, across = _nearest(both.shape[2], h), _nearest(both.shape[3], w)
        both = _relax(
            seen[:, rows][:, :, columns],
            alpha[rows][:, columns],
            both[:, :, up][:, :, :, across],
            _LAST_STEPS if level == levels else _STEPS,
        ).clip(low, high)
    fore, back = both.transpose(0, 2, 3, 1)
    return fore, back


def _nearest(length: int, wanted: int) -> NDArray[np.intp]:
    """Return the indices that resize a row or column of so many pixels by the nearest neighbour."""
    return np.arange(wanted) * length // wanted


def _relax(
    seen: NDArray[np.float32], alpha: NDArray[np.float32], both: NDArray[np.float32], steps: int
) -> NDArray[np.float32]:
    """Lower the energy of one level: photo (3, h, w), alpha (h, w), foreground and background (2, 3, h, w).

    With F' and B' the weighted means of the neighbours' colours and S the sum of their weights, the energy of
    a pixel is least at F = F' + αr and B = B' + (1 - α)r, r = (I - αF' - (1 - α)B') / (S + α² + (1 - α)²).
    """
    around = np.pad(alpha, 1, mode="edge")
    weights = np.stack([np.abs(side - alpha) for side in _four(around)]) + np.float32(_SMOOTH)
    total = weights.sum(0)
    weights /= total
    shares = np.stack([alpha, 1 - alpha])
    shown = shares / (total + (shares**2).sum(0))
    for _ in range(steps):
        padded = np.pad(both, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        first, *others = _four(padded)
        both = first * weights[0]
        for side, weight in zip(others, weights[1:], strict=True):
            both += side * weight
        missing = seen - shares[0] * both[0] - shares[1] * both[1]
        both += shown[:, None] * missing
    return both


def _four(padded: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Return the neighbours above, below, to the left and to the right."""
    inner = slice(1, -1)
    return (
        padded[..., :-2, inner],
        padded[..., 2:, inner],
        padded[..., inner, :-2],
        padded[..., inner, 2:],
    )
