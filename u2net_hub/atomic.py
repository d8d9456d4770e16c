"""Write files and folders whole or not at all, name them, and hash them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from torch.nn import Module

else:
    Module = object


def file_name(name: str) -> str:
    """A name of a data set or model as part of a file's name."""
    return re.sub(r"[^\w.@-]+", "_", name).strip("._") or "unnamed"


def content_hash(content: Path | bytes, *, git: bool = False) -> str:
    """SHA-256 of a file or of bytes, or the SHA-1 that git gives them as a blob; in hexadecimal."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size) if git else hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    os.replace(file.name, path)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all: none is replaced before all are on the disk."""
    temporary = {name: folder / f".{name}.{uuid4().hex}" for name in contents}
    try:
        for name, content in contents.items():
            with temporary[name].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, path in temporary.items():
            path.replace(folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def write_output(data: memoryview, target: Path, *, overwrite: bool) -> None:
    """Write a file that appears with all its content, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".u2net-{secrets.token_hex(8)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
        if overwrite:
            os.replace(unfinished, target)
        else:
            _rename_to_new(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename, but never onto a file that is there: os.rename would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "is there already", str(target)) from None
        os.replace(source, target)
