"""Mattes: from a soft saliency map to an alpha matte that follows the photo's own edges.

The map of the network is a blur as wide as the photo's side divided by 320. What it is sure of stays. The
rest, a band along the edge, is solved from the photo's colours at the network's own size (Levin, Lischinski
and Weiss 2008, "A Closed-Form Solution to Natural Image Matting"). The result is brought to full size by
local linear coefficients (He and Sun 2015, "Fast Guided Filter", arXiv 1505.00996), inside the band alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from .solid import close_patches, decide, make_solid
from .transforms import Edges, to_grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

SIDE = 320
"""Longest side in pixels at which mattes are solved; at 640 they were no better, and converged less often."""


class Band(NamedTuple):
    """Which pixels of a saliency map have an unknown alpha, and how it is solved."""

    low: float
    """A pixel is background up to this saliency."""
    high: float
    """A pixel is foreground from this saliency on."""
    margin: int
    """The unknown band is then widened by so many pixels on both sides."""
    noise: float
    """Variance of the colours, from 0 to 1, below which they say nothing on alpha: ε of the paper."""
    trust: float
    """Weight of the saliency itself in the solution, where the matting Laplacian has about 1 per pixel."""
    solid: float
    """A pixel deep inside the object becomes opaque from this alpha on."""
    share: float
    """Share of the saliency, stretched from `low` to `high`, in the final alpha. It evens out edges that the
    colours alone make ragged."""
    width: int
    """The width in pixels of the widest edge. What is neither opaque nor transparent over more than that is
    no edge; see `decide`."""


BANDS: dict[Edges, Band] = {
    "sharp": Band(low=0.3, high=0.7, margin=0, noise=1e-2, trust=5e-4, solid=0.5, share=0.3, width=9),
    "hair": Band(low=0.06, high=0.94, margin=3, noise=3e-6, trust=5e-4, solid=0.7, share=0.0, width=23),
}
"""Chosen on 745 photos of DUTS-TR (`sharp`), 295 of them with maps of a network that was not trained on them,
and on true mattes over six backgrounds (`hair`); see docs/cutouts.md."""

_SURE = 10  # times more weight has the saliency of unknown pixels that are so only by the margin
_TOLERANCE = 1e-4  # of the residual, relative to the right-hand side
_MOST_STEPS = 1000

_SQUARE = np.ones((3, 3), np.bool_)
# The nine pixels of a window, and the 25 that share a window with a pixel, as (row, column) from the middle
_WINDOW = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
_NEIGHBOURS = np.array([(y, x) for y in range(-2, 3) for x in range(-2, 3)])
# The pairs of colour channels whose covariances make up a symmetric matrix
_PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

# ε of the guided filter that brings a matte to full size, in windows of 3 × 3 pixels
_SMOOTH = 1e-4

# Full-size pictures are worked on in blocks of so many rows and up to so many columns, in units of a tile
TILE = 64
_MOST_TILES = 32


def refine(photo: Image.Image, saliency: NDArray[np.float32], edges: Edges) -> NDArray[np.uint8]:
    """The alpha matte of a photo at its full size: saliency (h, w) in [0, 1] -> uint8 (H, W).

    Beside the result it needs the memory of some strips of the photo, whatever its size.

    Args:
        photo: mode RGB, of any size.
        saliency: the network's map at the network's own size, which may differ from the photo's in both
            size and shape.
        edges: how the edge is made. `"soft"` resizes the saliency and nothing else. The result is the soft
            one too where an object is likely, but no pixel of it is sure, as can be with several classes, and
            where the solution does not converge, which is logged as a warning.

    Raises:
        ValueError: `edges` is unknown, or the photo is not RGB.
    """
    size = (photo.height, photo.width)
    if photo.mode != "RGB":
        raise ValueError(f"got a photo of mode {photo.mode}, expected RGB; convert it with .convert('RGB')")
    if edges == "soft":
        return to_grey(saliency, size)
    if edges not in BANDS:
        raise ValueError(f"unknown edges {edges!r}, expected one of {['soft', *BANDS]}")
    small = shrink(photo, SIDE)
    colours = np.asarray(small, np.float64) / 255
    guess = np.asarray(Image.fromarray(saliency).resize(small.size, Image.Resampling.BILINEAR)).clip(0, 1)
    guess = close_patches(guess)
    band = BANDS[edges]
    known = trimap(guess, band)
    if guess.max() >= 0.5 and not (known == 1).any():  # all alpha would become 0, that of the background
        return to_grey(saliency, size)
    sure = (guess <= band.low) | (guess >= band.high)
    trust = np.where(sure, np.float32(_SURE * band.trust), np.float32(band.trust))
    matte = solve(colours, known, guess, noise=band.noise, trust=trust)
    if matte is None:
        logger.warning(
            "the matte of a photo of %d × %d pixels did not converge in %d steps; its edges are soft",
            *photo.size,
            _MOST_STEPS,
        )
        return to_grey(saliency, size)
    if band.share:
        stretched = ((guess - band.low) / (band.high - band.low)).clip(0, 1)
        matte = np.asarray(matte + band.share * (stretched - matte), np.float32)
    return enlarge(photo, colours, make_solid(decide(matte, band.width), band.solid))


def shrink(photo: Image.Image, side: int) -> Image.Image:
    """The photo with its longest side of `side` pixels at most."""
    scale = side / max(photo.size)
    if scale >= 1:
        return photo
    width, height = (max(round(length * scale), 1) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)


def trimap(saliency: NDArray[np.float32], band: Band) -> NDArray[np.float32]:
    """What is known of alpha: saliency (h, w) in [0, 1] -> 0 background, 1 foreground, ½ unknown."""
    background, foreground = saliency <= band.low, saliency >= band.high
    if band.margin:
        background, core = (
            ndimage.binary_erosion(region, _SQUARE, band.margin, border_value=1)
            for region in (background, foreground)
        )
        # Of an object so small that the margin would leave nothing, all that was sure stays. Otherwise its
        # alpha would become that of the background around it.
        parts, n = ndimage.label(saliency > band.low, _SQUARE)
        small = np.ones(n + 1, np.bool_)
        small[parts[core]] = False
        foreground = core | (foreground & small[parts])
    return np.where(foreground, np.float32(1), np.where(background, np.float32(0), np.float32(0.5)))


def solve(
    colours: NDArray[np.float64],
    known: NDArray[np.float32],
    guess: NDArray[np.float32],
    *,
    noise: float,
    trust: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """Closed-form matting of the unknown pixels: colours (h, w, 3) in [0, 1] -> alpha (h, w) in [0, 1].

    It minimises αᵀLα + Σ trust · (α - guess)² over the unknown pixels, with L the matting Laplacian of Levin
    et al. (2008) in windows of 3 × 3 pixels. The equations are set up for the unknown pixels alone, and
    solved by conjugate gradients from the guess on.

    Args:
        colours: the photo.
        known: 0, 1, or ½ where alpha is unknown (h, w).
        guess: what alpha is likely to be (h, w).
        noise: see `Band`.
        trust: weight of the guess at each pixel (h, w).

    Returns:
        None where the iteration does not converge. A photo narrower than a window has the guess.
    """
    unknown = known == 0.5
    rows, columns = np.nonzero(unknown)
    n = len(rows)
    if not n:
        return known
    laplacian = _laplacian(colours, unknown, noise)
    # two pixels of padding, so that each neighbour can be looked up without asking whether it is there
    number = np.pad(np.full(known.shape, -1, np.int32), 2, constant_values=-1)
    number[rows + 2, columns + 2] = np.arange(n, dtype=np.int32)
    at = (rows[:, None] + 2 + _NEIGHBOURS[:, 0], columns[:, None] + 2 + _NEIGHBOURS[:, 1])
    column = number[at]
    start, weight = guess[unknown], trust[unknown]
    right = weight * start - (laplacian * np.pad(np.where(unknown, np.float32(0), known), 2)[at]).sum(1)
    laplacian[:, len(_NEIGHBOURS) // 2] += weight
    taken = column >= 0
    ends = np.concatenate([[0], np.cumsum(taken.sum(1))])
    matrix = sparse.csr_array((laplacian[taken], column[taken], ends), shape=(n, n))
    scale = sparse.diags_array(np.float32(1) / matrix.diagonal())
    solution, left = cg(matrix, right, x0=start, rtol=_TOLERANCE, maxiter=_MOST_STEPS, M=scale)
    if left or not np.isfinite(solution).all():
        return None
    matte = known.copy()
    matte[unknown] = np.clip(solution, 0, 1)
    return np.asarray(matte, np.float32)


def _laplacian(colours: NDArray[np.float64], unknown: NDArray[np.bool_], noise: float) -> NDArray[np.float32]:
    """The rows of the matting Laplacian for the n unknown pixels, over the 25 pixels around each: (n, 25)."""
    centres = ndimage.binary_dilation(unknown, _SQUARE)
    centres[[0, -1]] = centres[:, [0, -1]] = False
    y, x = np.nonzero(centres)
    # arrays run over the windows last, since there are thousands of them, and nine pixels in each
    values = np.array([colours[y + dy, x + dx].T for dy, dx in _WINDOW])
    values -= values.mean(0)
    covariance = np.array([(values[:, i] * values[:, j]).mean(0) for i, j in _PAIRS])
    inverse = _inverse(covariance, noise / 9)
    weighted = _times(inverse, values.transpose(1, 0, 2)).transpose(1, 0, 2)
    # one more window of zeros stands for those that would reach beyond the picture
    index = np.full((unknown.shape[0] + 2, unknown.shape[1] + 2), len(y), np.intp)
    index[y + 1, x + 1] = np.arange(len(y))
    rows, columns = np.nonzero(unknown)
    total = np.zeros((5, 5, len(rows)))
    terms = np.zeros((9, len(y) + 1))
    for i, (dy, dx) in enumerate(_WINDOW):  # each pixel is the first, the second … the ninth of a window
        terms[:, :-1] = -(1 + (weighted[i] * values).sum(1)) / 9
        terms[i, :-1] += 1
        windows = index[rows + 1 - dy, columns + 1 - dx]
        for (other_dy, other_dx), term in zip(_WINDOW, terms, strict=True):
            total[2 + other_dy - dy, 2 + other_dx - dx] += term[windows]
    return np.asarray(total.reshape(25, -1).T, np.float32)


def _inverse(covariance: NDArray[np.float64], added: float) -> NDArray[np.float64]:
    """Of symmetric 3 × 3 matrices with `added` to their diagonals: their `_PAIRS` (6, n) -> (6, n)."""
    rr, rg, rb, gg, gb, bb = covariance
    rr, gg, bb = rr + added, gg + added, bb + added
    crr, crg, crb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    adjugate = np.array([crr, crg, crb, rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg])
    return np.asarray(adjugate / (rr * crr + rg * crg + rb * crb))


def _times(matrix: NDArray[np.float64], vector: NDArray[np.floating]) -> NDArray[np.float64]:
    """Symmetric 3 × 3 matrices, by their `_PAIRS` (6, n), times vectors (3, ..., n) -> (3, ..., n)."""
    rr, rg, rb, gg, gb, bb = matrix
    r, g, b = vector
    return np.array([rr * r + rg * g + rb * b, rg * r + gg * g + gb * b, rb * r + gb * g + bb * b])


def enlarge(
    photo: Image.Image, colours: NDArray[np.float64], matte: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A small matte at the photo's size: alpha (h, w) in [0, 1] -> uint8 (H, W).

    Around each pixel of the small photo alpha is a linear function of the colours, a · I + b (He and Sun
    2015). Its coefficients are interpolated, and applied to the colours of the large photo. Where the matte
    is constant they are not needed.

    Args:
        photo: mode RGB, (H, W).
        colours: the same photo, shrunk: (h, w, 3) in [0, 1].
        matte: alpha (h, w).
    """
    height, width = matte.shape
    grey: NDArray[np.uint8] = np.rint(matte * 255).astype(np.uint8)
    if photo.size == (width, height):
        return grey
    # Resize by the nearest neighbour, as Pillow does, but without two more copies of the large picture.
    rows, columns = (
        (2 * np.arange(length) + 1) * small // (2 * length)
        for length, small in ((photo.height, height), (photo.width, width))
    )
    alpha: NDArray[np.uint8] = grey.take(columns, 1).take(rows, 0)
    reach = 7  # a window of windows reaches 2 pixels far, and interpolation 1 more
    varies = ndimage.maximum_filter(matte, reach) != ndimage.minimum_filter(matte, reach)
    if not varies.any():
        return alpha
    planes = [Image.fromarray(plane) for plane in _coefficients(colours, matte)]
    for left, top, right, bottom in _blocks_of(varies, (photo.height, photo.width)):
        shape = (right - left, bottom - top)
        box = (
            left * width / photo.width,
            top * height / photo.height,
            right * width / photo.width,
            bottom * height / photo.height,
        )
        red, green, blue, value = (
            np.array(plane.resize(shape, Image.Resampling.BILINEAR, box)) for plane in planes
        )
        seen = np.asarray(photo.crop((left, top, right, bottom)))
        for i, slope in enumerate((red, green, blue)):
            slope *= seen[:, :, i]
            value += slope
        np.rint(value, out=value)
        alpha[top:bottom, left:right] = np.clip(value, 0, 255, out=value)
    return alpha


