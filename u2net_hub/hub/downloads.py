"""Fetch a model from the Hub for loading it offline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..atomic import write_files
from .sources import BESIDE, CONFIG_NAME, WEIGHTS_NAME, is_hub_id, open_repo

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
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    allow_pickle: bool = False,
    overwrite: bool = False,
) -> Path:
    """Fetch a model from the Hub into the cache, from which it loads offline, or into a folder.

    Args:
        source: "org/name" or "org/name@revision".
        out: A folder that the files are copied into. None leaves them in the cache.
        revision: A branch, tag or commit.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        allow_pickle: Accept a .pth file where the repo holds no other weights.
        overwrite: Replace files that are in `out` already.

    Returns:
        The folder with the files.

    Raises:
        FileExistsError: A file is in `out` already; this is found before the weights are downloaded.
        OSError: The model cannot be fetched; the Hub's errors are subclasses of `u2net_hub.HubError`.
        ValueError: `source` is not a name on the Hub, or the repo holds no model of this library.
    """
    if not is_hub_id(source):
        raise ValueError(f"{source!r} is not a model on the Hub, expected org/name or org/name@revision")

    def check(names: set[str]) -> None:
        if out is not None and not overwrite:
            refuse_existing(out, names)

    snapshot, found = open_repo(
        source, revision=revision, token=token, cache_dir=cache_dir, allow_pickle=allow_pickle, check=check
    )
    names = {CONFIG_NAME, found.weights_path.name, *BESIDE} & set(snapshot.names)
    paths = [snapshot.path(name) for name in sorted(names)]
    if out is None:
        return found.weights_path.parent
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, {path.name: path.read_bytes() for path in paths})
    return folder
