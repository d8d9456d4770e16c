"""Cleaning a matte: the largest part, holes, and an outline that moves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from u2net_hub.imaging import Cleanup, clean, clean_labels

LARGEST, FILL = Cleanup(largest_part=True), Cleanup(fill_holes=True)


def picture(text: str) -> NDArray[np.uint8]:
    """Digits to opacities: 0 is 0 and 9 is 255."""
    return np.array([[round(int(digit) * 255 / 9) for digit in row] for row in text.split()], np.uint8)


def blobs() -> NDArray[np.uint8]:
    """A soft random matte with several parts and holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random((60, 70)), 3)
    return np.rint(255 * np.clip((noise - 0.45) / 0.1, 0, 1)).astype(np.uint8)


def test_only_the_largest_part_stays() -> None:
    before = picture("9900000 9900099 0000099 0000099")
    assert np.array_equal(clean(before, LARGEST), picture("0000000 0000099 0000099 0000099"))


def test_parts_that_touch_at_a_corner_are_one() -> None:
    before = picture("9900 9900 0099 0099")
    assert np.array_equal(clean(before, LARGEST), before)


def test_the_largest_part_keeps_its_soft_edge_and_the_others_lose_theirs() -> None:
    before = picture("0148998410000148410")
    assert np.array_equal(clean(before, LARGEST), picture("0148998410000000000"))


def test_two_parts_that_share_a_soft_edge_are_divided_in_the_middle() -> None:
    assert np.array_equal(clean(picture("99999942249"), LARGEST), picture("99999942000"))


def test_a_faint_region_apart_is_dropped() -> None:
    assert np.array_equal(clean(picture("99931000330"), LARGEST), picture("99931000000"))


def test_a_faint_matte_has_parts_too() -> None:
    assert np.array_equal(clean(picture("33300303"), LARGEST), picture("33300000"))


def test_a_soft_matte_has_the_largest_part_of_its_mask() -> None:
    matte = blobs()
    parts, _ = ndimage.label(matte >= 127.5, np.ones((3, 3)))
    largest = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    kept = clean(matte, LARGEST)
    assert np.array_equal(kept >= 127.5, largest)
    assert np.array_equal(kept[kept > 0], matte[kept > 0])


def test_a_large_picture_is_divided_as_a_small_one() -> None:
    small = picture("0148998410000148410")
    large = small.repeat(120, 1).repeat(3, 0)  # more columns than the grid has cells
    assert np.array_equal(clean(large, LARGEST)[:, ::120], clean(small, LARGEST).repeat(3, 0))


def test_a_hole_is_filled_and_a_bay_is_not() -> None:
    before = picture("00000000 09999990 09090990 09999990 00000000")
    after = picture("00000000 09999990 09999990 09999990 00000000")
    assert np.array_equal(clean(before, FILL), after)
    bay = picture("0990 0900 0990 0000")
    assert np.array_equal(clean(bay, FILL), bay)


def test_the_soft_edge_of_a_hole_is_filled_and_the_outer_one_stays() -> None:
    ring = picture(
        "000000000 025999520 059999950 099626990 099202990 099626990 059999950 025999520 000000000"
    )
    filled = picture(
        "000000000 025999520 059999950 099999990 099999990 099999990 059999950 025999520 000000000"
    )
    assert np.array_equal(clean(ring, FILL), filled)


def test_a_mask_is_filled_as_scipy_fills_it() -> None:
    mask = np.random.default_rng(0).random((40, 50)) < 0.7
    expected = ndimage.binary_fill_holes(mask)
    assert (expected & ~mask).any()
    assert np.array_equal(clean(mask * np.uint8(255), FILL) > 0, expected)


def test_growing_by_one_and_two_pixels() -> None:
    dot = picture("0000000 0000000 0000000 0009000 0000000 0000000 0000000")
    one = picture("0000000 0000000 0009000 0099900 0009000 0000000 0000000")
    two = picture("0000000 0099900 0999990 0999990 0999990 0099900 0000000")
    assert np.array_equal(clean(dot, Cleanup(grow=1)), one)
    assert np.array_equal(clean(dot, Cleanup(grow=2)), two)


