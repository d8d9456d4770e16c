"""One worker of a cluster: it holds the network, and turns blocks of photos into outputs and rows."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ...ordered import map_ordered
from ..folders import reason_of
from ..pipeline import SaliencyPipeline
from ..result import class_index
from ..stream import FAILURES
from .compact_set import hash_names
from .lease import holds_lease
from .manifest import Manifest, PartWriter, Row, WholeShard, failed_row
from .photo_rows import LoadedPhoto, PhotoRows, limit_threads
from .photo_sources import Item, Shard, read_shard
from .remote_files import exists, is_url, join, read_bytes, remove, write_bytes
from .shipped_weights import ShippedWeights, unpack_weights

if TYPE_CHECKING:
    from ..plan import Options

# A part of the manifest is written after so many photos, bytes of pictures, or seconds: what a killed
# process has done since its last part is done again.
_PART_ROWS, _PART_BYTES, _PART_SECONDS = 512, 64 << 20, 30.0
# The number of files, and their bytes, that are fetched before they are decoded
_FETCHED_AHEAD, _FETCHED_BYTES = 32, 64 << 20
_FETCHING_THREADS = 8
# A photo during which the process died this many times, while it was alone, is given up.
_DEATHS = 2
# After so many attempts at a block, what is left of it fails: something else is wrong.
_ATTEMPTS = 50
_EXAMPLES = 20


class DestinationError(Exception):
    """Nothing can be written to the destination any more; the run ends before every photo fails."""


@dataclass(frozen=True)
class Block:
    """The photos that a worker takes at once."""

    number: int
    photos: tuple[Item, ...] | Shard
    attempt: int = 1
    """From the second attempt on the photos are processed one by one."""

    def __len__(self) -> int:
        return (self.photos.count or 0) if isinstance(self.photos, Shard) else len(self.photos)


@dataclass
class Counts:
    """The outcomes of the photos of a block."""

    block: int = -1
    written: int = 0
    skipped: int = 0
    failed: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    """The names and the errors of the first photos that failed."""


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker needs to know."""

    run: str
    manifest: Manifest
    weights: ShippedWeights
    options: Options
    label: int | str | None
    pipeline: Mapping[str, Any]
    """The keyword arguments of `SaliencyPipeline`."""


