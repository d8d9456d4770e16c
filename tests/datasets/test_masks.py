"""Masks of class numbers are told from saliency masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_hub.datasets import SaliencyDataset, check_class_masks, check_dataset, check_saliency_masks

Masks = Callable[[Image.Image], SaliencyDataset]


def disc(values: Sequence[int]) -> np.ndarray:
    """A square with a part for each value."""
    return np.repeat(np.array(values, np.uint8), 64).reshape(-1, 8)


@pytest.fixture
def masks(tmp_path: Path) -> Masks:
    def make(mask: Image.Image) -> SaliencyDataset:
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        Image.new("RGB", mask.size).save(tmp_path / "images" / "a.png")
        mask.save(tmp_path / "masks" / "a.png")
        return SaliencyDataset(tmp_path)

    return make


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 1), (0, 0, 5, 5, 255)])
def test_masks_of_class_numbers_are_refused_without_classes(masks: Masks, values: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=r"look like class numbers.*--classes N"):
        check_saliency_masks(masks(Image.fromarray(disc(values))))


def test_masks_of_coloured_palettes_are_refused_without_classes(masks: Masks) -> None:
    picture = Image.fromarray(disc((0, 15, 15, 255))).convert("P")
    picture.putdata(disc((0, 15, 15, 255)).ravel().tolist())
    # person in the palette of PASCAL VOC is number 15, (192, 128, 128); the border is (224, 224, 192)
    picture.putpalette([*[0] * 45, 192, 128, 128, *[0] * 717, 224, 224, 192])
    with pytest.raises(ValueError, match="look like class numbers"):
        check_saliency_masks(masks(picture))


@pytest.mark.parametrize(
    "values", [(0, 255), (0, 0), (0, 3, 128, 250, 255), (0, 1, 255, 255), (255, 255), (0, 60, 120)]
)
def test_saliency_masks_are_accepted(masks: Masks, values: Sequence[int]) -> None:
    check_saliency_masks(masks(Image.fromarray(disc(values))))


def test_a_palette_of_black_and_white_is_a_saliency_mask(masks: Masks) -> None:
    picture = Image.new("P", (8, 8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.putdata([0, 1] * 32)
    check_saliency_masks(masks(picture))


def test_class_numbers_are_an_error_of_the_check_unless_their_number_is_given(masks: Masks) -> None:
    # the masks of PASCAL VOC: a class, and 255 at its border
    (pair,) = masks(Image.fromarray(disc((0, 5, 5, 255)))).pairs
    root = pair.image.parents[1]
    (finding,) = check_dataset(root).errors
    assert (finding.defect, finding.files) == ("class-numbers", (str(pair.mask),))
    assert "values [0, 5, 255]; with --classes N" in finding.detail
    assert not check_dataset(root, classes=6).findings


def _of_classes(dataset: SaliencyDataset) -> SaliencyDataset:
    (pair,) = dataset.pairs
    return SaliencyDataset(pair.image.parents[1], classes=3)


def test_masks_of_saliency_are_refused_where_classes_are_expected(masks: Masks) -> None:
    dataset = _of_classes(masks(Image.fromarray(disc((0, 255)))))
    with pytest.raises(ValueError, match=r"hold 0 and 255 alone.*Leave out --classes"):
        check_class_masks(dataset)


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 255), (0, 0), (255, 255)])
def test_masks_of_class_numbers_are_accepted(masks: Masks, values: Sequence[int]) -> None:
    check_class_masks(_of_classes(masks(Image.fromarray(disc(values)))))


def test_a_check_with_classes_finds_a_set_of_saliency_masks(masks: Masks) -> None:
    (pair,) = masks(Image.fromarray(disc((0, 255)))).pairs
    report = check_dataset(pair.image.parents[1], classes=3)
    assert [finding.defect for finding in report.errors] == ["no-classes"]
