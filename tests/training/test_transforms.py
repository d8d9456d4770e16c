"""Changes of photos and masks, against hand calculations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from u2net_hub.training.transforms import (
    areas,
    blur,
    change_hue,
    compress,
    exchange_backgrounds,
    fill,
    opacity,
    warp,
)


def pattern(side: int = 8) -> tuple[Tensor, Tensor]:
    """A photo and a mask with the same values, all different."""
    values = torch.arange(side * side, dtype=torch.uint8).view(1, side, side)
    return values[..., None].repeat(1, 1, 1, 3), values


def shown(area: list[float], *, angle: float = 0.0, mirrored: bool = False, crop: int = 8) -> Tensor:
    """What `warp` shows of the pattern."""
    photo, mask = warp(
        *pattern(), crop, torch.tensor([area]), torch.tensor([angle]), torch.tensor([mirrored])
    )
    assert torch.equal(photo, mask[..., None].expand_as(photo))
    return mask[0]


def test_an_area_of_the_size_of_the_crop_is_cut_out_exactly() -> None:
    assert torch.equal(shown([1, 2, 5, 5], crop=5), pattern()[1][0, 1:6, 2:7])


def test_a_quarter_turn_goes_clockwise() -> None:
    assert torch.equal(shown([0, 0, 8, 8], angle=90), pattern()[1][0].rot90(-1))


def test_a_mirrored_area_runs_from_right_to_left() -> None:
    assert torch.equal(shown([0, 0, 8, 8], mirrored=True), pattern()[1][0].flip(1))


def test_beyond_the_edge_the_picture_is_mirrored() -> None:
    found = shown([-2, 0, 8, 8])
    assert torch.equal(found[:2], pattern()[1][0, :2].flip(0))
    assert torch.equal(found[2:], pattern()[1][0, :6])


def test_an_enlarged_area_is_interpolated() -> None:
    photo = torch.tensor([[0, 100], [0, 100]], dtype=torch.uint8).view(1, 2, 2)
    _, found = warp(
        photo[..., None].repeat(1, 1, 1, 3), photo, 4, torch.tensor([[0.0, 0, 2, 2]]), torch.zeros(1),
        torch.tensor([False]),
    )  # fmt: skip
    assert found[0, 0].tolist() == [0, 25, 75, 100]


def test_class_numbers_are_never_mixed() -> None:
    mask = torch.tensor([0, 5, 255, 5], dtype=torch.uint8).view(1, 2, 2)
    angles, area = torch.tensor([30.0]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    _, found = warp(
        mask[..., None].repeat(1, 1, 1, 3), mask, 9, area, angles, torch.tensor([True]), classes=True
    )
    assert set(found.unique().tolist()) == {0, 5, 255}


def test_an_area_has_the_part_and_the_aspect_that_were_drawn() -> None:
    corners = torch.zeros(2, 2, dtype=torch.long)
    draws = torch.tensor([[0.0, 0.5, 0.0, 1.0], [0.5, 1.0, 0.5, 0.5]])
    first, second = areas(corners, 288, 320, 0.25, draws)
    torch.testing.assert_close(first, torch.tensor([0.0, 160, 160, 160]))
    height, width = 320 * math.sqrt(0.625 * 3 / 4), 320 * math.sqrt(0.625 * 4 / 3)
    torch.testing.assert_close(second, torch.tensor([(320 - height) / 2, (320 - width) / 2, height, width]))


def test_without_enlargement_an_area_is_the_crop() -> None:
    corners = torch.tensor([[3, 4]])
    assert areas(corners, 288, 320, None, torch.rand(1, 4)).tolist() == [[3, 4, 288, 288]]


def colour(red: int, green: int, blue: int, side: int = 16) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8).expand(1, side, side, 3).clone()


def square(low: int, high: int, value: float = 1.0) -> Tensor:
    alpha = torch.zeros(1, 1, 16, 16)
    alpha[:, :, low:high, low:high] = value
    return alpha


def test_an_object_is_put_on_the_other_background_without_the_other_object() -> None:
    photo, other = colour(0, 0, 0), colour(0, 0, 200)
    photo[:, 4:8, 4:8] = torch.tensor([200, 0, 0], dtype=torch.uint8)
    other[:, 6:12, 6:12] = torch.tensor([0, 200, 0], dtype=torch.uint8)
    found = exchange_backgrounds(photo, square(4, 8), other, square(6, 12))
    expected = colour(0, 0, 200)
    expected[:, 4:8, 4:8] = torch.tensor([200, 0, 0], dtype=torch.uint8)
    assert torch.equal(found, expected)


def test_a_soft_edge_shows_the_new_background_instead_of_the_old() -> None:
    alpha = square(4, 8) + square(8, 9, 0.5)
    seen = alpha.permute(0, 2, 3, 1) * torch.tensor([200.0, 0, 0]) + (1 - alpha.permute(0, 2, 3, 1)) * 100
    found = exchange_backgrounds(seen.round().byte(), alpha, colour(0, 0, 200), torch.zeros(1, 1, 16, 16))
    # half of the object's red, nothing of the old grey, half of the new blue
    assert found[0, 8, 8].tolist() == [100, 0, 100]


def test_a_photo_without_an_object_stays_as_it_is() -> None:
    photo, nothing = colour(1, 2, 3), torch.zeros(1, 1, 16, 16)
    assert torch.equal(exchange_backgrounds(photo, nothing, colour(9, 9, 9), nothing), photo)


def test_a_hole_is_filled_with_the_colours_around_it() -> None:
    left_and_right = torch.zeros(1, 1, 8, 8)
    left_and_right[..., 4:] = 100
    known = torch.ones(1, 1, 8, 8)
    known[..., 2:6] = 0
    filled = fill(left_and_right, known)
    assert torch.equal(filled[..., :2], left_and_right[..., :2])
    assert torch.equal(filled[..., 6:], left_and_right[..., 6:])
    row = filled[0, 0, 4]
    assert (row.diff() >= 0).all()
    assert 0 < row[3] < row[4] < 100


def test_a_picture_of_which_nothing_is_known_stays() -> None:
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(fill(picture, torch.zeros(1, 1, 8, 8)), picture)


def test_all_classes_but_the_background_are_opaque() -> None:
    masks = torch.tensor([[[0, 1, 2, 255]]], dtype=torch.uint8)
    assert opacity(masks, classes=True).flatten().tolist() == [0, 1, 1, 1]
    assert opacity(masks).flatten().tolist() == pytest.approx([0, 1 / 255, 2 / 255, 1])


def test_a_third_of_the_colour_circle_lies_between_red_and_green() -> None:
    turned = change_hue(torch.cat([colour(200, 0, 0), colour(70, 70, 70)]), torch.tensor([1 / 3, 1 / 3]))
    assert (turned[0, 0, 0].int() - torch.tensor([0, 200, 0])).abs().max() <= 1
    assert turned[1, 0, 0].tolist() == [70, 70, 70]


def test_a_blur_has_the_standard_deviation_that_is_asked_for() -> None:
    line = torch.zeros(1, 33, 33, 3, dtype=torch.uint8)
    line[:, :, 16] = 255
    row = blur(line, torch.tensor([2.0]))[0, 16, :, 0].double()
    places = torch.arange(33) - 16
    assert ((row * places**2).sum() / row.sum()).sqrt() == pytest.approx(2.0, abs=0.05)


def test_no_blur_changes_nothing_and_a_wide_one_fits_a_small_picture() -> None:
    photos = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    blurred = blur(photos, torch.tensor([0.0, 20.0]))
    assert torch.equal(blurred[0], photos[0])
    assert blurred[1].float().std() < photos[1].float().std()


def test_a_lower_quality_changes_a_photo_more() -> None:
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=generator)
    good, bad = compress(photo.repeat(2, 1, 1, 1), torch.tensor([100, 1]))
    assert good.shape == photo.shape[1:]
    assert (good.int() - photo[0]).abs().sum() < (bad.int() - photo[0]).abs().sum()
