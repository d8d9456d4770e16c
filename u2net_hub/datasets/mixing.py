"""One training set of several data sets, each with a share, and without copies of held-out photos."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .dataset import SaliencyDataset
from .duplicates import copies_among

# An epoch lists each of its samples, so more repetitions than this could fill the memory.
_MOST = 1000


class Share(NamedTuple):
    """A data set and how much of it trains."""

    path: str
    """The folder or list file."""
    times: float = 1.0
    """How often an epoch passes over each pair. Below 1 it is the fraction of the pairs that is chosen."""


def parse_share(text: str) -> Share:
    """Read `PATH` or `PATH:SHARE`, such as DUTS-TR:0.2.

    An existing path is a path even if it contains a colon, and so is a Windows path with a drive letter.

    Raises:
        ValueError: The share is not above 0, or it is above 1000.
    """
    path, colon, number = text.rpartition(":")
    is_drive = len(path) == 1 and path.isalpha() and not Path(path).exists()
    if not colon or not path or is_drive or Path(text).expanduser().exists():
        return Share(text)
    try:
        times = float(number)
    except ValueError:
        return Share(text)
    if not 0 < times <= _MOST:
        raise ValueError(
            f"the share of {path} is {number}, expected a fraction of its pairs such as 0.2, or a number of "
            f"repetitions such as 3, at most {_MOST}"
        )
    return Share(path, times)


def take(dataset: SaliencyDataset, times: float, *, seed: int = 0) -> SaliencyDataset:
    """Return the pairs that a share of a data set trains on, with how often each of them comes in an epoch.

    Below 1, the share is the fraction of the pairs that the seed chooses, at least one of them. From 1 on it
    repeats the pairs: with 2.5 every pair comes twice, and the half that the seed chooses comes once more.
    With one seed, a smaller share is a part of a larger one.
    """
    repeats = int(times)
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    more = order[: round((times - repeats) * len(dataset))]
    if not repeats:
        return dataset.subset(sorted(more or order[:1]))
    chosen = dataset.subset(range(len(dataset)))
    extra = set(more)
    chosen.times = [n * repeats + (i in extra) for i, n in enumerate(dataset.times)]
    return chosen


def without_copies(dataset: SaliencyDataset, held_out: SaliencyDataset) -> SaliencyDataset:
    """Leave out the pairs whose photo is, or closely resembles, one of the held-out photos.

    Raises:
        OSError: A photo cannot be opened.
        ValueError: A photo is damaged, or no pair is left.
    """
    copies = set(
        copies_among([pair.image for pair in dataset.pairs], [pair.image for pair in held_out.pairs])
    )
    if len(copies) == len(dataset):
        raise ValueError(
            f"each of the {len(dataset)} photos of {dataset.name} is held out in {held_out.name} too, "
            "expected other photos for training than for validation"
        )
    return dataset.subset(i for i in range(len(dataset)) if i not in copies) if copies else dataset


def join(datasets: Sequence[SaliencyDataset]) -> SaliencyDataset:
    """Make one data set of several. A single one stays as it is.

    The name of a pair then begins with that of its set, as in `mine/0001`, so equal names do not collide.

    Raises:
        ValueError: There are no data sets, or they differ in their classes.
    """
    if not datasets:
        raise ValueError("got no data sets to join, expected at least one")
    first, *others = datasets
    if not others:
        return first
    if len({each.classes for each in datasets}) > 1:
        raise ValueError(
            f"the data sets have {[each.classes for each in datasets]} classes, expected one number for all"
        )
    joined = first.subset([])
    joined.sources = distinct([each.name for each in datasets])
    joined.name = " + ".join(joined.sources)
    joined.pairs = [
        pair._replace(name=f"{name}/{pair.name}")
        for name, each in zip(joined.sources, datasets, strict=True)
        for pair in each.pairs
    ]
    joined.times = [n for each in datasets for n in each.times]
    return joined


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Make names different by a number behind those that come again: pairs, pairs -> pairs, pairs-2."""
    made: list[str] = []
    for name in names:
        number, new = 1, name
        while new in made:
            number += 1
            new = f"{name}-{number}"
        made.append(new)
    return tuple(made)
