"""Decoded pictures kept in memory, and an endless, reproducible stream of augmented batches from them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import U2NetConfig
from ..datasets import SaliencyDataset
from .config import Phase


@dataclass(frozen=True)
class Pictures:
    """Photos uint8 (N, S, S, 3) and masks uint8 (N, S, S), all of one size, on one device."""

    images: Tensor
    masks: Tensor

    @classmethod
    def read(
        cls,
        dataset: SaliencyDataset,
        size: tuple[int, int],
        *,
        threads: int = 4,
        file: Path | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Pictures:
        """Decode a data set once, resized as `image.preprocess` does.

        Args:
            dataset: the pairs.
            size: (height, width) in pixels; the aspect is squashed.
            threads: how many decode at once.
            file: a file to keep them in where they are too many for memory; the system pages it in and out.
            progress: called with 1 for each pair.

        Raises:
            OSError, ValueError: of the first pair that cannot be read.
        """
        n, (h, w) = len(dataset), size
        images = _allocate((n, h, w, 3), file)
        masks = _allocate((n, h, w), file and file.with_suffix(".masks"))
        classes = dataset.classes is not None

        def read(i: int) -> None:
            sample = dataset[i]
            images[i] = _resize(sample.image, size, Image.Resampling.BILINEAR)
            masks[i] = _resize(
                sample.gt, size, Image.Resampling.NEAREST if classes else Image.Resampling.BILINEAR
            )
            if progress is not None:
                progress(1)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, range(n)):
                pass
        return cls(torch.from_numpy(images), torch.from_numpy(masks))

    def resized(self, size: tuple[int, int], *, classes: bool = False, threads: int = 4) -> Pictures:
        """A copy at another size, on the CPU; class numbers are never mixed."""
        if tuple(self.masks.shape[1:]) == size:
            return self
        sources = (self.images.numpy(), self.masks.numpy())
        filters = (
            Image.Resampling.BILINEAR,
            Image.Resampling.NEAREST if classes else Image.Resampling.BILINEAR,
        )
        copies = tuple(np.empty((len(s), *size, *s.shape[3:]), np.uint8) for s in sources)

        def resize(i: int) -> None:
            for source, copy, how in zip(sources, copies, filters, strict=True):
                copy[i] = _resize(source[i], size, how)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(resize, range(len(self))):
                pass
        return Pictures(*map(torch.from_numpy, copies))

    def to(self, device: torch.device) -> Pictures:
        """On another device."""
        return Pictures(self.images.to(device), self.masks.to(device))

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + self.masks.nbytes

    def __len__(self) -> int:
        return len(self.images)


def _allocate(shape: tuple[int, ...], file: Path | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if file is None:
        return np.empty(shape, np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    return np.memmap(file, np.uint8, "w+", shape=shape)


def _resize(
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], size: tuple[int, int], how: Image.Resampling
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if array.shape[:2] == size:
        return array
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))


def normalise(images: Tensor, config: U2NetConfig) -> Tensor:
    """The batch form of `image.preprocess` after its resize: uint8 (B, H, W, 3) -> float32 (B, 3, H, W).

    A test holds the two to each other.
    """
    x = images.permute(0, 3, 1, 2).float()
    # the image's own maximum; a black image stays black
    x = x / (x.amax((1, 2, 3), keepdim=True).clamp_min(1) if config.scale == "image_max" else 255)
    mean = torch.tensor(config.mean, device=x.device).view(1, -1, 1, 1)
    std = torch.tensor(config.std, device=x.device).view(1, -1, 1, 1)
    return (x - mean) / std


class Batches:
    """Batches by number: the same seed and number give the same batch, whatever was asked for before.

    Samples are a stream of shuffled epochs, cut into batches; none is dropped at an epoch's end. With several
    processes each takes its part of the same global batch, so their number does not change what is learned.

    Args:
        pictures: all of the training set, at the size that `phase` loads.
        config: preprocessing.
        phase: the size of the random crop.
        batch_size: samples of a global batch.
        seed: of order and augmentation.
        flip: mirror half of the samples.
        jitter: largest relative change of brightness, contrast and saturation.
        classes: masks are class numbers; they come as int64 (B, H, W), else float32 (B, 1, H, W) in [0, 1].
        rank: this process.
        world: number of processes.
    """

    def __init__(
        self,
        pictures: Pictures,
        config: U2NetConfig,
        phase: Phase,
        *,
        batch_size: int,
        seed: int,
        flip: bool = True,
        jitter: float = 0.0,
        classes: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} does not divide among {world} processes, expected a multiple"
            )
        self.pictures, self.config, self.phase = pictures, config, phase
        self.batch_size, self.seed, self.flip, self.jitter, self.classes = (
            batch_size,
            seed,
            flip,
            jitter,
            classes,
        )
        share = batch_size // world
        self.mine = slice(rank * share, (rank + 1) * share)

    def indices(self, number: int) -> list[int]:
        """Which samples the global batch of that number holds."""
        n = len(self.pictures)
        places = range(number * self.batch_size, (number + 1) * self.batch_size)
        return [_order(n, self.seed, place // n)[place % n] for place in places]

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """This process's part of a batch: float32 (B, 3, crop, crop), and the target."""
        device = self.pictures.images.device
        load, crop, n = self.phase.load, self.phase.crop, self.batch_size
        generator = torch.Generator().manual_seed((self.seed << 40) + number)
        corner = torch.randint(load - crop + 1, (n, 2), generator=generator)
        mirrored = torch.rand(n, generator=generator) < 0.5
        factors = 1 + self.jitter * (2 * torch.rand(n, 3, generator=generator) - 1)

        steps = torch.arange(crop)
        rows = corner[:, :1] + steps
        columns = corner[:, 1:] + steps
        if self.flip:
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        index = torch.tensor(self.indices(number))
        where = tuple(
            t[self.mine].to(device) for t in (index[:, None, None], rows[:, :, None], columns[:, None, :])
        )
        images, masks = self.pictures.images[where], self.pictures.masks[where]
        if self.jitter:
            images = _jitter(images, factors[self.mine].to(device))
        return normalise(images, self.config), masks.long() if self.classes else masks[:, None].float() / 255


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(
        n, generator=torch.Generator().manual_seed((seed << 20) + epoch)
    ).tolist()
    return order


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by three factors per image: uint8 (B, H, W, 3) -> uint8."""
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors.unbind(1))
    x = images.float() * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    # luma of ITU-R BT.601, as Pillow's "L"
    grey = (x * torch.tensor([0.299, 0.587, 0.114], device=x.device)).sum(3, keepdim=True)
    return (grey + (x - grey) * saturation).round().clamp(0, 255).to(torch.uint8)
