"""Shares of data sets, and one training set of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_hub import SaliencyDataset
from u2net_hub.datasets import Share, join, parse_share, take, without_copies
from u2net_hub.datasets.mixing import distinct

Make = Callable[[str, list[int]], SaliencyDataset]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data set of the photos with these numbers; each number is a photo of its own, in any set."""

    def made(name: str, photos: list[int]) -> SaliencyDataset:
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for place, number in enumerate(photos):
            texture = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            photo = Image.fromarray(texture).resize((32, 32), Image.Resampling.BICUBIC)
            photo.save(tmp_path / name / "images" / f"{place}.png")
            Image.new("L", (32, 32), 255).save(tmp_path / name / "masks" / f"{place}.png")
        return SaliencyDataset(tmp_path / name)

    return made


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("mine", Share("mine")),
        ("DUTS-TR:0.2", Share("DUTS-TR", 0.2)),
        ("/data/DUTS-TR:3", Share("/data/DUTS-TR", 3.0)),
        ("mine:of me", Share("mine:of me")),
        (r"C:\data\mine", Share(r"C:\data\mine")),
        (r"C:\data\mine:0.5", Share(r"C:\data\mine", 0.5)),
        ("C:2", Share("C:2")),
        (":2", Share(":2")),
    ],
)
def test_a_share_is_the_number_after_the_last_colon(text: str, share: Share) -> None:
    assert parse_share(text) == share


def test_a_path_that_exists_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "pairs:2"
    folder.mkdir()
    assert parse_share(str(folder)) == Share(str(folder))
    assert parse_share(f"{folder}:3") == Share(str(folder), 3.0)


@pytest.mark.parametrize("number", ["0", "-1", "inf", "nan", "1e9"])
def test_a_share_that_cannot_be_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match=rf"the share of mine is {number}, expected a fraction"):
        parse_share(f"mine:{number}")


def test_a_fraction_takes_pairs_by_the_seed(pairs: Path) -> None:
    dataset = SaliencyDataset(pairs)
    quarter = take(dataset, 0.25, seed=1)
    assert len(quarter) == len(quarter.samples) == 5
    assert quarter.pairs == take(dataset, 0.25, seed=1).pairs
    assert quarter.pairs != take(dataset, 0.25, seed=2).pairs
    assert set(quarter.pairs) < set(take(dataset, 0.5, seed=1).pairs)


def test_the_smallest_fraction_is_one_pair(pairs: Path) -> None:
    assert len(take(SaliencyDataset(pairs), 0.001)) == 1


def test_a_whole_share_takes_every_pair_once(pairs: Path) -> None:
    dataset = SaliencyDataset(pairs)
    assert take(dataset, 1.0).pairs == dataset.pairs
    assert take(dataset, 1.0).samples == list(range(20))


def test_a_larger_share_repeats_pairs(pairs: Path) -> None:
    repeated = take(SaliencyDataset(pairs), 2.5, seed=3)
    assert len(repeated) == 20
    assert len(repeated.samples) == 50
    assert sorted(repeated.times) == [2] * 10 + [3] * 10


def test_a_subset_keeps_how_often_its_pairs_come(pairs: Path) -> None:
    repeated = take(SaliencyDataset(pairs), 2.5, seed=3)
    chosen = repeated.subset([4, 0])
    assert chosen.times == [repeated.times[4], repeated.times[0]]
    assert len(chosen.samples) == sum(chosen.times)


def test_equal_names_in_two_sets_do_not_collide(make: Make) -> None:
    both = join([make("mine", [0, 1]), take(make("other", [2, 3]), 2)])
    assert [pair.name for pair in both.pairs] == ["mine/0", "mine/1", "other/0", "other/1"]
    assert both.sources == ("mine", "other")
    assert both.samples == [0, 1, 2, 2, 3, 3]
    assert both.contents() == {"mine": {"pairs": 2, "samples": 2}, "other": {"pairs": 2, "samples": 4}}


def test_sets_of_equal_names_are_numbered(make: Make) -> None:
    both = join([make("a/pairs", [0]), make("b/pairs", [1])])
    assert [pair.name for pair in both.pairs] == ["pairs/0", "pairs-2/0"]
    assert distinct(["a", "a-2", "a"]) == ("a", "a-2", "a-3")


def test_a_single_set_keeps_its_names(pairs: Path) -> None:
    dataset = SaliencyDataset(pairs)
    assert join([dataset]) is dataset
    assert dataset.contents() == {pairs.name: {"pairs": 20, "samples": 20}}


def test_sets_of_other_classes_are_not_joined(pairs: Path) -> None:
    with pytest.raises(ValueError, match=r"\[None, 3\] classes, expected one number"):
        join([SaliencyDataset(pairs), SaliencyDataset(pairs, classes=3)])


def test_copies_of_held_out_photos_are_left_out(make: Make, tmp_path: Path) -> None:
    held_out, other = make("mine", [0, 1]), make("other", [5, 1, 6])
    copy = tmp_path / "other/images/1.png"
    # a copy that is smaller and brighter shows the same picture
    Image.open(copy).resize((24, 24)).point([min(255, v + 20) for v in range(256)] * 3).save(copy)
    assert [pair.name for pair in without_copies(other, held_out).pairs] == ["0", "2"]


def test_a_set_of_copies_alone_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="each of the 2 photos of other is held out in mine too"):
        without_copies(make("other", [1, 0]), make("mine", [0, 1]))


def test_the_classes_of_an_epoch_are_counted_without_ignored_pixels(make: Make, tmp_path: Path) -> None:
    make("mine", [0, 1])
    for name, values in (("0", [0, 0, 1, 255]), ("1", [2, 2, 2, 2])):
        mask = np.repeat(np.array(values, np.uint8), 256).reshape(32, 32)
        Image.fromarray(mask).save(tmp_path / "mine/masks" / f"{name}.png")
    dataset = SaliencyDataset(tmp_path / "mine", classes=4)
    assert dataset.count_classes().tolist() == [512, 256, 1024, 0]
    assert take(dataset, 2).count_classes().tolist() == [1024, 512, 2048, 0]
