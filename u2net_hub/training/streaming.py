"""Pictures that are decoded when a batch needs them, for data sets that fit neither memory nor disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..datasets import SaliencyDataset
from .batches import Pictures, UInt8, read_pair, resize_pair


class UnreadablePairError(ValueError):
    """A photo or a mask could not be read in the middle of a run."""


class StreamedPictures:
    """The photos and masks of a data set, decoded by threads shortly before a batch needs them.

    Pillow decodes outside of Python's lock, so threads use all cores; processes would each need a copy of the
    libraries and of the list of pairs. A pair has the same pixels as in `Pictures`: it is resized to `size`,
    and from there to the size of the phase. Which thread decodes it does not matter.

    Args:
        dataset: The pairs.
        size: (height, width) in pixels that files are resized to first: the largest size of the run.
        threads: The number of threads that decode.
    """

    device = torch.device("cpu")

    def __init__(self, dataset: SaliencyDataset, size: tuple[int, int], *, threads: int) -> None:
        self.dataset, self.size, self.threads = dataset, size, threads
        self._final = size
        self._pool: ThreadPoolExecutor | None = None
        self._decoding: dict[int, list[Future[tuple[UInt8, UInt8]]]] = {}

    def resized(self, size: tuple[int, int]) -> StreamedPictures:
        """Return the same pictures at another size; nothing is decoded yet."""
        other = StreamedPictures(self.dataset, self.size, threads=self.threads)
        other._final = size
        return other

    def take(self, number: int, indices: Callable[[int], list[int]]) -> tuple[Pictures, Tensor]:
        """Wait for the samples of a batch, and let the threads go on with those of the next batches.

        Batches that are taken one after the other wait least; any other order works too.

        Args:
            number: The number of the batch.
            indices: The indices of the samples of any batch, by its number.

        Returns:
            The pictures of the batch alone, and the place of each sample in them.

        Raises:
            UnreadablePairError: A file is missing or damaged; the message names it.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="u2net-hub decode")
        following = range(number, number + 1 + batches_ahead(self.threads, len(indices(number))))
        for passed in self._decoding.keys() - set(following):
            for future in self._decoding.pop(passed):
                future.cancel()
        for each in following:
            if each not in self._decoding:
                self._decoding[each] = [self._pool.submit(self._read, index) for index in indices(each)]
        pairs = [future.result() for future in self._decoding[number]]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return Pictures(images, masks), torch.arange(len(pairs))

    def close(self) -> None:
        """End the threads; pairs that wait are not decoded."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._decoding.clear()

    def __len__(self) -> int:
        return len(self.dataset)

    def _read(self, index: int) -> tuple[UInt8, UInt8]:
        try:
            image, mask = read_pair(self.dataset, index, self.size)
        except (OSError, ValueError) as e:
            raise UnreadablePairError(str(e)) from e
        return resize_pair(image, mask, self._final, classes=self.dataset.classes is not None)


def batches_ahead(threads: int, share: int) -> int:
    """How many batches are decoded ahead: two, or more if threads would have nothing to do.

    Args:
        threads: The number of threads that decode.
        share: The number of samples of a batch that this process makes.
    """
    return max(2, -(-threads // share))
