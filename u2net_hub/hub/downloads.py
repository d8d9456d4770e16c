"""Fetch a model from the Hub for loading it offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic import write_files
from .sources import CONFIG_NAME, RESULTS_NAME, is_hub_id, open_repo

if TYPE_CHECKING:
    from torch.nn import Module

else:
    Module = object


_BESIDE = ("README.md", RESULTS_NAME, "curves.npz", "example.webp")


def download(
    source: str,
    *,
    out: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    allow_pickle: bool = False,
) -> Path:
    """Fetch a model from the Hub into the cache, from which it loads offline, or into a folder.

    Args:
        source: "org/name" or "org/name@revision".
        out: a folder for copies of its files; None: they stay in the cache.
        revision: branch, tag or commit.
        token: for a private or gated repo; None: the one stored by `hf auth login`.
        cache_dir: in the place of the client's cache folder.
        allow_pickle: take a .pth where the repo holds nothing else.

    Returns:
        The folder with the files.

    Raises:
        OSError: it cannot be had; for the Hub's part the classes are those of `u2net_hub.remote`.
        ValueError: `source` is not on the Hub, or holds no model of this library.
    """
    if not is_hub_id(source):
        raise ValueError(f"{source!r} is not a model on the Hub, expected org/name or org/name@revision")
    snapshot, found = open_repo(
        source, revision=revision, token=token, cache_dir=cache_dir, allow_pickle=allow_pickle
    )
    names = {CONFIG_NAME, found.weights_path.name, *_BESIDE} & set(snapshot.names)
    paths = [snapshot.path(name) for name in sorted(names)]
    if out is None:
        return found.weights_path.parent
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, {path.name: path.read_bytes() for path in paths})
    return folder
