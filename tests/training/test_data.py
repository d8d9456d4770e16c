"""The pairs of a run: which are held out, and whether they fit the configuration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from u2net_hub import TrainConfig
from u2net_hub.training.data import divide, fit_batch, held_out_by_default


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