def _coefficients(colours: NDArray[np.float64], matte: NDArray[np.float32]) -> NDArray[np.float32]:
    """a and b of alpha = a · I + b, for I and alpha from 0 to 255: (h, w, 3), (h, w) -> (4, h, w)."""
    guide = np.ascontiguousarray(colours.transpose(2, 0, 1), np.float32)
    mean_guide, mean_alpha = _mean(guide), _mean(matte)
    # away from the edge a is 0
    edge = ndimage.maximum_filter(matte, 3) != ndimage.minimum_filter(matte, 3)
    pairs = [(_mean(guide[i] * guide[j]) - mean_guide[i] * mean_guide[j])[edge] for i, j in _PAIRS]
    with_alpha = (_mean(guide * matte) - mean_guide * mean_alpha)[:, edge]
    slope = np.zeros_like(guide)
    slope[:, edge] = _times(_inverse(np.array(pairs, np.float64), _SMOOTH), with_alpha)
    offset = mean_alpha - (slope * mean_guide).sum(0)
    return _mean(np.concatenate([slope, 255 * offset[None]]))


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the windows of 3 × 3 pixels: (..., h, w) -> (..., h, w)."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return np.asarray(total / np.float32(9), np.float32)


def _blocks_of(wanted: NDArray[np.bool_], size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of a picture that hold all wanted pixels of a smaller version of it: (h, w) -> boxes."""
    edges, first, last = [], [], []
    for length, small in zip(size, wanted.shape, strict=True):
        edge = np.append(np.arange(0, length, TILE), length)
        edges.append(edge)
        first.append(edge[:-1] * small // length)
        last.append(-(-edge[1:] * small // length))
    total = np.pad(wanted.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    upper, lower = total[first[0]], total[last[0]]
    tiles = (lower[:, last[1]] - lower[:, first[1]] - upper[:, last[1]] + upper[:, first[1]]) > 0
    return blocks(tiles, size)


def blocks(tiles: NDArray[np.bool_], size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) in pixels that cover the wanted tiles of a picture.

    Args:
        tiles: which tiles of 64 × 64 pixels are wanted.
        size: (height, width) of the picture.
    """
    height, width = size
    for row, wanted in enumerate(tiles):
        column = 0
        while column < len(wanted):
            if not wanted[column]:
                column += 1
                continue
            run = wanted[column : column + _MOST_TILES]
            end = column + (len(run) if run.all() else int(run.argmin()))
            bottom = min((row + 1) * TILE, height)
            yield column * TILE, row * TILE, min(end * TILE, width), bottom
            column = end
