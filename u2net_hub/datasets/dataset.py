"""A data set of photos with masks: pairs by index, and splits that keep duplicates together."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .duplicates import duplicate_groups
from .masks import UInt8, read_image, read_mask
from .pairing import Pair, pair_files

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """A photo and its mask, decoded."""

    name: str
    image: UInt8
    """RGB (H, W, 3)."""
    gt: UInt8
    """Grey (H, W), 0 background, 255 object, soft in between; class numbers for a data set with classes."""


class SaliencyDataset:
    """Photos and masks of a folder or a list file, decoded when asked for.

    `len(dataset)`, `dataset[i]` and iteration give `Sample`s, so a torch DataLoader takes it too.

    Args:
        root: Folder or list file, as in `find_pairs`.
        images: Folder of the photos.
        masks: Folder of the masks.
        classes: Number of classes; then masks hold class numbers 0 … classes − 1 (and 255, to be ignored)
            in the place of 0 … 255.
        name: What to call it in results; by default after the folder.

    Raises:
        FileNotFoundError: a folder or a mask is not there.
        ValueError: it is unclear which folder is which, or two files claim one name.
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
        self.classes = classes
        self.name = name or name_of(root, images)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Decode one pair.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a file is damaged, photo and mask differ in size, or the mask has a class too many.
        """
        name, image_path, _ = self.pairs[index]
        mask_path = self.mask_path(index)
        image, gt = read_image(image_path), read_mask(mask_path, classes=self.classes)
        if image.shape[:2] != gt.shape:
            raise ValueError(
                f"{mask_path} is {gt.shape[1]} × {gt.shape[0]} but {image_path} is {image.shape[1]} × "
                f"{image.shape[0]}, expected one size; to see all such pairs: u2net check-data"
            )
        return Sample(name, image, gt)

    def mask_path(self, index: int) -> Path:
        """The file of a pair's mask; there always is one."""
        path = self.pairs[index].mask
        if path is None:
            raise FileNotFoundError(f"no mask for {self.pairs[index].image}")
        return path

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"SaliencyDataset({self.name!r}, {len(self)} pairs)"

    def subset(self, indices: Iterable[int]) -> SaliencyDataset:
        """The pairs at these places, in that order."""
        chosen = object.__new__(type(self))
        chosen.__dict__.update(self.__dict__)
        chosen.pairs = [self.pairs[i] for i in indices]
        return chosen

    def split(self, held_out: int | float, *, seed: int = 0) -> tuple[SaliencyDataset, SaliencyDataset]:
        """Shuffle and divide into (rest, held out); copies of one photo stay on one side.

        Args:
            held_out: How many pairs to hold out, or, below 1, which part of them. Met to within the size of
                a group of duplicates.
            seed: The same seed gives the same split of the same files, on any machine.

        Raises:
            ValueError: nothing would be left on one of the sides.
        """
        wanted = round(held_out * len(self)) if 0 < held_out < 1 else int(held_out)
        if not 0 < wanted < len(self):
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
    """What a data set is called after its place."""
    if root is not None:
        path = Path(root).resolve()
        return path.name if path.is_dir() else path.stem
    return Path(images or ".").resolve().parent.name
