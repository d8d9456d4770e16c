"""Find the photos of a source, page by page: folders, buckets, shards, and lists of paths."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple

from ...imaging import IMAGE_SUFFIXES
from .compact_set import storable_name
from .remote_files import Entry, exists, is_folder, is_url, join, list_tree, open_file

if TYPE_CHECKING:
    import pyarrow.parquet

PARQUET, TAR = ".parquet", ".tar"
_LISTS = (".txt", ".lst", ".list")
_PAGE = 1000
_BATCH = 64


class Item(NamedTuple):
    """One photo of a source."""

    key: str
    """The name of the photo in its source, in the manifest and in messages."""
    address: str
    """The path or the URL that is read; "" for a photo in a shard."""
    target: str
    """The path of the output relative to the destination."""
    size: int = 0
    """The size of the file in bytes; 0 if unknown."""
    error: str | None = None
    """The reason why the photo cannot be processed."""


@dataclass(frozen=True)
class Shard:
    """A file that holds many photos, or one row group of it."""

    address: str
    key: str
    column: str | None = None
    """The column with the pictures of a Parquet file; None for a tar file."""
    group: int = 0
    """The row group of a Parquet file."""
    first: int = 0
    """The number of the first row of the group in the file."""
    count: int | None = None
    """The number of photos; None if unknown."""
    done: frozenset[int] = field(default=frozenset(), compare=False)
    """The hashes of the photos that are done already."""
    version: str = ""
    """What changes when the file does; "" if unknown."""


def find_photos(
    source: str, suffix: str, *, leave_out: str | None = None, column: str | None = None
) -> Iterator[list[Item] | Shard]:
    """Yield the photos of a source in pages of at most a thousand, and shards one by one.

    Args:
        source: A folder, a bucket, a picture, a shard (.parquet, .tar), or a list of paths (.txt, .parquet).
            A folder without pictures may hold shards.
        suffix: The suffix of the outputs, e.g. "png".
        leave_out: A folder inside the source that holds no photos.
        column: The column of a Parquet file that holds the pictures or the paths; None to find it.

    Raises:
        OSError: The source does not exist or cannot be read.
        ValueError: The source holds no pictures, or is of an unknown kind.
    """
    name = source.lower()
    if name.endswith((*IMAGE_SUFFIXES, TAR, PARQUET, *_LISTS)) and not is_folder(source):
        key = posixpath.basename(source.replace("\\", "/"))
        with open_file(source):
            pass  # raise now if it does not exist
        entry = Entry(source, key, 0)
        one = Shard(source, storable_name(key)) if name.endswith(TAR) else [_item(entry, suffix)]
        if name.endswith(_LISTS):
            found = _paged(_items_of_list(source, _lines(source), suffix))
        elif name.endswith(PARQUET):
            found = _in_parquet(entry, suffix, column)
        else:
            found = iter([one])
    elif is_folder(source):
        found = _in_folder(source, suffix, leave_out, column)
    elif exists(source):
        raise ValueError(
            f"{source} is a file of an unknown kind, expected one of "
            f"{' '.join((*IMAGE_SUFFIXES, PARQUET, TAR, *_LISTS))}; unpack an archive before"
        )
    else:
        raise FileNotFoundError(f"{source} does not exist, expected a folder, a bucket, a shard or a list")
    some = False
    for page in found:
        some = True
        yield page
    if not some:
        raise ValueError(f"no picture in {source} (looked for {' '.join((*IMAGE_SUFFIXES, PARQUET, TAR))})")


def read_shard(shard: Shard, suffix: str) -> Iterator[tuple[Item, bytes]]:
    """Yield each photo of a shard with the bytes of its file.

    They are empty for a cell without a picture, whose item says why.

    Raises:
        OSError: The shard cannot be read.
        ValueError: The shard is damaged, or it is a tar file that holds no picture.
    """
    with open_file(shard.address) as file:
        rows = _rows_of_tar(shard, file) if shard.column is None else _rows_of_parquet(shard, file)
        taken: set[str] = set()
        for name, content in rows:
            key, target = storable_name(name), _target(name, suffix)
            error = shared_target(key, target) if target in taken else None
            if isinstance(content, _OnlyPath):
                error = (
                    f"{key}: the cell holds no bytes, only the path {content.path}; write the pictures "
                    "into the file, or make a list of their paths the source"
                )
            taken.add(target)
            yield Item(key, "", target, error=error), content if isinstance(content, bytes) else b""
    if not taken and shard.column is None:
        raise ValueError(f"no picture in {shard.address} (looked for {' '.join(IMAGE_SUFFIXES)})")


class _OnlyPath(NamedTuple):
    """A cell of the datasets library that names a file instead of holding it."""

    path: str


def name_row(shard: str, row: int) -> str:
    """Return the name of a photo in a Parquet file."""
    return f"{shard}/{row:09d}"


def shared_target(key: str, target: str) -> str:
    """Write the error of a photo whose output would replace another photo's."""
    return f"{key}: the output {target} is that of another photo too; rename one of the two"


def _in_folder(
    source: str, suffix: str, leave_out: str | None, column: str | None
) -> Iterator[list[Item] | Shard]:
    """Yield the pictures of a folder; shards count only where there are no pictures."""
    shards: list[Entry] = []
    pictures = False
    for page in list_tree(source, (*IMAGE_SUFFIXES, PARQUET, TAR), leave_out):
        inside = [entry for entry in page if entry.key.lower().endswith((PARQUET, TAR))]
        items = [_item(entry, suffix) for entry in page if not entry.key.lower().endswith((PARQUET, TAR))]
        pictures = pictures or bool(items)
        if items:
            yield items
        if pictures:
            shards.clear()
        else:
            shards += inside
    for entry in shards:
        if entry.key.lower().endswith(TAR):
            yield Shard(entry.address, storable_name(entry.key), version=entry.version)
        else:
            yield from _in_parquet(entry, suffix, column)


