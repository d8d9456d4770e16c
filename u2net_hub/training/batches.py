"""Decoded pictures in memory, and reproducible augmented batches of them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..config import U2NetConfig
from ..datasets import SaliencyDataset
from .augmentation import Augmentation
from .config import Phase
from .transforms import areas, blur, change_hue, compress, exchange_backgrounds, opacity, warp

UInt8 = npt.NDArray[np.uint8]


class Source(Protocol):
    """Photos and masks that batches are made from: `Pictures`, or `streaming.StreamedPictures`."""

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""

    def take(self, number: int, indices: Callable[[int], list[int]]) -> tuple[Pictures, Tensor]:
        """Find the samples of a batch, as `Pictures.take` does."""

    def close(self) -> None:
        """End what works ahead."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Pictures:
    """Photos uint8 (N, H, W, 3) and masks uint8 (N, H, W), all of one size, on one device."""

    images: Tensor
    masks: Tensor

    @classmethod
    def read(
        cls,
        dataset: SaliencyDataset,
        size: tuple[int, int],
        *,
        threads: int = 4,
        folder: Path | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Pictures:
        """Decode a data set once, resized as `imaging.preprocess` does.

        Args:
            dataset: The pairs.
            size: (height, width) in pixels; pictures are squashed to it.
            threads: Number of threads that decode.
            folder: A folder for temporary files, for sets that are larger than memory. The files vanish with
                the pictures, also when the process is killed.
            progress: Called with 1 for each pair.

        Raises:
            OSError: A file cannot be opened, or the disk has no room for the temporary files.
            ValueError: A pair is damaged.
        """
        n, (h, w) = len(dataset), size
        images = _allocate((n, h, w, 3), folder)
        masks = _allocate((n, h, w), folder)

        def read(i: int) -> None:
            images[i], masks[i] = read_pair(dataset, i, size)
            if progress is not None:
                progress(1)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, range(n)):
                pass
        return cls(torch.from_numpy(images), torch.from_numpy(masks))

    def resized(
        self, size: tuple[int, int], *, classes: bool = False, threads: int = 4, folder: Path | None = None
    ) -> Pictures:
        """Return a copy at another size, on the CPU. Class numbers are not interpolated.

        Args:
            size: (height, width) in pixels.
            classes: Whether masks hold class numbers.
            threads: Number of threads.
            folder: A folder for temporary files, as for `read`.
        """
        if tuple(self.masks.shape[1:]) == size:
            return self
        images, masks = self.images.numpy(), self.masks.numpy()
        smaller = _allocate((len(self), *size, 3), folder), _allocate((len(self), *size), folder)

        def resize(i: int) -> None:
            smaller[0][i], smaller[1][i] = resize_pair(images[i], masks[i], size, classes=classes)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(resize, range(len(self))):
                pass
        return Pictures(*map(torch.from_numpy, smaller))

    def to(self, device: torch.device) -> Pictures:
        """Return a copy on another device."""
        return Pictures(self.images.to(device), self.masks.to(device))

    def take(self, number: int, indices: Callable[[int], list[int]]) -> tuple[Pictures, Tensor]:
        """Find the samples of a batch.

        Args:
            number: The number of the batch.
            indices: The indices of the samples of any batch, by its number.

        Returns:
            Pictures that hold the samples, and the place of each in them.
        """
        return self, torch.tensor(indices(number))

    @property
    def device(self) -> torch.device:
        """The device that holds the pictures."""
        return self.images.device

    def close(self) -> None:
        """End what works ahead: nothing here, other than with `StreamedPictures`."""

    @property
    def nbytes(self) -> int:
        """The memory that the pictures take, in bytes."""
        return self.images.nbytes + self.masks.nbytes

    def __len__(self) -> int:
        return len(self.images)


def read_pair(dataset: SaliencyDataset, index: int, size: tuple[int, int]) -> tuple[UInt8, UInt8]:
    """Decode a pair and resize it as `imaging.preprocess` does: photo (H, W, 3) and mask (H, W).

    Raises:
        OSError: A file cannot be opened.
        ValueError: The pair is damaged.
    """
    sample = dataset[index]
    return resize_pair(sample.image, sample.gt, size, classes=dataset.classes is not None)


def resize_pair(image: UInt8, mask: UInt8, size: tuple[int, int], *, classes: bool) -> tuple[UInt8, UInt8]:
    """Resize a photo and its mask to (height, width) in pixels. Class numbers are not interpolated."""
    how = Image.Resampling.NEAREST if classes else Image.Resampling.BILINEAR
    return _resize(image, size, Image.Resampling.BILINEAR), _resize(mask, size, how)


