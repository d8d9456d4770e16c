"""A data set of photos with masks, with access by index and splits that keep duplicates together."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .duplicates import duplicate_groups
from .masks import UInt8, read_image, read_mask, soft_share
from .pairing import Pair, pair_files

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """A photo and its mask, decoded."""

    name: str
    image: UInt8
    """RGB (H, W, 3)."""
    gt: UInt8
    """The mask, grey (H, W): 0 is background, 255 is object, values between are soft edges. A data set with
    classes holds class numbers instead."""


class SaliencyDataset:
    """The photos and masks of a folder or a list file. A pair is decoded when it is asked for.

    `dataset[i]` and iteration give a `Sample`, and `len(dataset)` is the number of pairs, so a torch
    DataLoader accepts the data set.

    Args:
        root: A folder or a list file, as for `find_pairs`.
        images: The folder of the photos.
        masks: The folder of the masks.
        classes: The number of classes, if the masks hold class numbers: 0 … classes − 1, and 255 for pixels
            that are ignored.
        name: The name of the data set in results; by default the name of its folder.

    Raises:
        FileNotFoundError: A folder or a mask does not exist.
        ValueError: It is unclear which folder holds the masks, or two files differ only in their suffix.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        images: str | Path | None = None,
        masks: str | Path | None = None,
        classes: int | None = None,
        name: str | None = None,
    ) -> None:
        found = pair_files(root, images=images, masks=masks)
        missing = [pair for pair in found.pairs if pair.mask is None]
        if missing:
            raise FileNotFoundError(
                f"no mask for {missing[0].image} in {found.mask_folder} (looked for {missing[0].name}.png), "
                f"nor for {len(missing) - 1} more; to see all that is wrong: u2net check-data"
            )
        if found.orphans:
            logger.warning("%d masks have no photo, the first is %s", len(found.orphans), found.orphans[0])
        self.pairs: Sequence[Pair] = found.pairs
        self.times: Sequence[int] = [1] * len(found.pairs)
        """How often each pair comes in an epoch of training. `len` counts each pair once."""
        self.classes = classes
        self.name = name or name_of(root, images)
        self.sources: tuple[str, ...] = (self.name,)
        """The names of the data sets that the pairs come from."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Decode one pair.

        Raises:
            OSError: A file cannot be opened.
            ValueError: A file is damaged, photo and mask differ in size, or the mask has an unknown class.
        """
        name, image_path, _ = self.pairs[index]
        mask_path = self.mask_path(index)
        image, gt = read_image(image_path), read_mask(mask_path, classes=self.classes)
        if image.shape[:2] != gt.shape:
            raise ValueError(
                f"{mask_path} is {gt.shape[1]} × {gt.shape[0]} but {image_path} is {image.shape[1]} × "
                f"{image.shape[0]}, expected equal sizes; to see all such pairs: u2net check-data"
            )
        return Sample(name, image, gt)

    def mask_path(self, index: int) -> Path:
        """Return the file of a pair's mask; every pair of a data set has one."""
        path = self.pairs[index].mask
        if path is None:
            raise FileNotFoundError(f"no mask for {self.pairs[index].image}")
        return path

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"SaliencyDataset({self.name!r}, {len(self)} pairs)"

    def subset(self, indices: Iterable[int]) -> SaliencyDataset:
        """Return a data set of the pairs at these indices, in this order."""
        chosen = object.__new__(type(self))
        chosen.__dict__.update(self.__dict__)
        places = list(indices)
        chosen.pairs = [self.pairs[i] for i in places]
        chosen.times = [self.times[i] for i in places]
        return chosen

    @property
    def samples(self) -> list[int]:
        """The indices of the pairs of one epoch of training. A repeated pair is there several times."""
        return [i for i, times in enumerate(self.times) for _ in range(times)]

    def contents(self) -> dict[str, dict[str, int]]:
        """Return how many pairs come from each data set, and how many samples of an epoch these are."""
        counted = {source: {"pairs": 0, "samples": 0} for source in self.sources}
        for pair, times in zip(self.pairs, self.times, strict=True):
            # the names of the pairs of several sets begin with that of their set
            numbers = counted[pair.name.split("/")[0] if len(self.sources) > 1 else self.sources[0]]
            numbers["pairs"] += 1
            numbers["samples"] += times
        return counted

    def soft_share(self) -> float:
        """Return the share of grey pixels, neither 0 nor 255, in at most 16 of the masks: from 0 to 1.

        Raises:
            OSError: A mask cannot be opened.
            ValueError: A mask is damaged.
        """
        return soft_share([self.mask_path(i) for i in range(len(self))])

    def count_classes(self, *, workers: int | None = None) -> npt.NDArray[np.int64]:
        """Count the pixels of each class in the masks of an epoch, int64 (classes,), without ignored ones.

        Args:
            workers: The number of threads that read masks; None starts one per core.

        Raises:
            OSError: A mask cannot be opened.
            ValueError: A mask is damaged or has an unknown class, or the data set has no classes.
        """
        if self.classes is None:
            raise ValueError(f"the masks of {self.name} hold no classes; say how many with classes=…")

        def count(index: int) -> npt.NDArray[np.int64]:
            values = read_mask(self.mask_path(index), classes=self.classes)
            return np.bincount(values.ravel(), minlength=256)[: self.classes] * self.times[index]

        with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
            return sum(threads.map(count, range(len(self))), np.zeros(self.classes, np.int64))

    def split(self, held_out: int | float, *, seed: int = 0) -> tuple[SaliencyDataset, SaliencyDataset]:
        """Divide the pairs at random into (rest, held out); all copies of a photo go to the same part.

        Args:
            held_out: The number of pairs to hold out, or, if below 1, their share of all pairs. The result
                can differ from it by less than the size of a group of duplicates.
            seed: The seed of the random order. The same seed splits the same files in the same way on any
                machine.

        Raises:
            ValueError: One of the two parts would be empty.
        """
        wanted = round(held_out * len(self)) if 0 < held_out < 1 else held_out
        if wanted != wanted // 1 or not 0 < wanted < len(self):  # NaN equals nothing
            raise ValueError(
                f"held_out is {held_out!r}, expected a part below 1 or 1 to {len(self) - 1} of the pairs"
            )
        groups = {i: [i] for i in range(len(self))}
        for group in duplicate_groups([pair.image for pair in self.pairs]):
            groups[group[0]] = group
            for i in group[1:]:
                del groups[i]
        order = list(groups.values())
        random.Random(seed).shuffle(order)
        held: set[int] = set()
        for group in order:
            if len(held) + len(group) <= wanted:
                held.update(group)
            if len(held) == wanted:
                break
        rest = [i for i in range(len(self)) if i not in held]
        return self.subset(rest), self.subset(sorted(held))


def name_of(root: str | Path | None, images: str | Path | None) -> str:
    """Return the default name of a data set, which comes from its folder or list file."""
    if root is not None:
        path = Path(root).resolve()
        return path.name if path.is_dir() else path.stem
    return Path(images or ".").resolve().parent.name
