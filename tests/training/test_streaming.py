"""Batches from pictures that are decoded when they are needed."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_hub import SaliencyDataset, U2NetConfig
from u2net_hub.datasets.dataset import Sample
from u2net_hub.training.augmentation import Augmentation
from u2net_hub.training.batches import Batches, Pictures
from u2net_hub.training.checkpointing import tell_how_to_go_on
from u2net_hub.training.config import Phase
from u2net_hub.training.streaming import StreamedPictures, UnreadablePairError, batches_ahead

PHASE = Phase(1.0, 36, 32)


class Endless:
    """A data set of many pairs, each made when it is asked for. It counts how often that happens."""

    name = "endless"

    def __init__(self, pairs: int, classes: int | None = None) -> None:
        self.pairs, self.classes, self.made = pairs, classes, 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, index: int) -> Sample:
        with self._lock:
            self.made += 1
        mask = np.zeros((40, 40), np.uint8)
        mask[:, 13:] = 2
        return Sample(str(index), np.full((40, 40, 3), index % 256, np.uint8), mask)


def streamed(dataset: SaliencyDataset | Endless, side: int = 36, threads: int = 2) -> StreamedPictures:
    return StreamedPictures(dataset, (side, side), threads=threads)  # type: ignore[arg-type]


def batches(pictures: Pictures | StreamedPictures, **settings: int) -> Batches:
    changes = Augmentation(background=0.5, jitter=0.2)  # half of the samples need a second picture
    return Batches(pictures, U2NetConfig(), PHASE, batch_size=4, seed=3, augmentation=changes, **settings)


def test_streamed_batches_are_those_from_memory_in_any_order(pairs: Path) -> None:
    dataset, size = SaliencyDataset(pairs), (PHASE.load, PHASE.load)
    whole = batches(Pictures.read(dataset, (44, 44)).resized(size))
    pictures = streamed(dataset, 44, threads=3).resized(size)
    stream = batches(pictures)
    for number in (0, 1, 2, 7, 3, 3):
        for expected, found in zip(whole[number], stream[number], strict=True):
            assert torch.equal(found, expected)
    pictures.close()


def test_processes_share_a_streamed_batch(pairs: Path) -> None:
    dataset = SaliencyDataset(pairs)
    whole = batches(Pictures.read(dataset, (36, 36)))[5]
    parts = []
    for rank in (0, 1):
        pictures = streamed(dataset)
        parts.append(batches(pictures, rank=rank, world=2)[5])
        pictures.close()
    for both, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(both, torch.cat(halves))


def test_class_numbers_are_not_mixed_when_they_are_streamed() -> None:
    pictures = streamed(Endless(4, classes=3), 38).resized((36, 36))
    taken, places = pictures.take(0, lambda number: [0, 1])
    assert taken.masks.unique().tolist() == [0, 2]  # between 0 and 2 lies class 1, which is not there
    assert places.tolist() == [0, 1]
    pictures.close()


def test_two_batches_are_decoded_ahead_and_no_more() -> None:
    dataset = Endless(1000)
    pictures = streamed(dataset)
    stream = batches(pictures)
    for number in range(5):
        stream[number]
    pictures.close()
    assert dataset.made <= sum(len(stream.needed(number)) for number in range(5 + 2))


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    def peak(pairs: int, number_of_batches: int) -> int:
        pictures = streamed(Endless(pairs))
        tracemalloc.start()
        for number in range(number_of_batches):
            pictures.take(number, lambda number: [i % pairs for i in range(4 * number, 4 * number + 4)])
        pictures.close()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    one_pair = 36 * 36 * 4
    assert peak(20_000, 100) < peak(40, 10) + 8 * one_pair


def test_ahead_are_two_batches_or_enough_for_all_threads() -> None:
    assert batches_ahead(threads=4, share=8) == 2
    assert batches_ahead(threads=16, share=3) == 6  # 5 batches hold 15 pairs, one less than threads


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:300]), Path.unlink])
def test_a_file_that_is_damaged_in_the_middle_of_a_run_is_named(
    pairs: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("00.png", "01.png"):
            (tmp_path / folder / name).write_bytes((pairs / folder / name).read_bytes())
    pictures = streamed(SaliencyDataset(tmp_path))
    damage(tmp_path / "images" / "01.png")
    with pytest.raises(UnreadablePairError, match=r"images.01\.png"):
        pictures.take(0, lambda number: [0, 1])
    pictures.close()


def test_the_error_of_a_damaged_file_says_which_checkpoint_is_left_and_how_to_go_on(tmp_path: Path) -> None:
    def fail() -> None:
        with tell_how_to_go_on(tmp_path, "u2net train --out r --resume"):
            raise UnreadablePairError("a.jpg cannot be read")

    with pytest.raises(UnreadablePairError, match=r"a\.jpg cannot be read; there is no checkpoint yet"):
        fail()
    (tmp_path / "checkpoints" / "step-00000020").mkdir(parents=True)
    with pytest.raises(UnreadablePairError, match=r"is intact: put .*with: u2net train --out r --resume"):
        fail()
