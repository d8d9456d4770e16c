"""Read, write and list files by their address: a local path, or a URL such as s3://bucket/key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...atomic import write_file
from ..plan import walk_files

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PAGE = 1000

# A package for each kind of URL, and the exceptions that it raises for a request that fails
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
_RAISED = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp.client_exceptions": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "huggingface_hub.errors": ("HfHubHTTPError", "EntryNotFoundError"),
}

# Where file systems tell the version of a file
_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified")

Answer = TypeVar("Answer")


class Entry(NamedTuple):
    """A file in a listing."""

    address: str
    key: str
    """The path relative to the folder that was listed, with "/" between its parts."""
    size: int
    """The size in bytes; 0 if unknown."""
    version: str = ""
    """What changes when the file does: the ETag of an object, the time of a local file; "" if unknown."""


def is_url(address: str) -> bool:
    """Tell whether an address is a URL, not a local path."""
    return _URL.match(address) is not None


def join(folder: str, key: str) -> str:
    """Return the address of a file in a folder."""
    return f"{folder.rstrip('/')}/{key}" if is_url(folder) else os.path.join(folder, *key.split("/"))


def read_bytes(address: str) -> bytes:
    """Read a file.

    Raises:
        OSError: It cannot be read.
    """
    if not is_url(address):
        return Path(address).read_bytes()
    return bytes(_call(address, lambda files, path: files.cat_file(path)))


def open_file(address: str) -> IO[bytes]:
    """Open a file for reading; one at a URL is fetched in blocks.

    Raises:
        OSError: It cannot be opened.
    """
    if not is_url(address):
        return open(address, "rb")
    opened: IO[bytes] = _call(address, lambda files, path: files.open(path, "rb", block_size=8 << 20))
    return opened


def write_bytes(address: str, content: bytes | memoryview, *, exclusive: bool = False) -> None:
    """Write a file completely or not at all.

    Args:
        address: The address of the file. A local folder is made if it is missing.
        content: The content of the file.
        exclusive: Whether a file that exists is kept and raises FileExistsError.

    Raises:
        FileExistsError: The file exists, and `exclusive` is True.
        OSError: It cannot be written.
    """
    if not is_url(address):
        write_file(Path(address), content, overwrite=not exclusive, sync=False)
        return
    mode = "create" if exclusive else "overwrite"
    _call(address, lambda files, path: files.pipe_file(path, bytes(content), mode=mode))


def remove(address: str) -> None:
    """Remove a file; nothing happens if it does not exist."""
    try:
        if is_url(address):
            _call(address, lambda files, path: files.rm_file(path))
        else:
            os.unlink(address)
    except FileNotFoundError:
        pass


def exists(address: str) -> bool:
    """Tell whether a file or a folder exists."""
    if not is_url(address):
        return os.path.lexists(address)
    return bool(_call(address, lambda files, path: files.exists(path)))


def is_folder(address: str) -> bool:
    """Tell whether an address is a folder; a bucket and a prefix of keys are folders."""
    if not is_url(address):
        return os.path.isdir(address)
    return bool(_call(address, lambda files, path: files.isdir(path)))


def list_folder(folder: str) -> Iterator[str]:
    """Yield the names of the files and folders directly in a folder; none if it does not exist."""
    if not is_url(folder):
        if os.path.isdir(folder):
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in entries)
        return
    prefix = folder.rstrip("/") + "/"
    try:
        for page in _pages(prefix, recursive=False):
            for each in page:
                if each.address != prefix:
                    yield each.key.rstrip("/")
    except FileNotFoundError:
        return


def list_tree(folder: str, suffixes: tuple[str, ...], leave_out: str | None = None) -> Iterator[list[Entry]]:
    """Yield the files in a folder and its subfolders in pages, so that a listing of any length fits.

    Hidden files and folders are left out. The order does not change between two listings of one tree.

    Args:
        folder: The folder.
        suffixes: The suffixes of the files, in lower case.
        leave_out: A folder inside it that is left out.

    Raises:
        OSError: The folder cannot be listed.
    """
    if not is_url(folder):
        yield from _list_local(folder, suffixes, leave_out)
        return
    prefix = folder.rstrip("/") + "/"
    other = None if leave_out is None else leave_out.rstrip("/") + "/"
    for page in _pages(prefix, recursive=True):
        entries = []
        for each in page:
            hidden = each.key.startswith(".") or "/." in each.key
            left_out = other is not None and each.address.startswith(other)
            if each.key.lower().endswith(suffixes) and not hidden and not left_out:
                entries.append(each)
        if entries:
            yield entries


def _list_local(folder: str, suffixes: tuple[str, ...], leave_out: str | None) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    for path in walk_files(Path(folder), leave_out, suffixes):
        try:
            about = path.stat()
            size, version = about.st_size, f"{about.st_size}-{about.st_mtime_ns}"
        except OSError:
            size, version = 0, ""  # opening it fails later, and the failure is reported
        page.append(Entry(str(path), path.relative_to(folder).as_posix(), size, version))
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


def _pages(prefix: str, *, recursive: bool) -> Iterator[list[Entry]]:
    """Yield what lies below a URL that ends in "/", in pages."""
    scheme = prefix.partition("://")[0]
    if scheme in ("s3", "s3a"):
        yield from _s3_pages(prefix, recursive=recursive)
        return
    folders = [prefix.rstrip("/")]
    while folders:
        page = []
        for each in _call(folders.pop(), lambda files, path: files.ls(path, detail=True, refresh=True)):
            address = f"{scheme}://{each['name'].rstrip('/')}"
            if each["type"] == "directory" and recursive:
                folders.append(address)
            else:
                version = next((str(each[name]) for name in _VERSIONS if each.get(name)), "")
                page.append(Entry(address, address[len(prefix) :], int(each.get("size") or 0), version))
        yield sorted(page)


def _s3_pages(prefix: str, *, recursive: bool) -> Iterator[list[Entry]]:
    """Yield the keys of a bucket; s3fs itself would keep them all in memory."""
    scheme, _, rest = prefix.partition("://")
    bucket, _, key = rest.partition("/")
    request = {"Bucket": bucket, "Prefix": key, **({} if recursive else {"Delimiter": "/"})}
    while True:
        answer = _call(prefix, lambda files, _: files.call_s3("list_objects_v2", **request))
        objects = [(each["Key"], int(each["Size"]), each["ETag"]) for each in answer.get("Contents", ())]
        objects += [(each["Prefix"], 0, "") for each in answer.get("CommonPrefixes", ())]
        place = f"{scheme}://{bucket}"
        yield [Entry(f"{place}/{name}", name[len(key) :], size, tag) for name, size, tag in objects]
        if not answer.get("IsTruncated"):
            return
        request["ContinuationToken"] = answer["NextContinuationToken"]


def _call(address: str, action: Callable[[AbstractFileSystem, str], Answer]) -> Answer:
    """Call a file system, and turn what it raises into an OSError that names the address."""
    scheme, _, path = address.partition("://")
    files = _file_system(scheme.lower())
    if scheme.lower() in ("http", "https"):
        path = address  # their file system takes whole URLs
    try:
        return action(files, path)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{address} does not exist: {e}") from e
    except FileExistsError:
        raise
    except PermissionError as e:
        raise PermissionError(f"access to {address} was denied: {e}; check the credentials") from e
    except _errors_of_requests() as e:
        if "PreconditionFailed" in str(e) or getattr(e, "errno", None) == 17:
            raise FileExistsError(f"{address} exists already") from e
        raise OSError(f"{address} cannot be reached: {str(e) or type(e).__name__}") from e


def _errors_of_requests() -> tuple[type[Exception], ...]:
    """Return the exceptions of the packages that are loaded: not all are OSErrors."""
    found: list[type[Exception]] = [OSError]
    for module, names in _RAISED.items():
        found += [getattr(sys.modules[module], name) for name in names if module in sys.modules]
    return tuple(found)


@cache
def _file_system(scheme: str) -> AbstractFileSystem:
    """Open the file system for a kind of URL; all threads of a process share it."""
    try:
        import fsspec

        settings: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if scheme in ("s3", "s3a"):
            # "standard" waits longer from try to try, and repeats what a bucket refuses for being too busy
            retries = {"mode": "standard", "max_attempts": 8}
            settings["config_kwargs"] = {"retries": retries, "max_pool_connections": 64}
        return fsspec.filesystem(scheme, **settings)
    except ImportError as e:
        package = _PACKAGES.get(scheme, scheme)
        raise ImportError(
            f"{scheme}:// needs {package}; install it with: pip install 'u2net-hub[ray]' {package}"
        ) from e
    except (ValueError, TypeError) as e:  # fsspec does not know it, or it needs more, e.g. a host
        known = sorted({*_PACKAGES, "http", "https"})
        raise ValueError(
            f"{scheme}:// is not a kind of URL that is read here, expected one of {known}"
        ) from e
