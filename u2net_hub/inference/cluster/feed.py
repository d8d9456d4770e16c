"""Cut the listing of a source into blocks for workers, while it is being read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from .compact_set import CompactSet, hash_names
from .manifest import Done
from .photo_sources import Item, Shard, name_row, shared_target
from .worker import Block

# So many photos are listed ahead at most.
_AHEAD = 100_000
_SMALLEST, _LARGEST = 8, 512
# The rest is cut into at least so many blocks for each worker, so that all end at about the same time.
_BLOCKS_PER_WORKER = 4


class BlockFeed:
    """Lists a source in a thread, leaves out what is done, and hands out blocks.

    Args:
        found: The photos and the shards of the source.
        done: What the manifest says of earlier runs.
        find_again: A function that lists the source once more. If it is too long to be listed ahead, its
            photos are counted this way, so that the time left is known.

    Attributes:
        listed: The number of photos found until now; those in shards count only if their number is known.
        skipped: The number of photos that were left out, because they are done.
    """

    def __init__(
        self,
        found: Iterator[list[Item] | Shard],
        done: Done,
        find_again: Callable[[], Iterator[list[Item] | Shard]] | None = None,
    ) -> None:
        self._found, self._done, self._find_again = found, done, find_again
        self._counting: Future[int] | None = None
        self._names = CompactSet()
        self._waiting: deque[Item] = deque()
        self._shards: deque[Shard] = deque()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(2, "u2net-listing")
        self._listing: Future[None] | None = None
        self._ended = self._closed = False
        self._number = 0
        self.listed = 0
        self.skipped = 0
        self.has_unknown = False
        """Whether there is a shard whose number of photos is unknown."""

    def start(self) -> None:
        """Start to list, and wait for the first page.

        Raises:
            Exception: What the listing raised, e.g. because the source does not exist.
        """
        self._listing = self._pool.submit(self._list)
        with self._changed:
            self._changed.wait_for(lambda: self.listed or self._shards or self._ended)
        self._check()

    def take(self, workers: int) -> Block | None:
        """Return the next block; None if there is none at the moment.

        Args:
            workers: The number of workers that share what is left.

        Raises:
            Exception: What the listing raised.
        """
        self._check()
        with self._changed:
            if self._waiting:
                share = len(self._waiting) // (_BLOCKS_PER_WORKER * max(1, workers))
                size = min(len(self._waiting), max(_SMALLEST, min(_LARGEST, share)))
                photos: tuple[Item, ...] | Shard = tuple(self._waiting.popleft() for _ in range(size))
            elif self._shards:
                photos = self._shards.popleft()
            else:
                return None
            self._changed.notify_all()
        self._number += 1
        return Block(self._number, photos)

    def has_work(self) -> bool:
        """Wait until there is a block, or the listing has ended; tell whether there is a block.

        Raises:
            Exception: What the listing raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._shards or self._ended)
        self._check()
        return not self.is_empty

    @property
    def total(self) -> int | None:
        """The number of photos of the source; None if it is not known yet, or not at all."""
        if self.has_unknown:
            return None
        if self._ended:
            return self.listed
        counting = self._counting
        if counting is None or not counting.done() or counting.exception() is not None:
            return None
        return counting.result()

    @property
    def is_empty(self) -> bool:
        """Whether all blocks have been taken."""
        with self._changed:
            return self._ended and not self._waiting and not self._shards

    def close(self) -> None:
        """Stop the listing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> None:
        if self._listing is not None and self._ended:
            self._listing.result()

    def _list(self) -> None:
        try:
            for page in self._found:
                if isinstance(page, Shard):
                    self._add_shard(page)
                else:
                    self._add(page)
                if self._closed:
                    return
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _add(self, page: list[Item]) -> None:
        """Add the photos of a page that are neither done nor listed before."""
        keys = hash_names([item.key for item in page])
        new = self._names.add(keys)
        done = self._done.keys.contains(keys)
        wanted = [item for item, is_wanted in zip(page, new & ~done, strict=True) if is_wanted]
        free = self._done.targets.add(hash_names([item.target for item in wanted]))
        wanted = [
            item if is_free or item.error else item._replace(error=shared_target(item.key, item.target))
            for item, is_free in zip(wanted, free, strict=True)
        ]
        with self._changed:
            if (
                len(self._waiting) >= _AHEAD
                and self._counting is None
                and self._find_again
                and not self._closed
            ):
                self._counting = self._pool.submit(self._count, self._find_again())
            self._changed.wait_for(lambda: len(self._waiting) < _AHEAD or self._closed)
            self._waiting += wanted
            self.listed += int(np.count_nonzero(new))
            self.skipped += int(np.count_nonzero(new & done))
            self._changed.notify_all()

    def _count(self, found: Iterator[list[Item] | Shard]) -> int:
        total = 0
        for page in found:
            total += (page.count or 0) if isinstance(page, Shard) else len(page)
            if self._closed:
                break
        return total

    def _skip(self, photos: int) -> None:
        with self._changed:
            self.listed += photos
            self.skipped += photos
            self._changed.notify_all()

    def _add_shard(self, shard: Shard) -> None:
        """Add a shard, unless all its photos are done."""
        done = self._done.in_shard(shard.key)
        count = shard.count
        if count is None:
            whole = self._done.whole_shards.get(shard.key)
            if whole is not None and shard.version and whole.version == shard.version:
                self._skip(whole.photos)
                return
        elif len(done):
            rows = range(shard.first, shard.first + count)
            hashes = hash_names([name_row(shard.key, row) for row in rows])
            done = hashes[np.isin(hashes, done)]
        with self._changed:
            self._changed.wait_for(lambda: len(self._shards) < _AHEAD or self._closed)
            self.listed += count or 0
            self.has_unknown |= count is None
            self.skipped += len(done)
            if count is None or len(done) < count:
                self._shards.append(replace(shard, count=count, done=frozenset(done.tolist())))
            self._changed.notify_all()
