"""A set of names that takes eight bytes for each name, for runs over millions of photos."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Hashes: TypeAlias = "NDArray[np.uint64]"


def hash_names(names: Sequence[str]) -> Hashes:
    """Hash names to 64 bits each: uint64 (len(names),).

    Among ten million names, two that share a hash have a probability of about 3 in a million. A name and
    its `storable_name` have the same hash.
    """
    digests = b"".join(blake2b(_encode(name), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, np.uint64)


def storable_name(name: str) -> str:
    """Return a name as the manifest can hold it: bytes that are not UTF-8 are escaped, as in "\\udcff"."""
    return _encode(name).decode()


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "backslashreplace")


class CompactSet:
    """A set of hashes in a few sorted arrays, of which each is at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Tell for each hash whether it is in the set."""
        found = np.zeros(len(hashes), np.bool_)
        for run in self._runs:
            places = np.searchsorted(run, hashes)
            places[places == len(run)] = 0
            found |= run[places] == hashes
        return found

    def add(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Add hashes, and tell for each whether it is new: neither in the set nor earlier in the array."""
        new = ~self.contains(hashes)
        first = np.zeros(len(hashes), np.bool_)
        first[np.unique(hashes, return_index=True)[1]] = True
        new &= first
        added = np.sort(hashes[new])
        if len(added):
            self._runs.append(added)
            while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
                last = self._runs.pop()
                self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]))
        return new