@pytest.mark.parametrize("radius", [3, 5, 8, 20])
def test_the_outline_moves_by_the_radius_in_all_directions(radius: int) -> None:
    dot = np.zeros((61, 61), np.uint8)
    dot[30, 30] = 255
    y, x = np.nonzero(clean(dot, Cleanup(grow=radius)))
    far = np.hypot(y - 30, x - 30)
    assert np.abs(y - 30).max() == np.abs(x - 30).max() == radius
    assert far.max() <= 1.09 * radius + 0.5
    inside = np.hypot(*np.mgrid[-30:31, -30:31]) <= 0.9 * radius
    assert clean(dot, Cleanup(grow=radius))[inside].all()


@pytest.mark.parametrize("radius", [1, 2, 3, 7, 40])
def test_growing_is_the_maximum_over_the_shape_that_a_dot_grows_to(radius: int) -> None:
    dot = np.zeros((2 * radius + 1,) * 2, np.uint8)
    dot[radius, radius] = 255
    shape = clean(dot, Cleanup(grow=radius)) > 0
    matte = blobs()[:40, :30]
    expected = ndimage.grey_dilation(matte, footprint=shape, mode="constant", cval=0)
    assert np.array_equal(clean(matte, Cleanup(grow=radius)), expected)


def test_a_soft_edge_moves_and_keeps_its_form() -> None:
    row = picture("000000148999999841000000")
    assert np.array_equal(clean(row, Cleanup(grow=3)), picture("000148999999999999841000"))
    assert np.array_equal(clean(row, Cleanup(grow=-2)), picture("000000001489984100000000"))


def test_the_border_of_the_picture_is_no_outline() -> None:
    assert np.array_equal(clean(picture("9999000"), Cleanup(grow=-2)), picture("9900000"))


@pytest.mark.parametrize("grow", [100, 10**9])
def test_growing_beyond_the_picture_fills_it_and_shrinking_empties_it(grow: int) -> None:
    assert (clean(picture("000 040 000"), Cleanup(grow=grow)) == 113).all()
    assert not clean(picture("999 990 999"), Cleanup(grow=-grow)).any()


@pytest.mark.parametrize(
    "cleanup", [LARGEST, FILL, Cleanup(smooth=True), Cleanup(grow=5), Cleanup(True, True, True, -3)]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 4)])
def test_an_empty_matte_stays_empty_and_a_full_one_full(cleanup: Cleanup, shape: tuple[int, int]) -> None:
    assert not clean(np.zeros(shape, np.uint8), cleanup).any()
    assert (clean(np.full(shape, 255, np.uint8), cleanup) == 255).all()


@pytest.mark.parametrize("grow", [-3, 3])
def test_a_mask_stays_a_mask(grow: int) -> None:
    mask = np.where(blobs() >= 128, np.uint8(255), np.uint8(0))
    assert set(np.unique(clean(mask, Cleanup(True, True, True, grow)))) == {0, 255}


def test_without_a_step_there_is_no_clean_up() -> None:
    matte = blobs()
    assert not Cleanup()
    assert np.array_equal(clean(matte, Cleanup()), matte)


def test_the_matte_that_is_given_is_not_changed() -> None:
    matte = blobs()
    before = matte.copy()
    clean(matte, Cleanup(True, True, True, 2))
    assert np.array_equal(matte, before)


def test_all_classes_are_one_object() -> None:
    labels = np.array([[1, 1, 2, 2, 0, 0, 3]], np.uint8)
    assert clean_labels(labels, LARGEST).tolist() == [[1, 1, 2, 2, 0, 0, 0]]
    assert clean_labels(labels, Cleanup(grow=1)).tolist() == [[1, 1, 2, 2, 2, 3, 3]]
    assert clean_labels(labels, Cleanup(grow=-1)).tolist() == [[1, 1, 2, 0, 0, 0, 0]]


@pytest.mark.parametrize("grow", [1.5, "2", None])
def test_a_distance_that_is_no_whole_number_is_refused(grow: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number of pixels"):
        Cleanup(grow=grow)  # type: ignore[arg-type]
