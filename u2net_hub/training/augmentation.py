"""The settings of augmentation: how training changes photos and masks before the network sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How photos and masks are changed at random, in the order of these fields.

    All but `background` change every picture, each by a strength that is drawn uniformly between nothing and
    the largest. The docstring below each field is its help text.
    """

    area: float | None = None
    """Smallest part of the picture's area that a crop shows, enlarged to the crop's size. By default crops
    are not enlarged."""
    rotation: float = 0.0
    """Largest angle that pictures are turned by, in degrees."""
    flip: bool = True
    """Mirror half of the pictures horizontally."""
    background: float = 0.0
    """Part of the pictures whose object is put on the background of another training photo, 0 to 1."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, from 0 up to 1."""
    hue: float = 0.0
    """Largest change of hue, as a part of the colour circle, 0 to 0.5."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of the crop."""
    jpeg: int | None = None
    """Lowest quality of JPEG compression, 1 to 100. By default pictures are not compressed."""


_RANGES = {
    "area": (0.01, 1),
    "rotation": (0, 180),
    "background": (0, 1),
    "hue": (0, 0.5),
    "blur": (0, 20),
    "jpeg": (1, 100),
}


def check_augmentation(settings: Augmentation) -> None:
    """Refuse settings that are out of range.

    Raises:
        ValueError: A setting is out of range.
    """
    if not 0 <= settings.jitter < 1:
        raise ValueError(f"jitter is {settings.jitter}, expected a part from 0 up to 1")
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")
