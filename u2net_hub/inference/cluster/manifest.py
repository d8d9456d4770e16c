"""The manifest of a long run: a Parquet data set with a row for each photo, which grows part by part."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from ... import __version__
from ...ordered import map_ordered
from .compact_set import CompactSet, Hashes, hash_names, storable_name
from .photo_sources import PARQUET
from .remote_files import join, list_folder, read_bytes, remove, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from ..folders import Status

SETTINGS = "_settings.json"
MANIFEST = "_manifest"
_FORMAT_VERSION = 1
_READ_AT_ONCE = 16
# The key of a `WholeShard` in the metadata of a part
_WHOLE_SHARD = b"u2net_hub.whole_shard"


class Row(TypedDict):
    """The outcome for one photo."""

    path: str
    """The path of the photo relative to the source; in a shard its path, "/", and a name or number."""
    status: Status
    error: str | None
    height: int | None
    width: int | None
    confidence: float | None
    found: bool | None
    box: list[int] | None
    """The box around the object: left, top, right, bottom in pixels; None if nothing was found."""
    output: str | None
    """The path of the output relative to the destination."""
    seconds: float
    """The time that a worker spent on the photo."""
    weights_sha256: str | None
    shard: str | None
    """The shard that the photo came from."""
    picture: bytes | None
    """The encoded output, if the destination is a Parquet data set."""


class WholeShard(NamedTuple):
    """A tar file of which all photos are done. Only so is it known how many it holds."""

    key: str
    photos: int
    """The number of its photos."""
    version: str
    """What changes when the file does; "" if unknown."""


@dataclass
class Done:
    """What the manifest says of earlier runs."""

    keys: CompactSet = field(default_factory=CompactSet)
    """The photos that are done."""
    targets: CompactSet = field(default_factory=CompactSet)
    """Their outputs."""
    shards: dict[str, list[Hashes]] = field(default_factory=dict)
    """The hashes of the photos that are done, for each shard."""
    whole_shards: dict[str, WholeShard] = field(default_factory=dict)
    """The tar files of which all photos are done."""
    count: int = 0

    def in_shard(self, key: str) -> Hashes:
        """Return the hashes of the photos of a shard that are done, each once and sorted."""
        parts = self.shards.get(key)
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)


class Manifest:
    """The manifest of a destination.

    Args:
        destination: A folder or a bucket; a name that ends in ".parquet" stands for a Parquet data set, which
            holds the pictures and is its own manifest.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination.rstrip("/") or destination
        self.holds_pictures = self.destination.lower().endswith(PARQUET)
        self.folder = self.destination if self.holds_pictures else join(self.destination, MANIFEST)

    def read_settings(self) -> dict[str, object] | None:
        """Read the settings of the run that made this manifest; None if there is none.

        Raises:
            ValueError: The file is damaged.
        """
        address = join(self.folder, SETTINGS)
        try:
            settings = json.loads(read_bytes(address))
        except FileNotFoundError:
            return None
        except ValueError as e:
            raise ValueError(f"{address} is damaged: {e}; begin anew with --overwrite") from e
        if not isinstance(settings, dict) or settings.get("format_version") != _FORMAT_VERSION:
            raise ValueError(f"{address} is of another version of u2net-hub; begin anew with --overwrite")
        return settings

    def write_settings(self, settings: Mapping[str, object]) -> None:
        """Write the settings of a new run, with the versions that are not compared."""
        about = {
            "format_version": _FORMAT_VERSION,
            "settings": settings,
            "versions": {"u2net_hub": __version__, "python": platform.python_version()},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_bytes(join(self.folder, SETTINGS), json.dumps(about, indent=2).encode())

    def clear(self) -> None:
        """Remove the manifest. The settings go first, so that a rest is never taken for a whole manifest."""
        remove(join(self.folder, SETTINGS))
        for name in self._parts():
            remove(join(self.folder, name))

    def load(self) -> Done:
        """Read which photos are done, and drop the rows of those that failed: they are tried again.

        So each photo has at most one row. Only hashes stay in memory.
        """
        done = Done()
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            for keys, targets, shards, whole in map_ordered(
                pool, self._load_part, self._parts(), ahead=2 * _READ_AT_ONCE
            ):
                hashes = hash_names(keys)
                done.count += len(keys)
                done.keys.add(hashes)
                done.targets.add(hash_names(targets))
                places: dict[str, list[int]] = {}
                for place, shard in enumerate(shards):
                    if shard is not None:
                        places.setdefault(shard, []).append(place)
                for shard, inside in places.items():
                    done.shards.setdefault(shard, []).append(hashes[inside])
                if whole is not None:
                    done.whole_shards[whole.key] = whole
        return done

    def has_rows(self) -> bool:
        """Tell whether a run has written rows: one whose workers could not start leaves only settings."""
        return bool(self._parts())

    def _parts(self) -> list[str]:
        return sorted(name for name in list_folder(self.folder) if name.endswith(PARQUET))

    def _load_part(self, name: str) -> tuple[list[str], list[str], list[str | None], WholeShard | None]:
        """Read the paths, outputs and shards of a part, and write it again without the failed rows."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        address = join(self.folder, name)
        try:
            columns = ["path", "status", "output", "shard"]
            content = BytesIO(read_bytes(address))
            table = pq.read_table(content, columns=columns, schema=None)
            failed = pc.equal(table["status"], "failed")
            if pc.any(failed).as_py():
                kept = pq.read_table(content).filter(pc.invert(failed))
                if kept.num_rows:
                    write_bytes(address, _encode(kept))
                else:
                    remove(address)
                table = kept
        except (pa.ArrowInvalid, KeyError) as e:
            raise ValueError(f"{address} is damaged: {e}; remove it, and its photos are done again") from e
        outputs = [output or "" for output in table["output"].to_pylist()]
        noted = (table.schema.metadata or {}).get(_WHOLE_SHARD)
        whole = None if noted is None else WholeShard(*json.loads(noted))
        return table["path"].to_pylist(), outputs, table["shard"].to_pylist(), whole


class PartWriter:
    """Writes the parts of one block of photos.

    Args:
        folder: The folder of the manifest.
        name: The name of the block; no other block of any run has it.
        attempt: The number of the attempt at the block. A worker that is cut off from its cluster may go on
            for a while; it does not replace the parts of the next attempt.
    """

    def __init__(self, folder: str, name: str, attempt: int = 1) -> None:
        self._folder, self._name, self._attempt = folder, name, attempt
        self._rows: list[Row] = []
        self._number = 0
        self.bytes = 0
        """The size of the pictures in the rows that are not written yet."""
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Count the rows that are not written yet."""
        return len(self._rows)

    def read(self) -> set[str]:
        """Return the photos of the parts that earlier attempts at this block have written; count them too."""
        import pyarrow.parquet as pq

        found: set[str] = set()
        for attempt in range(1, self._attempt):
            for number in count():
                try:
                    content = read_bytes(self._address(attempt, number))
                except FileNotFoundError:
                    break
                table = pq.read_table(BytesIO(content), columns=["path", "status"])
                found.update(table["path"].to_pylist())
                self.counts.update(table["status"].to_pylist())
        return found

    def add(self, row: Row) -> None:
        """Add the row of a photo to the next part."""
        texts = {name: storable_name(value) for name, value in row.items() if isinstance(value, str)}
        self._rows.append({**row, **texts})  # type: ignore[typeddict-item]
        self.bytes += len(row["picture"] or b"")
        self.counts[row["status"]] += 1

    def flush(self, whole: WholeShard | None = None) -> None:
        """Write the rows as a part. It is whole or absent: the process may be killed at any moment.

        Args:
            whole: The tar file whose last photos these are; the part notes it, also if it has no rows.
        """
        import pyarrow as pa

        if self._rows or whole is not None:
            table = pa.Table.from_pylist(self._rows, schema=row_schema())
            if whole is not None:
                table = table.replace_schema_metadata({_WHOLE_SHARD: json.dumps(whole)})
            write_bytes(self._address(self._attempt, self._number), _encode(table))
            self._rows = []
            self._number += 1
            self.bytes = 0

    def _address(self, attempt: int, number: int) -> str:
        return join(self._folder, f"{self._name}-{attempt:02d}-{number:04d}{PARQUET}")


def row_schema() -> pa.Schema:
    """Return the columns of the manifest as an Arrow schema; see `Row`."""
    import pyarrow as pa

    return pa.schema(
        {
            "path": pa.string(),
            "status": pa.string(),
            "error": pa.string(),
            "height": pa.int32(),
            "width": pa.int32(),
            "confidence": pa.float32(),
            "found": pa.bool_(),
            "box": pa.list_(pa.int32()),
            "output": pa.string(),
            "seconds": pa.float32(),
            "weights_sha256": pa.string(),
            "shard": pa.string(),
            "picture": pa.binary(),
        }
    )


def failed_row(path: str, error: str, *, output: str | None = None, shard: str | None = None) -> Row:
    """Return the row of a photo that could not be processed."""
    return Row(
        path=path,
        status="failed",
        error=error,
        height=None,
        width=None,
        confidence=None,
        found=None,
        box=None,
        output=output,
        seconds=0.0,
        weights_sha256=None,
        shard=shard,
        picture=None,
    )


def _encode(table: pa.Table) -> memoryview:
    import pyarrow.parquet as pq

    buffer = BytesIO()
    has_pictures = table["picture"].null_count < table.num_rows  # which are compressed already
    pq.write_table(table, buffer, compression="none" if has_pictures else "zstd")
    return buffer.getbuffer()


def compare_settings(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Name the settings that differ, each as "name was …, now …"."""
    recorded = old.get("settings")
    before = recorded if isinstance(recorded, dict) else {}
    same_form = json.loads(json.dumps(new))
    names = sorted(before.keys() | same_form.keys())
    return [
        f"{name} was {before.get(name)!r}, now {same_form.get(name)!r}"
        for name in names
        if before.get(name) != same_form.get(name)
    ]
