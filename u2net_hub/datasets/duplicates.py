"""Find photos that are in a data set twice, so that both stay on one side of a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from .. import imaging as im
from .masks import BACKGROUND

Float32 = npt.NDArray[np.float32]


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
    return signature(im.load(path).on(BACKGROUND))
