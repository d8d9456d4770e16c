"""Find copies of the same photo in a data set, so that a split does not separate them."""

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


_THUMBNAIL = 16
# Two photos are copies if the product of their signatures is above this. Among the 55 million pairs of photos
# in DUTS-TR, it is above .97 for copies and below .84 for different photos.
_SAME = 0.9
_BLOCK = 1 << 24


def duplicate_groups(images: Sequence[Path], *, workers: int | None = None) -> list[list[int]]:
    """Group photos that show the same picture, even if one was resized, recompressed or brightened.

    Args:
        images: The files of the photos.
        workers: The number of threads that read files; None starts one per core.

    Returns:
        Groups of two or more indices into `images`, in order. A photo without a copy is in no group.

    Raises:
        OSError: A photo cannot be opened.
        ValueError: A photo is damaged.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        signatures = list(threads.map(_signature_of, images))
    return grouped(near_duplicates(signatures), len(images))


def copies_among(images: Sequence[Path], others: Sequence[Path], *, workers: int | None = None) -> list[int]:
    """Return the indices of `images` that show the same picture as one of `others`, in order.

    The arguments and errors are those of `duplicate_groups`.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        known = list(threads.map(_signature_of, others))
        found = list(threads.map(_signature_of, images))
    if not known or not found:
        return []
    vectors, targets = np.stack(found), np.stack(known).T
    step = max(1, _BLOCK // len(known))
    return [
        start + int(i)
        for start in range(0, len(vectors), step)
        for i in np.flatnonzero((vectors[start : start + step] @ targets > _SAME).any(axis=1))
    ]


def signature(picture: Image.Image) -> Float32:
    """Compute a vector (480,) that is similar for copies of one photo.

    It holds the differences between neighbouring pixels of a grey 16 × 16 thumbnail. This is a difference
    hash that keeps each difference in full instead of one bit. The vector is divided by its Euclidean length,
    so brightness and contrast have no effect; for a picture without contrast it is 0.
    """
    size = (_THUMBNAIL, _THUMBNAIL)
    thumbnail = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), np.float32)
    differences = np.concatenate([np.diff(thumbnail, axis=axis).ravel() for axis in (0, 1)])
    length = float(np.linalg.norm(differences))
    return np.asarray(differences / length if length else differences, np.float32)


def near_duplicates(signatures: Sequence[Float32]) -> list[tuple[int, int]]:
    """Return the pairs of indices (i < j) whose signatures belong to copies of one photo, in order."""
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
    """Merge linked indices of 0 … number − 1 into groups of two or more, in order (union-find)."""
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
    # large JPEG files are decoded at a fraction of their size, which is several times faster
    return signature(im.load(path, enough=8 * _THUMBNAIL).on(BACKGROUND))
