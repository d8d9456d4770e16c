"""Fetch the files of a repo on the Hub, whatever they are."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from .addresses import full_address, parse_address, path_inside
from .bundled import CONFIG_NAME
from .layouts import WEIGHTS_NAME

SAVED_FILES = (CONFIG_NAME, WEIGHTS_NAME)
"""The names of the files that `save_pretrained` writes."""


def refuse_existing(folder: str | Path, names: Iterable[str] = SAVED_FILES) -> None:
    """Raise if one of the files is in the folder already; to be called before work starts.

    Raises:
        FileExistsError: The message names the files and says how to replace them.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder; choose another one")
    there = sorted(name for name in names if (folder / name).exists())
    if there:
        raise FileExistsError(
            f"{folder} holds {', '.join(there)} already; "
            "choose another folder, or replace the files with --overwrite (overwrite=True)"
        )


def download(
    source: str,
    *,
    out: str | Path | None = None,
    filename: str | Path | None = None,
    subfolder: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> Path:
    """Fetch the files of a repo on the Hub into the cache, from which they load offline, or into a folder.

    Nothing is loaded, so the repo may hold anything. Each file is compared with the hash that the Hub gives.

    Args:
        source: "org/name", "org/name@revision", or one file of the repo, "org/name/path/to/file.pth".
        out: A folder that the files are copied into. None leaves them in the cache.
        filename: The only file to fetch.
        subfolder: The only folder to fetch.
        revision: A branch, tag or commit.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        force_download: Download files anew that the cache has.
        allow_pickle: Has no effect, since nothing is loaded.
        overwrite: Replace files that are in `out` already.

    Returns:
        The folder with the files, or the file if one is named.

    Raises:
        FileExistsError: A file is in `out` already; this is found before anything is downloaded.
        OSError: A file cannot be fetched; the Hub's errors are subclasses of `u2net_hub.HubError`.
        ValueError: `source` is not a name on the Hub.
    """
    from .fetching import Options, complete_address, open_snapshot, with_cached_commit

    address = parse_address(source)
    if address is None:
        full = full_address(source)
        hint = f"; if it is on the Hub, write {full}" if full else ""
        raise ValueError(
            f"{source!r} is not a model on the Hub, expected org/name or org/name@revision{hint}"
        )
    inside = path_inside(subfolder, filename)
    address = complete_address(address, source, revision, inside)
    options = Options(token=token, cache_dir=cache_dir, force_download=force_download)
    snapshot = open_snapshot(address, options)

    def fetch() -> dict[str, Path]:
        names = _names_in(snapshot.names, address.path, f"{address.repo_id}@{snapshot.revision}")
        if out is not None and not overwrite:
            refuse_existing(out, names)
        return {name: snapshot.path(name) for name in names}

    paths = with_cached_commit(snapshot, fetch)
    snapshot.keep()
    folder = snapshot.folder
    if out is not None:
        folder = Path(out)
        _copy(paths, folder)
    return folder / address.path if address.path in paths or out is None else folder


def _names_in(names: Iterable[str], path: str, where: str) -> list[str]:
    """List the files at a path of a repo: the file itself, or those in the folder; "" is the whole repo."""
    from .errors import MissingFileError

    names = list(names)
    found = [name for name in names if not path or name == path or name.startswith(f"{path}/")]
    if not found:
        raise MissingFileError(f"{where}: {path or 'files'}: no such file in the repo; it holds {names[:8]}")
    return found


def _copy(paths: Mapping[str, Path], folder: Path) -> None:
    """Copy files into a folder, each completely or not at all; none if one of them cannot be copied."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".u2net-{uuid4().hex}.tmp"
    try:
        for name, path in paths.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, unfinished / name)
        for name in paths:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished / name, folder / name)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            e.errno, f"{e.strerror}: free some space, or choose a folder on a larger disk", str(folder)
        ) from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
