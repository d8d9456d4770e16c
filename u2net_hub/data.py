"""Data sets of photos with masks: find the pairs, read them, split them."""

from __future__ import annotations

import logging
import os
import random
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from . import image as im
from .pairing import Pair, pair_files

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# What Pillow may open as a mask: nothing that starts another program, as EPS does.
_MASK_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# What its decoders raise at damaged files, besides UnidentifiedImageError, which is an OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# Transparent photos are shown to the network on white, as `image.preprocess` does.
_BACKGROUND = (255, 255, 255)

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


def read_image(path: Path) -> UInt8:
    """Decode a photo as the network sees it: RGB (H, W, 3), upright, on white where it is transparent.

    Raises:
        ValueError: the file is no picture, or damaged.
        OSError: the file cannot be opened.
    """
    return np.asarray(im.load(path).on(_BACKGROUND))


def read_mask(path: Path, *, classes: int | None = None) -> UInt8:
    """Decode a mask: grey (H, W) of 0 … 255, or class numbers where `classes` says how many there are.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, or holds a class number that is neither below `classes` nor 255 (ignored).
    """
    with open_mask(path) as picture:
        values = mask_values(picture, classes=classes)
    if classes is not None:
        wrong = np.unique(values[(values >= classes) & (values != 255)])
        if wrong.size:
            raise ValueError(
                f"{path} holds the classes {wrong.tolist()}, expected 0 to {classes - 1} or 255 to ignore"
            )
    return values


def mask_values(picture: Image.Image, *, classes: int | None = None) -> UInt8:
    """A decoded mask as `read_mask` gives it, unchecked."""
    deep = picture.mode.startswith("I;16")
    if classes is not None:  # the index into a palette is the class
        values = np.asarray(picture if deep or picture.mode in ("1", "L", "P") else picture.convert("L"))
    elif deep:  # Pillow's own conversion clips at 255
        values = np.asarray(picture) >> 8
    else:
        values = np.asarray(picture.convert("L"))
    return values.astype(np.uint8, copy=False)


@contextmanager
def open_mask(path: Path) -> Iterator[Image.Image]:
    """Open and fully decode a mask, in the mode it has; a failure names the file.

    Raises:
        ValueError: the file is no picture, or damaged.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            picture = Image.open(file, formats=_MASK_FORMATS)
            upright = ImageOps.exif_transpose(picture)
            upright.format = picture.format
        except _DAMAGED as e:
            raise ValueError(f"{path} cannot be read as a mask: {e}") from e
        yield upright


def name_of(root: str | Path | None, images: str | Path | None) -> str:
    """What a data set is called after its place."""
    if root is not None:
        path = Path(root).resolve()
        return path.name if path.is_dir() else path.stem
    return Path(images or ".").resolve().parent.name


# Duplicates

_THUMBNAIL = 16
# Over the 55 million pairs of DUTS-TR, copies of one photo lie above .97 and different photos below .84.
_SAME = 0.9
_BLOCK = 1 << 24


def duplicate_groups(images: Sequence[Path], *, workers: int | None = None) -> list[list[int]]:
    """Photos that show the same picture, exactly or nearly: resized, recompressed, brightened.

    Args:
        images: Files of photos.
        workers: Threads that read; by default one per core.

    Returns:
        Groups of two or more places in `images`, in order. Photos without a copy are left out.

    Raises:
        OSError: a photo cannot be opened.
        ValueError: a photo is damaged.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        signatures = list(threads.map(_signature_of, images))
    return grouped(near_duplicates(signatures), len(images))


def signature(picture: Image.Image) -> Float32:
    """What to know a photo again by: the differences between neighbours in a grey 16 × 16 thumbnail, (480,).

    The idea of a difference hash, kept in full instead of one bit each; its length is 1, or 0 for a picture
    without any contrast. Brightness and contrast drop out.
    """
    size = (_THUMBNAIL, _THUMBNAIL)
    thumbnail = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), np.float32)
    differences = np.concatenate([np.diff(thumbnail, axis=axis).ravel() for axis in (0, 1)])
    length = float(np.linalg.norm(differences))
    return np.asarray(differences / length if length else differences, np.float32)


def near_duplicates(signatures: Sequence[Float32]) -> list[tuple[int, int]]:
    """Pairs of places whose signatures show the same picture, the lower place first, in order."""
    if not signatures:
        return []
    vectors = np.stack(signatures)
    step = max(1, _BLOCK // len(vectors))
    pairs = []
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        rows, columns = np.nonzero(block @ vectors[start:].T > _SAME)
        pairs += [(start + int(i), start + int(j)) for i, j in zip(rows, columns, strict=True) if i < j]
    return pairs


def grouped(links: Iterable[tuple[int, int]], number: int) -> list[list[int]]:
    """Merge linked places of 0 … number − 1 into groups of two or more, in order."""
    leader = list(range(number))

    def lead(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for i, j in links:
        a, b = sorted((lead(i), lead(j)))
        leader[b] = a
    groups = defaultdict(list)
    for i in range(number):
        groups[lead(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _signature_of(path: Path) -> Float32:
    return signature(im.load(path).on(_BACKGROUND))
