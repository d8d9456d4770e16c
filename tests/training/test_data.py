"""The pairs of a run: which are held out, and whether they fit the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_hub import SaliencyDataset, TrainConfig
from u2net_hub.training.data import check_saliency_masks, divide, fit_batch, held_out_by_default

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


@pytest.mark.parametrize(
    ("pairs", "held_out"), [(2, 1), (12, 1), (60, 6), (300, 30), (3000, 300), (10553, 300)]
)
def test_a_tenth_of_the_pairs_is_held_out_but_at_most_300(pairs: int, held_out: int) -> None:
    assert held_out_by_default(pairs) == held_out


def test_by_default_a_tenth_is_held_out(pairs: Path) -> None:
    training, held_out = divide(TrainConfig(data=str(pairs), out=""))
    assert (len(training), len(held_out)) == (18, 2)


def test_pairs_that_are_all_copies_cannot_be_held_out_singly(tmp_path: Path, pairs: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for name in "abc":
            (tmp_path / kind / f"{name}.png").write_bytes((pairs / kind / "00.png").read_bytes())
    with pytest.raises(ValueError, match=r"no pair of .* can be held out"):
        divide(TrainConfig(data=str(tmp_path), out=""))


@pytest.mark.parametrize(
    ("pairs", "parts", "batch"), [(100, 1, 16), (16, 1, 16), (11, 1, 11), (11, 2, 10), (11, 4, 8)]
)
def test_a_batch_shrinks_to_the_pairs_there_are(pairs: int, parts: int, batch: int) -> None:
    assert fit_batch(16, pairs, parts=parts, live_norm=True) == batch


def test_a_smaller_batch_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit_batch(16, 11, parts=1, live_norm=True)
    assert "11 pairs for training, fewer than a batch of 16: the batch size is now 11" in caplog.text


def test_batch_norm_needs_two_pairs_in_each_part() -> None:
    with pytest.raises(ValueError, match=r"3 pairs for training, but a step needs at least 4 \(2 for batch"):
        fit_batch(16, 3, parts=2, live_norm=True)
    assert fit_batch(16, 3, parts=2, live_norm=False) == 2


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