def _allocate(shape: tuple[int, ...], folder: Path | None) -> UInt8:
    """Allocate an array in memory, or in a temporary file that is removed when nothing uses it any more."""
    if folder is None:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(dir=folder, prefix=".pictures-") as file:
        size = int(np.prod(shape))
        try:
            _reserve(file, size)
        except OSError as e:
            raise OSError(
                e.errno,
                f"{folder} has no room for {size / 2**30:.2f} GiB of decoded pictures ({e.strerror}); make "
                "room, choose another --out, or train at a smaller size (--crop)",
            ) from e
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve a file's blocks on the disk: writing to a mapped file on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    block = bytes(1 << 20)
    file.seek(0)
    for start in range(0, size, len(block)):
        file.write(block[: size - start])
    file.flush()


def _resize(array: UInt8, size: tuple[int, int], how: Image.Resampling) -> UInt8:
    if array.shape[:2] == size:
        return array
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))


def normalise(images: Tensor, config: U2NetConfig) -> Tensor:
    """Normalise a batch as `imaging.preprocess` does: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    x = images.permute(0, 3, 1, 2).float()
    # divide by the maximum of each image; clamp_min keeps a black image finite
    x = x / (x.amax((1, 2, 3), keepdim=True).clamp_min(1) if config.scale == "image_max" else 255)
    mean = torch.tensor(config.mean, device=x.device).view(1, -1, 1, 1)
    std = torch.tensor(config.std, device=x.device).view(1, -1, 1, 1)
    return (x - mean) / std


_PLAIN = Augmentation()
# Each sample has a row of uniform random numbers, with places of its own for each use, so that turning one
# kind of change on leaves the others as they were.
_AREA, _ANGLE, _WHETHER, _WHICH = slice(0, 4), 4, 5, 6
_OTHER_AREA, _OTHER_ANGLE, _OTHER_CORNER, _OTHER_MIRRORED = slice(7, 11), 11, slice(12, 14), 14
_HUE, _BLUR, _QUALITY, _COLUMNS = 15, 16, 17, 18


class Batches:
    """The augmented batches of a run, by number. A batch depends only on the seed and its number.

    All shuffled epochs form one sequence of samples, which is cut into batches, so a batch may hold the end
    of one epoch and the beginning of the next. Several processes share each global batch, so the number of
    processes does not change what the network learns.

    Args:
        pictures: The whole training set, at the size that `phase` loads.
        config: The preprocessing.
        phase: The size of the random crop.
        batch_size: The number of samples in a global batch.
        seed: The seed of the order and the augmentation, at least 0.
        augmentation: How photos and masks are changed; a recipe is such settings.
        samples: The indices of the pictures of one epoch, some of them repeated. By default each comes once.
        classes: Whether masks hold class numbers. Targets are then int64 (B, H, W), otherwise float32
            (B, 1, H, W) in [0, 1].
        rank: The number of this process.
        world: The number of processes.
    """

    def __init__(
        self,
        pictures: Source,
        config: U2NetConfig,
        phase: Phase,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation = _PLAIN,
        samples: Sequence[int] | None = None,
        classes: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} does not divide among {world} processes, expected a multiple"
            )
        self.pictures, self.config, self.phase = pictures, config, phase
        self.batch_size, self.seed, self.classes = batch_size, seed, classes
        self.augmentation = augmentation
        self.samples = range(len(pictures)) if samples is None else samples
        share = batch_size // world
        self.mine = slice(rank * share, (rank + 1) * share)

    def indices(self, number: int) -> list[int]:
        """Return the indices of the samples in a global batch."""
        n = len(self.samples)
        places = range(number * self.batch_size, (number + 1) * self.batch_size)
        return [self.samples[_order(n, self.seed, place // n)[place % n]] for place in places]

    def needed(self, number: int) -> list[int]:
        """Return the indices of the pictures that this process needs for a batch: samples and backgrounds."""
        mine = self.indices(number)[self.mine]
        if not self.augmentation.background or len(self.pictures) < 2:
            return mine
        draws = self._draws(number)
        chosen = draws[:, _WHETHER] < self.augmentation.background
        others = _whole(draws[chosen, _WHICH], len(self.pictures) - 1)
        others += others >= torch.tensor(mine)[chosen]  # any picture but its own
        return mine + others.tolist()

    def _draws(self, number: int) -> Tensor:
        """Return the rows of random numbers of this process's samples."""
        rows = torch.rand(self.batch_size, _COLUMNS, generator=_generator(_CHANGES, self.seed, number))
        return rows[self.mine]

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Make this process's part of a batch: the input, float32 (B, 3, crop, crop), and the target."""
        settings, n = self.augmentation, self.batch_size
        generator = _generator(_AUGMENTATION, self.seed, number)
        corners = torch.randint(self.phase.load - self.phase.crop + 1, (n, 2), generator=generator)
        mirrored = torch.rand(n, generator=generator) < 0.5
        factors = 1 + settings.jitter * (2 * torch.rand(n, 3, generator=generator) - 1)
        draws = self._draws(number)

        pictures, places = self.pictures.take(number, self.needed)
        own, behind = places[: len(draws)], places[len(draws) :]
        images, masks = self._cut(
            pictures, own, corners[self.mine], mirrored[self.mine], draws[:, _AREA], draws[:, _ANGLE]
        )
        if len(behind):
            chosen = draws[:, _WHETHER] < settings.background
            back = self._on_others(pictures, behind, images, masks, draws, chosen)
            images[chosen.to(images.device)] = back
        if settings.jitter:
            images = _jitter(images, factors[self.mine].to(images.device))
        if settings.hue:
            images = change_hue(images, settings.hue * (2 * draws[:, _HUE] - 1))
        if settings.blur:
            images = blur(images, settings.blur * draws[:, _BLUR])
        if settings.jpeg is not None:
            images = compress(images, settings.jpeg + _whole(draws[:, _QUALITY], 101 - settings.jpeg))
        return normalise(images, self.config), masks.long() if self.classes else masks[:, None].float() / 255

    def _cut(
        self,
        pictures: Pictures,
        index: Tensor,
        corners: Tensor,
        mirrored: Tensor,
        area: Tensor,
        angle: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Crop, enlarge, turn and mirror pictures: photos uint8 (B, crop, crop, 3), masks (B, crop, crop)."""
        settings, device = self.augmentation, pictures.device
        load, crop = self.phase.load, self.phase.crop
        if not settings.flip:
            mirrored = torch.zeros_like(mirrored)
        if settings.area is not None or settings.rotation:
            where = index.to(device)
            shown = areas(corners, crop, load, settings.area, area)
            angles = settings.rotation * (2 * angle - 1)
            moved = (t.to(device) for t in (shown, angles, mirrored))
            return warp(pictures.images[where], pictures.masks[where], crop, *moved, classes=self.classes)
        steps = torch.arange(crop)
        rows, columns = corners[:, :1] + steps, corners[:, 1:] + steps
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        place = tuple(t.to(device) for t in (index[:, None, None], rows[:, :, None], columns[:, None, :]))
        return pictures.images[place], pictures.masks[place]

    def _on_others(
        self,
        pictures: Pictures,
        others: Tensor,
        images: Tensor,
        masks: Tensor,
        draws: Tensor,
        chosen: Tensor,
    ) -> Tensor:
        """Put the objects of the chosen pictures on the backgrounds of others, cut at random too."""
        draws, where = draws[chosen], chosen.to(images.device)
        corners = _whole(draws[:, _OTHER_CORNER], self.phase.load - self.phase.crop + 1)
        mirrored = draws[:, _OTHER_MIRRORED] < 0.5
        back, back_masks = self._cut(
            pictures, others, corners, mirrored, draws[:, _OTHER_AREA], draws[:, _OTHER_ANGLE]
        )
        return exchange_backgrounds(
            images[where],
            opacity(masks[where], classes=self.classes),
            back,
            opacity(back_masks, classes=self.classes),
        )


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> list[int]:
    """Return the indices of all samples in the shuffled order of an epoch."""
    order: list[int] = torch.randperm(n, generator=_generator(_ORDER, seed, epoch)).tolist()
    return order


def _whole(draws: Tensor, number: int) -> Tensor:
    """Turn uniform random numbers in [0, 1) into whole ones from 0 to `number` - 1."""
    return (draws * number).long().clamp(max=number - 1)  # float32 may round up


_ORDER, _AUGMENTATION, _CHANGES = 0, 1, 2


def _generator(stream: int, seed: int, number: int) -> torch.Generator:
    """Make a random generator that is different for each combination of the numbers, which may be large."""
    mixed = np.random.SeedSequence([stream, seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by three factors per image: uint8 (B, H, W, 3) -> uint8."""
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors.unbind(1))
    x = images.float() * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    # luma of ITU-R BT.601, as Pillow's "L"
    grey = (x * torch.tensor([0.299, 0.587, 0.114], device=x.device)).sum(3, keepdim=True)
    return (grey + (x - grey) * saturation).round().clamp(0, 255).to(torch.uint8)
