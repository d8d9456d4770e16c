"""The object's colours without what shines through at its edge."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from u2net_hub.imaging.foreground import estimate, foreground_colours

RED, BLUE = np.array([200.0, 20, 20]), np.array([20.0, 20, 200])


def ramp(height: int, width: int) -> NDArray[np.float64]:
    """Alpha that rises from 0 to 1 in the middle tenth."""
    row = np.clip(np.linspace(-4.5, 5.5, width), 0, 1)
    return np.tile(row, (height, 1))


def composite(
    alpha: NDArray[np.float64], fore: NDArray[np.float64], back: NDArray[np.float64]
) -> Image.Image:
    mixed = alpha[..., None] * fore + (1 - alpha[..., None]) * back
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def grey(alpha: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(alpha * 255).astype(np.uint8))


def textures(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smooth colours that vary over the picture, of an object and of a background."""
    y, x = np.mgrid[:height, :width]
    y, x = y / height, x / width
    fore = np.stack([180 + 60 * np.sin(9 * x), 120 + 60 * np.cos(7 * y), 60 + 40 * np.sin(5 * (x + y))], -1)
    back = np.stack([60 + 50 * np.cos(8 * y), 90 + 60 * np.sin(6 * x), 190 + 50 * np.cos(9 * x * y)], -1)
    return fore, back


def weighted_error(found: Image.Image, fore: NDArray[np.float64], alpha: NDArray[np.float64]) -> float:
    """Mean difference in grey levels of the half-transparent pixels, weighted by alpha."""
    weight = np.where((alpha > 0) & (alpha < 1), alpha, 0)
    return float((np.abs(np.asarray(found) - fore).mean(2) * weight).sum() / weight.sum())


def test_a_mixture_of_two_colours_is_undone() -> None:
    alpha = ramp(60, 90)
    clean = np.asarray(foreground_colours(composite(alpha, RED, BLUE), grey(alpha)))
    shown = (alpha > 0.1) & (alpha < 1)
    assert np.abs(clean[shown] - RED).max() <= 6


def test_colours_that_vary_are_found_within_five_grey_levels() -> None:
    alpha, (fore, back) = ramp(150, 240), textures(150, 240)
    photo = composite(alpha, fore, back)
    assert weighted_error(photo, fore, alpha) > 20
    assert weighted_error(foreground_colours(photo, grey(alpha)), fore, alpha) <= 5.3


def test_colours_are_as_near_as_those_of_pymatting() -> None:
    ml = pytest.importorskip("pymatting").estimate_foreground_ml
    alpha, (fore, back) = ramp(150, 240), textures(150, 240)
    photo = composite(alpha, fore, back)
    theirs = ml(np.asarray(photo, np.float64) / 255, alpha)
    oracle = Image.fromarray(np.rint(theirs * 255).astype(np.uint8))
    ours = foreground_colours(photo, grey(alpha))
    assert weighted_error(ours, fore, alpha) <= 1.1 * weighted_error(oracle, fore, alpha) + 0.5


def test_detail_finer_than_the_estimate_comes_from_the_full_size_photo() -> None:
    # F = F' + α(I - …) shows α² of what the estimate F' is without: lines of 40 grey levels at α = 0.9
    alpha = ramp(40, 3200)
    fore = np.where(np.arange(3200)[None, :, None] % 2, RED, RED - (40, 0, 0))
    photo = composite(alpha, fore, BLUE)
    clean = np.asarray(foreground_colours(photo, grey(alpha)))[20, :, 0].astype(int)
    column = int(np.searchsorted(alpha[20], 0.9)) // 2 * 2
    assert clean[column + 1] - clean[column] == pytest.approx(40 * 0.81, abs=4)


def test_the_photos_colours_stay_where_alpha_is_0_or_1() -> None:
    alpha, (fore, back) = ramp(50, 70), textures(50, 70)
    photo = composite(alpha, fore, back)
    clean = np.asarray(foreground_colours(photo, grey(alpha)))
    kept = (alpha == 0) | (alpha == 1)
    assert np.array_equal(clean[kept], np.asarray(photo)[kept])


def test_the_photo_itself_is_not_changed() -> None:
    alpha = ramp(50, 70)
    photo = composite(alpha, RED, BLUE)
    before = photo.tobytes()
    foreground_colours(photo, grey(alpha))
    assert photo.tobytes() == before


def test_what_is_seen_is_explained_by_both_colours() -> None:
    alpha, (fore, back) = ramp(60, 90), textures(60, 90)
    photo = np.asarray(composite(alpha, fore, back), np.float32)
    f, b = estimate(photo, alpha.astype(np.float32))
    again = alpha[..., None] * f + (1 - alpha[..., None]) * b
    assert np.abs(again - photo).max() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 900), (900, 2)])
def test_any_size_has_colours(size: tuple[int, int]) -> None:
    assert foreground_colours(Image.new("RGB", size, "red"), Image.new("L", size, 128)).size == size


@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_one_colour_stays_that_colour_whatever_alpha(value: int) -> None:
    photo = Image.new("RGB", (40, 30), (10, 120, 240))
    clean = foreground_colours(photo, Image.new("L", (40, 30), value))
    assert np.abs(np.asarray(clean).astype(int) - (10, 120, 240)).max() <= 1


def test_two_runs_give_the_same_bytes() -> None:
    alpha, (fore, back) = ramp(100, 150), textures(100, 150)
    photo = composite(alpha, fore, back)
    first, second = (foreground_colours(photo, grey(alpha)).tobytes() for _ in range(2))
    assert first == second


def test_memory_is_bounded_for_large_photos() -> None:
    photo, alpha = Image.new("RGB", (3000, 1500), "gray"), Image.new("L", (3000, 1500), 128)
    tracemalloc.start()
    try:
        foreground_colours(photo, alpha)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # what does not grow with the photo; a float picture of its size has 54 MB
    assert peak < 45e6


def test_a_large_alpha_is_read_in_parts() -> None:
    photo, alpha = Image.new("RGB", (3000, 1500), "gray"), Image.new("L", (3000, 1500))
    alpha.paste(128, (700, 700, 720, 720))
    tracemalloc.start()
    try:
        foreground_colours(photo, alpha)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6  # the whole alpha has 4.5 MB


def test_two_sizes_raise() -> None:
    with pytest.raises(ValueError, match=r"photo is \(4, 3\) and alpha \(3, 4\), expected one"):
        foreground_colours(Image.new("RGB", (4, 3)), Image.new("L", (3, 4)))
