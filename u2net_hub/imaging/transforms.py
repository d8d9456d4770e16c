"""Bring a photo to the network's input, and the network's map back to the photo's size. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image

from .decode import Photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config import U2NetConfig

Edges: TypeAlias = Literal["soft", "sharp", "hair"]
"""How the edge of a matte is made: `"soft"` is the network's map as it is, `"sharp"` a matte for things with
a clear outline, `"hair"` one for hair, fur and whatever else is thinner than the network can see."""


_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


# The network sees a transparent photo on white. With 120 photos of DUTS-TR that were cut out by their masks,
# the authors' U²-Net† found the object with an IoU of .988 on white, .985 on grey and .977 on black.
_BACKGROUND = (255, 255, 255)


def preprocess(photo: Photo, config: U2NetConfig) -> NDArray[np.float32]:
    """Resize, scale and normalise a photo for the network, as the config says: float32 (C, h, w).

    Raises:
        ValueError: The network takes neither 3 channels (RGB) nor 1 (grey).
    """
    check_channels(config)
    height, width = config.input_size
    image = photo.on(_BACKGROUND)
    if config.in_channels == 1:
        image = image.convert("L")
    pixels = np.asarray(_resample(image, (width, height), _RESAMPLE[config.interpolation]), np.float32)
    # The official ToTensorLab (data_loader.py) divides by the resized image's own maximum. A black image is
    # divided by 1.
    top = max(float(pixels.max()), 1.0) if config.scale == "image_max" else 255.0
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    x = (pixels.reshape(height, width, -1) / np.float32(top) - mean) / std
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def _resample(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Resize to `size`, (width, height), at the cost of the pixels before and after.

    Pillow resizes rows first. A picture that becomes wider and lower would in between be as large as neither:
    10 × 2,400,000 pixels to 320 × 320 would take 768 million.
    """
    if size[0] > image.width and size[1] < image.height:
        image = image.resize((image.width, size[1]), how)
    return image.resize(size, how)


def check_channels(config: U2NetConfig) -> None:
    """Raise ValueError if the network takes neither RGB nor grey photos."""
    if config.in_channels not in (1, 3):
        raise ValueError(
            f"the network takes {config.in_channels} channels, expected 3 (RGB) or 1 (grey) for photos"
        )


FOUND_FROM = 0.5
"""A photo has a salient object if its `confidence` is at least this; docs/cutouts.md explains the choice."""


def confidence(probability: NDArray[np.float32]) -> float:
    """Measure how sure the network is that there is a salient object: (h, w) before min–max -> [0, 1].

    Min–max turns a pixel into foreground if its probability is at least halfway between the lowest and the
    highest. The confidence is the mean probability of these pixels. A constant map has no foreground, so its
    confidence is 0.
    """
    foreground = probability[stretch(probability) >= 0.5]
    return float(foreground.mean()) if foreground.size else 0.0


def postprocess(
    probability: NDArray[np.float32],
    size: tuple[int, int],
    *,
    minmax: Literal["auto", "always", "never"] = "always",
) -> NDArray[np.float32]:
    """Bring the network's map to the size of the photo: (h, w) in [0, 1] -> saliency (H, W) in [0, 1].

    Args:
        probability: One map of the network, after its activation.
        size: The (height, width) of the photo in pixels.
        minmax: `"always"` stretches the map to [0, 1] as the official code does; `"auto"` does so where
            something was found, and gives an empty map otherwise; `"never"` keeps the probabilities.

    Raises:
        ValueError: `minmax` is none of the three.
    """
    return resize(normalise(probability, minmax), size)


def normalise(
    probability: NDArray[np.float32], minmax: Literal["auto", "always", "never"]
) -> NDArray[np.float32]:
    """Apply min–max as `postprocess` does, but keep the network's size: (h, w) -> (h, w), both in [0, 1]."""
    if minmax not in ("auto", "always", "never"):
        raise ValueError(f"minmax is {minmax!r}, expected 'auto', 'always' or 'never'")
    if minmax == "never":
        return probability
    if minmax == "auto" and confidence(probability) < FOUND_FROM:
        return np.zeros_like(probability)
    return stretch(probability)


def stretch(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply min–max normalisation, (h, w) -> (h, w) from 0 to 1 (normPRED in the official u2net_test.py).

    A constant map becomes 0: min–max would divide by zero, and the map shows no object.
    """
    low, high = saliency.min(), saliency.max()
    if high <= low:
        return np.zeros_like(saliency)
    return np.asarray((saliency - low) / (high - low), np.float32)


def resize(saliency: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize bilinearly, (h, w) in [0, 1] -> (H, W) in [0, 1]; `size` is (H, W) in pixels."""
    resized = np.empty(size, np.float32)
    for rows, values in _resized_strips(saliency, size):
        resized[rows] = values
    return resized


def to_grey(saliency: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a map and round it to 256 levels: (h, w) in [0, 1] -> uint8 (H, W).

    It never holds a float map of the photo's size, which for 12 megapixels takes 48 MB.
    """
    grey = np.empty(size, np.uint8)
    for rows, values in _resized_strips(saliency, size):
        values *= 255
        grey[rows] = np.rint(values, out=values)
    return grey


# The number of rows of a large map that are computed at once: these fit into the processor's cache.
_STRIP_ROWS = 32


def _resized_strips(
    saliency: NDArray[np.float32], size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the resized map in strips of rows; the caller may change a strip."""
    height, width = size
    h, w = saliency.shape
    image = Image.fromarray(saliency)
    if height < h:
        values = np.array(_resample(image, (width, height), Image.Resampling.BILINEAR), np.float32)
        yield slice(0, height), np.clip(values, 0, 1, out=values)
        return
    wide = np.asarray(image if width == w else image.resize((width, h), Image.Resampling.BILINEAR))
    # Interpolate between two rows with the pixel centres aligned, as Pillow does.
    position = np.clip((np.arange(height) + 0.5) * (h / height) - 0.5, 0, h - 1)
    upper = position.astype(np.intp)
    lower = np.minimum(upper + 1, h - 1)
    share = (position - upper).astype(np.float32)[:, None]
    for top in range(0, height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, height))
        values, above = wide[lower[rows]], wide[upper[rows]]
        values -= above
        values *= share[rows]
        values += above
        yield rows, np.clip(values, 0, 1, out=values)


def most_likely(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Find the class of each pixel of the photo: (out, h, w) -> uint8 (H, W); `size` is (H, W) in pixels.

    The classes are resized one after another, so that any number of classes needs the memory of two maps.
    """
    best = resize(probabilities[0], size)
    labels = np.zeros(size, np.uint8)
    for i in range(1, len(probabilities)):
        candidate = resize(probabilities[i], size)
        labels[candidate > best] = i
        np.maximum(best, candidate, out=best)
    return labels


def palette() -> bytes:
    """Make the palette of the classes 0 … 255: the PASCAL VOC colour map, in which 0 is black."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    # Bits 0, 1, 2 of the class number become the highest bits of red, green, blue; the next three bits
    # follow.
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()