class PhotoWorker:
    """The actor that `run_on_ray` starts. It opens the network later, so that it outlives an error there."""

    def __init__(self, plan: WorkerPlan, cores: int, contents: list[Any]) -> None:
        self._plan, self._cores = plan, cores
        self._manifest = plan.manifest
        self._contents = contents
        self._counts = Counts()
        self._whole_shard: WholeShard | None = None

    def open(self) -> dict[str, str]:
        """Load the weights, open the engine, and say where and how it runs.

        Raises:
            FileNotFoundError: This machine does not see the destination.
            ValueError: The settings do not fit the network.
            ImportError: A package is missing on this machine.
            RuntimeError: The device is not available on this machine.
        """
        plan = self._plan
        if not holds_lease(self._manifest.folder, plan.run):
            raise FileNotFoundError(
                f"{self._manifest.destination} on {socket.gethostname()} is not the folder of this run; "
                "choose a bucket, or a folder that all machines share"
            )
        limit_threads(self._cores)
        source = unpack_weights(plan.weights, self._fetch_weights)
        pipeline = SaliencyPipeline(source, **plan.pipeline)
        label = None if plan.label is None else class_index(pipeline.config, plan.label)
        self._rows = PhotoRows(pipeline, plan.options._replace(label=label), self._cores)
        self._count = _metric()
        return {
            "host": socket.gethostname(),
            "device": pipeline.engine.device,
            "engine": pipeline.engine.name,
            "precision": pipeline.engine.precision,
        }

    def _fetch_weights(self) -> Mapping[str, bytes]:
        import ray

        contents: Mapping[str, bytes] = ray.get(self._contents[0])
        return contents

    def progress(self) -> Counts:
        """Return the counts of the block in progress; another thread calls this."""
        return replace(self._counts, errors=[])

    def pid(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    def run(self, block: Block) -> Counts:
        """Process a block: write the outputs, then the rows of the manifest.

        If another attempt at the block ended with the death of its process, the photos whose rows it wrote
        are left out, and the others are processed one by one, with a note of the one in progress. So a photo
        that kills the process is found, and given up.

        Raises:
            OSError: The manifest cannot be written.
            DestinationError: The disk is full, or the bucket takes no more files.
        """
        counts = Counts(block.number)
        self._counts = counts
        self._whole_shard = None
        name = f"{self._plan.run}-{block.number:08d}"
        writer = PartWriter(self._manifest.folder, name, block.attempt)
        finished = writer.read() if block.attempt > 1 else set()
        for status, count in writer.counts.items():
            setattr(counts, status, count)
        photos = (photo for photo in self._load(block) if photo.item.key not in finished)
        rows = self._rows(photos, self._save)
        if block.attempt > 1:
            note = join(self._manifest.folder, f"_attempts-{name}.json")
            rows = self._one_by_one(photos, note, block.attempt)
        last = time.monotonic()
        for row in rows:
            writer.add(row)
            setattr(counts, row["status"], getattr(counts, row["status"]) + 1)
            self._count(row["status"])
            if row["error"] is not None and len(counts.errors) < _EXAMPLES:
                counts.errors.append((row["path"], row["error"]))
            full = len(writer) >= _PART_ROWS or writer.bytes >= _PART_BYTES
            if full or time.monotonic() - last > _PART_SECONDS:
                writer.flush()
                last = time.monotonic()
        writer.flush(None if counts.failed else self._whole_shard)
        return counts

    def _one_by_one(self, photos: Iterable[LoadedPhoto], note: str, attempt: int) -> Iterator[Row]:
        """Yield the rows of photos, each processed alone, after its name was written to a file."""
        deaths: dict[str, int] = {}
        try:
            before = json.loads(read_bytes(note))
            deaths = {**before["deaths"]}
            deaths[before["current"]] = deaths.get(before["current"], 0) + 1
        except FileNotFoundError:
            pass
        for photo in photos:
            key = photo.item.key
            if deaths.get(key, 0) >= _DEATHS or attempt > _ATTEMPTS:
                error = f"{key}: the process of its worker died {attempt - 1} times"
                yield failed_row(key, error, shard=photo.shard)
                continue
            write_bytes(note, json.dumps({"deaths": deaths, "current": key}).encode())
            try:
                yield from self._rows([photo], self._save)
            except RuntimeError as e:  # e.g. the memory of a GPU is too small
                yield failed_row(key, reason_of(e, key), shard=photo.shard)
        remove(note)

    def _load(self, block: Block) -> Iterator[LoadedPhoto]:
        """Yield the photos of a block; their files are fetched ahead."""
        if isinstance(block.photos, Shard):
            with ThreadPoolExecutor(1, "u2net-shard") as pool:
                photos = self._load_shard(block.photos)
                yield from _until_none(
                    map_ordered(pool, lambda _: next(photos, None), repeat(None), ahead=_FETCHED_AHEAD)
                )
            return
        pool = ThreadPoolExecutor(_FETCHING_THREADS, "u2net-fetch")
        try:
            yield from map_ordered(
                pool,
                self._load_item,
                block.photos,
                ahead=_FETCHED_AHEAD,
                cost=lambda item: item.size,
                budget=_FETCHED_BYTES,
            )
        finally:
            pool.shutdown(cancel_futures=True)

    def _load_item(self, item: Item) -> LoadedPhoto:
        if item.error is not None:
            return LoadedPhoto(item)
        try:
            if self._is_there(item):
                return LoadedPhoto(item, skipped=True)
            return LoadedPhoto(item, read_bytes(item.address))
        except FAILURES as e:
            return LoadedPhoto(item, error=reason_of(e, item.key))

    def _load_shard(self, shard: Shard) -> Iterator[LoadedPhoto]:
        try:
            seen = 0
            for item, content in read_shard(shard, self._plan.options.format):
                seen += 1
                if int(hash_names([item.key])[0]) not in shard.done:
                    skipped = item.error is None and self._is_there(item)
                    yield LoadedPhoto(item, content, skipped=skipped, shard=shard.key)
            if shard.column is None:
                self._whole_shard = WholeShard(shard.key, seen, shard.version)
        except FAILURES as e:
            error = reason_of(e, shard.address)
            yield LoadedPhoto(Item(shard.key, "", ""), error=error, shard=shard.key)

    def _is_there(self, item: Item) -> bool:
        """Tell whether a photo is skipped, because its output exists."""
        if self._plan.options.existing != "skip" or self._manifest.holds_pictures:
            return False
        return exists(join(self._manifest.destination, item.target))

    def _save(self, item: Item, data: memoryview) -> bytes | None:
        """Write an output, or return it if it belongs into the manifest."""
        if self._manifest.holds_pictures:
            return bytes(data)
        address = join(self._manifest.destination, item.target)
        if not (is_url(address) or is_url(item.address)) and item.address and os.path.exists(address):
            _check_differ(item.address, address)
        try:
            write_bytes(address, data)
        except OSError as e:
            denied = is_url(address) and isinstance(e, PermissionError)
            if denied or e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                reason = f"{e.strerror or e}; repeat the command to continue"
                raise DestinationError(f"{self._manifest.destination}: {reason}") from e
            raise
        return None


def _check_differ(photo: str, output: str) -> None:
    if os.path.samefile(photo, output):
        raise ValueError(f"the output {output} would replace the photo; choose another destination")


def _until_none(photos: Iterable[LoadedPhoto | None]) -> Iterator[LoadedPhoto]:
    for photo in photos:
        if photo is None:
            return
        yield photo


def _metric() -> Callable[[str], None]:
    """Return the function that counts a photo in Ray's metrics, by its status."""
    from ray.util.metrics import Counter

    counter = Counter("u2net_photos", "Photos by their outcome", ("status",))
    return partial(_count, counter)


def _count(counter: Any, status: str) -> None:
    counter.inc(1, {"status": status})
