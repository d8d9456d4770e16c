"""The pairs of a run: which are held out, and whether they fit the configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_hub import SaliencyDataset, TrainConfig
from u2net_hub.training.data import class_weights, divide, fit_batch, held_out_by_default, open_evaluated
from u2net_hub.training.loss import soft_iou


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


def disc(values: Sequence[int]) -> np.ndarray:
    """A square with a part for each value."""
    return np.repeat(np.array(values, np.uint8), 64).reshape(-1, 8)


@pytest.fixture
def masked(tmp_path: Path) -> Callable[[Sequence[int]], Path]:
    """A function to a set of one pair, whose mask has a part for each value."""

    def make(values: Sequence[int]) -> Path:
        for kind in ("images", "masks"):
            (tmp_path / "one" / kind).mkdir(parents=True)
        mask = Image.fromarray(disc(values))
        Image.new("RGB", mask.size).save(tmp_path / "one/images/a.png")
        mask.save(tmp_path / "one/masks/a.png")
        return tmp_path / "one"

    return make


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A set of 12 pairs of its own, with some of the names of `pairs`."""
    rng = np.random.default_rng(7)
    for kind in ("images", "masks"):
        (tmp_path / "other" / kind).mkdir(parents=True)
    for i in range(12):
        texture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        texture.resize((48, 48)).save(tmp_path / "other/images" / f"{i:02}.png")
        mask = Image.fromarray(disc((0, 255)))
        mask.resize((48, 48), Image.Resampling.NEAREST).save(tmp_path / "other/masks" / f"{i:02}.png")
    return tmp_path / "other"


def test_held_out_pairs_come_from_the_first_set_whatever_else_trains(pairs: Path, other: Path) -> None:
    alone = divide(TrainConfig(data=str(pairs), out="", validation=4))
    both = divide(TrainConfig(data=(f"{pairs}:3", f"{other}:0.5"), out="", validation=4))
    assert [pair.image for pair in both[1].pairs] == [pair.image for pair in alone[1].pairs]
    assert both[0].contents() == {
        pairs.name: {"pairs": 16, "samples": 48},
        "other": {"pairs": 6, "samples": 6},
    }
    assert not {pair.name for pair in both[0].pairs} & {pair.name for pair in both[1].pairs}
    assert both[1].name == pairs.name


def test_copies_of_held_out_photos_in_other_sets_do_not_train(
    pairs: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(data=(str(pairs), str(other)), out="", validation=4)
    held_out = divide(config)[1].pairs[2]
    for kind, file in (("images", held_out.image), ("masks", held_out.mask)):
        (other / kind / "05.png").write_bytes(Path(str(file)).read_bytes())
    with caplog.at_level(logging.WARNING):
        training, _ = divide(config)
    assert "1 photos of other do not train, because they show the same as held-out photos" in caplog.text
    assert "other/05" not in {pair.name for pair in training.pairs}
    assert training.contents()["other"] == {"pairs": 11, "samples": 11}


def test_copies_of_separate_validation_photos_do_not_train(pairs: Path, other: Path) -> None:
    (other / "images/05.png").write_bytes((pairs / "images/05.png").read_bytes())
    training, held_out = divide(TrainConfig(data=str(other), out="", validation_data=str(pairs)))
    assert (len(training), len(held_out)) == (11, 20)


def test_the_folders_of_several_sets_lie_inside_each(pairs: Path, other: Path) -> None:
    fields = {"data": (str(pairs), str(other)), "out": "", "validation": 4}
    divide(TrainConfig(images="images", masks="masks", **fields))
    with pytest.raises(ValueError, match=r"is not a folder inside .*; with several sets"):
        divide(TrainConfig(images=str(pairs / "images"), **fields))


def test_class_masks_are_refused_in_a_separate_validation_set_too(
    masked: Callable[[Sequence[int]], Path], pairs: Path
) -> None:
    folder = masked((0, 1, 2, 2))
    with pytest.raises(ValueError, match="look like class numbers"):
        divide(TrainConfig(data=str(pairs), out="", validation_data=str(folder)))


def test_sets_for_the_scores_at_the_end_are_opened_at_the_start(
    masked: Callable[[Sequence[int]], Path], pairs: Path, tmp_path: Path
) -> None:
    (dataset,) = open_evaluated(TrainConfig(data="", out="", evaluate=(str(pairs),)))
    assert len(dataset) == 20
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_evaluated(TrainConfig(data="", out="", evaluate=(str(tmp_path / "nowhere"),)))
    with pytest.raises(ValueError, match="look like class numbers"):
        open_evaluated(TrainConfig(data="", out="", evaluate=(str(masked((0, 1, 2, 2))),)))


def test_grey_values_of_held_out_masks_are_said(
    masked: Callable[[Sequence[int]], Path], pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = masked((0, 128, 255, 255))
    with caplog.at_level(logging.INFO):
        divide(TrainConfig(data=str(pairs), out="", validation_data=str(folder)))
    assert "grey values (25.0 % of their pixels)" in caplog.text
    assert "scores count values from 128 as the object" in caplog.text


def test_balanced_weights_are_the_inverse_of_the_shares(masked: Callable[[Sequence[int]], Path]) -> None:
    dataset = SaliencyDataset(masked((0, 0, 0, 1, 255)), classes=3)
    balanced = TrainConfig(data="", out="", classes=3, overrides={"class_weights": "balanced"})
    # of four labelled parts three are class 0, one is class 1, none is class 2: 4 / (3 · 3), 4 / (3 · 1), 0
    weights = class_weights(dataset, balanced.settings)
    assert weights is not None
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0])


def test_weights_of_classes_are_taken_as_given(pairs: Path) -> None:
    config = TrainConfig(data="", out="", classes=2, overrides={"class_weights": (1.0, 5.0)})
    dataset = SaliencyDataset(pairs, classes=2)
    weights = class_weights(dataset, config.settings)
    assert weights is not None
    assert weights.tolist() == [1, 5]
    assert class_weights(dataset, TrainConfig(data="", out="", classes=2).settings) is None


def test_the_iou_loss_on_mattes_is_warned_of(
    masked: Callable[[Sequence[int]], Path], pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned(**overrides: float) -> bool:
        caplog.clear()
        divide(TrainConfig(data=str(folder), out="", validation_data=str(pairs), overrides=overrides))
        return "--iou 0" in caplog.text

    folder = masked((0, 128, 255, 255))
    assert warned(iou=1.0)
    assert not warned(iou=0.0, l1=1.0)


@pytest.mark.parametrize(("target", "towards"), [(0.3, 0), (0.7, 1)])
def test_the_iou_loss_draws_soft_values_to_the_ends(target: float, towards: int) -> None:
    # nine opaque pixels and a soft one, which the map has right already
    matte = torch.ones(1, 1, 1, 10)
    matte[..., 9] = target
    logits = torch.logit(matte.clamp(max=0.9999)).requires_grad_()
    soft_iou(logits, matte).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 9] < 0) == bool(towards)
