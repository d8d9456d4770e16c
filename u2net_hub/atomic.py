"""Write files completely or not at all, turn names into names of files, and hash contents."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def file_name(name: str) -> str:
    """Turn the name of a data set or model into a part of a file's name: other characters become "_"."""
    return re.sub(r"[^\w.@-]+", "_", name).strip("._") or "unnamed"


def content_hash(content: Path | bytes, *, git: bool = False) -> str:
    """Return the SHA-256 of a file or of bytes in hexadecimal, or with `git` the SHA-1 of its git blob."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size) if git else hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_file(path: Path, content: bytes | memoryview, *, overwrite: bool = True, sync: bool = True) -> None:
    """Write one file, see `write_files`."""
    write_files(path.parent, {path.name: content}, overwrite=overwrite, sync=sync)


def write_files(
    folder: Path, contents: Mapping[str, bytes | memoryview], *, overwrite: bool = True, sync: bool = True
) -> None:
    """Write files into a folder, which is made if it is missing.

    All contents are first written to hidden temporary files. Only when every one of them is complete do they
    get their names, in the order of `contents`. If writing fails, for example because the disk is full, the
    folder stays as it was.

    Args:
        folder: The folder.
        contents: The content of each file, by its name.
        overwrite: Whether to replace files that exist. If False, an existing file raises FileExistsError and
            no file is written, even if another process creates it at the same moment.
        sync: Whether to wait until the contents are on the disk, so that they survive a power failure.

    Raises:
        FileExistsError: A file exists and `overwrite` is False.
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # short names: the name of a file may be as long as the file system allows
    unfinished = {name: folder / f".u2net-{uuid4().hex}.tmp" for name in contents}
    created: list[Path] = []
    try:
        for name, content in contents.items():
            # open() creates the file with the mode that the umask gives; tempfile would give 0600
            with unfinished[name].open("xb") as file:
                _write(file, content, sync)
        for name, source in unfinished.items():
            target = folder / name
            if overwrite:
                source.replace(target)
            else:
                _rename_to_new(source, target)
                created.append(target)
    except BaseException as e:
        for path in created:
            path.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{e.strerror}: free some space, or choose a folder on a larger disk"
            raise OSError(e.errno, remedy, str(folder)) from e
        raise
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)


def write_folder(folder: Path, contents: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Write a folder with files in it, whole or not at all.

    Args:
        folder: The folder; its parents are made if they are missing.
        contents: The content of each file, by its path in the folder, with "/" between the parts.
        overwrite: Whether a folder that exists is replaced. One with none of these files is not: it is
            something else.

    Raises:
        FileExistsError: The folder exists and may not be replaced.
        OSError: A file cannot be written; the folder stays as it was.
    """
    there = os.path.lexists(folder)
    if there and not (overwrite and folder.is_dir() and any((folder / name).is_file() for name in contents)):
        raise FileExistsError(errno.EEXIST, "exists already and is not replaced", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (folder.parent / f".u2net-{uuid4().hex}.tmp" for _ in range(2))
    try:
        for name, content in contents.items():
            write_file(unfinished / name, content)
        if there:
            folder.rename(old)
        try:
            unfinished.rename(folder)
        except OSError:
            if there:
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(file: BinaryIO, content: bytes | memoryview, sync: bool) -> None:
    file.write(content)
    if sync:
        file.flush()
        os.fsync(file.fileno())


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename a file, but raise FileExistsError where os.replace would replace another file."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "exists already", str(target)) from None
    except OSError:  # the file system has no hard links: an empty file, created exclusively, holds the name
        with target.open("xb"):
            pass
        try:
            source.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