def _in_parquet(entry: Entry, suffix: str, column: str | None) -> Iterator[list[Item] | Shard]:
    """Yield the row groups of a Parquet file with pictures, or the photos of a list of paths."""
    import pyarrow as pa
    import pyarrow.parquet

    with open_file(entry.address) as file:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
        except pa.ArrowInvalid as e:
            raise ValueError(f"{entry.address} is not a Parquet file: {e}") from e
        column, pictures = _choose_column(parquet.schema_arrow, entry.address, column)
        if pictures:
            first = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                if count:
                    yield Shard(entry.address, storable_name(entry.key), column, group, first, count)
                first += count
            return
        paths = (
            path
            for batch in parquet.iter_batches(_PAGE, columns=[column])
            for path in batch.column(0).to_pylist()
            if path
        )
        yield from _paged(_items_of_list(entry.address, paths, suffix))


def _choose_column(schema: pyarrow.Schema, address: str, column: str | None) -> tuple[str, bool]:
    """Choose the column of pictures or of paths, and tell whether it holds pictures."""
    import pyarrow as pa

    def holds(kind: pyarrow.DataType) -> str | None:
        if pa.types.is_struct(kind):  # as the datasets library writes pictures
            names = [kind.field(i).name for i in range(kind.num_fields)]
            return "pictures" if "bytes" in names else None
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return "pictures"
        return "paths" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None

    kinds = {field.name: held for field in schema if (held := holds(field.type))}
    if column is not None:
        if column not in kinds:
            raise ValueError(f"{address} has no column {column!r} of pictures or paths, but {schema.names}")
        return column, kinds[column] == "pictures"
    for wanted, usual in (("pictures", ("image", "picture", "bytes")), ("paths", ("path", "url", "file"))):
        names = [name for name, held in kinds.items() if held == wanted]
        chosen = [name for name in usual if name in names] or names
        if len(names) == 1 or (chosen and chosen[0] in usual):
            return chosen[0], wanted == "pictures"
        if names:
            raise ValueError(f"{address} has several columns of {wanted} {names}; choose one with --column")
    raise ValueError(f"{address} has no column of pictures or paths, but {schema.names}")


def _rows_of_parquet(shard: Shard, file: IO[bytes]) -> Iterator[tuple[str, bytes | _OnlyPath]]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        row = shard.first
        for batch in parquet.iter_batches(_BATCH, row_groups=[shard.group], columns=[shard.column]):
            for cell in batch.column(0):
                value = cell.as_py()
                if isinstance(value, dict):
                    path = value.get("path")
                    value = value["bytes"] or (_OnlyPath(path) if path else None)
                yield name_row(shard.key, row), value or b""
                row += 1
    except pa.ArrowInvalid as e:
        raise ValueError(f"{shard.address} is damaged: {e}") from e


class _StrictMember(tarfile.TarInfo):
    """A member of a tar file that must be whole; by itself `tarfile` takes damage for the end of the file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictMember:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as e:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the block of zeros at the end
            raise tarfile.ReadError(f"it ends early, or a header is wrong ({e})") from e


def _rows_of_tar(shard: Shard, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictMember) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                    content = tar.extractfile(member)
                    assert content is not None  # it is a file
                    yield f"{shard.key}/{member.name.removeprefix('./')}", content.read()
    except (tarfile.TarError, EOFError) as e:
        raise ValueError(f"{shard.address} is damaged: {e}") from e


def _lines(source: str) -> Iterator[str]:
    with open_file(source) as file:
        for number, line in enumerate(file, 1):
            try:
                path = line.decode("utf-8").strip().removeprefix("\ufeff")
            except UnicodeDecodeError as e:
                raise ValueError(f"line {number} of {source} is not UTF-8: {e}") from e
            if path:
                yield path


def _items_of_list(source: str, paths: Iterator[str], suffix: str) -> Iterator[Item]:
    """Make the items of a list; a path that is not absolute is relative to the folder of the list."""
    folder = source.rpartition("/")[0] if is_url(source) else posixpath.dirname(source) or "."
    for path in paths:
        if is_url(path):
            yield _item(Entry(path, path.partition("://")[2], 0), suffix, key=path)
        elif path.startswith("/"):
            yield _item(Entry(path, path.lstrip("/"), 0), suffix, key=path)
        else:
            yield _item(Entry(join(folder, path), posixpath.normpath(path), 0), suffix, key=path)


def _paged(items: Iterator[Item]) -> Iterator[list[Item] | Shard]:
    while page := list(islice(items, _PAGE)):
        yield page


def _item(entry: Entry, suffix: str, *, key: str | None = None) -> Item:
    name = storable_name(key or entry.key)
    error = None
    if ".." in PurePosixPath(entry.key).parts or "\0" in entry.key:
        error = f"{name} leads out of the destination; use its absolute path without .."
    return Item(name, entry.address, _target(entry.key, suffix), entry.size, error)


def _target(key: str, suffix: str) -> str:
    """Return the path of an output: that of its photo with another suffix, without empty parts."""
    path = PurePosixPath(*[part for part in key.split("/") if part not in ("", ".")] or ["unnamed"])
    return str(path.with_name(f"{path.stem}.{suffix}"))
