"""Download the config and the weights of a repo, as its owner laid them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..config import ForeignConfigError, U2NetConfig
from .addresses import WEIGHT_SUFFIXES, Address
from .bundled import CONFIG_NAME
from .errors import CacheNotWritableError, MissingFileError, UnusableRepoError
from .layouts import WEIGHTS_NAME, choose_weights
from .snapshot import Snapshot
from .source import Source

T = TypeVar("T")


class Options(NamedTuple):
    """How to fetch a model; see `U2Net.from_pretrained`."""

    config: U2NetConfig | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    allow_pickle: bool = False


def complete_address(address: Address, source: str, revision: str | None, inside: str) -> Address:
    """Add what was given beside the name to an address."""
    if address.revision and revision is not None and address.revision != revision:
        raise ValueError(
            f"{source!r} names revision {address.revision!r}, and revision={revision!r} another; give one"
        )
    if inside and address.path.lower().endswith(WEIGHT_SUFFIXES):
        raise ValueError(f"{source!r} names a file, and filename= or subfolder= names {inside!r}; give one")
    path = "/".join(part for part in (address.path, inside) if part)
    return address._replace(revision=address.revision or revision, path=path)


def open_snapshot(address: Address, options: Options) -> Snapshot:
    """Look up the revision of an address."""
    return Snapshot(
        address.repo_id,
        revision=address.revision,
        token=options.token,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        force_download=options.force_download,
    )


def open_repo(address: Address, options: Options) -> tuple[Snapshot, Source]:
    """Download the config and the weights of a repo, and check their hashes.

    Raises:
        HubError: The repo cannot be read, or it holds no model of this library.
        ValueError: The repo holds several files of weights, or only pickles.
    """
    snapshot = open_snapshot(address, options)
    source = with_cached_commit(snapshot, lambda: _fetch(snapshot, address, options))
    snapshot.keep()
    return snapshot, source


def with_cached_commit(snapshot: Snapshot, fetch: Callable[[], T]) -> T:
    """Fetch files; if the cache cannot be written, fetch those of the commit that it holds."""
    try:
        return fetch()
    except CacheNotWritableError as e:
        if not snapshot.go_back(e):
            raise
        return fetch()


def _fetch(snapshot: Snapshot, address: Address, options: Options) -> Source:
    where = f"{address.repo_id}@{snapshot.revision}"
    weights = _choose(snapshot, address, options, where)
    config_path, is_ours = None, options.config is not None
    folder = weights.rpartition("/")[0]
    nearest = [f"{folder}/{CONFIG_NAME}" if folder else CONFIG_NAME, CONFIG_NAME]
    if options.config is None and (name := next((n for n in nearest if n in snapshot.names), None)):
        config_path = snapshot.path(name)
        try:  # before the weights of another library are downloaded
            U2NetConfig.load(config_path)
            is_ours = True
        except ForeignConfigError:
            pass
        except ValueError as e:
            raise UnusableRepoError(f"{where}: {e}", repo_id=address.repo_id, file=name) from e
    source = Source(
        address.repo_id,
        "hub",
        snapshot.folder / weights,
        config_path,
        snapshot.commit,
        options.allow_pickle or weights == address.path,  # naming a pickle asks for it
        options.config,
    )
    if not is_ours:
        _check_header(snapshot, weights, source, where)
    snapshot.path(weights)
    try:
        _fetch_beside(snapshot, weights, options.config)
    except ValueError as e:
        raise UnusableRepoError(f"{where}: {e}", repo_id=address.repo_id, file=weights) from e
    return source


def _choose(snapshot: Snapshot, address: Address, options: Options, where: str) -> str:
    """Choose the file of weights in a repo."""
    if address.path.lower().endswith(WEIGHT_SUFFIXES) and not address.path.endswith(".xml"):
        if address.path not in snapshot.names:
            raise MissingFileError(
                f"{where}: {address.path}: no such file in the repo; it holds {snapshot.names[:8]}",
                repo_id=address.repo_id,
                file=address.path,
            )
        return address.path
    at = f"@{address.revision}" if address.revision else ""
    try:
        return choose_weights(
            snapshot.names,
            folder=address.path,
            allow_pickle=options.allow_pickle,
            where=where,
            source=address.repo_id,
            at=at,
        )
    except FileNotFoundError as e:
        raise MissingFileError(
            f"{e}; see its other revisions on the Hub", repo_id=address.repo_id, file=WEIGHTS_NAME
        ) from e


def _check_header(snapshot: Snapshot, weights: str, source: Source, where: str) -> None:
    """Refuse weights of another network by the header of their file, before all of it is downloaded."""
    from ..checkpoints import check_shapes, official_names

    shapes = snapshot.tensor_shapes(weights)
    if shapes is None:
        return
    path = Path(weights)
    try:
        names = official_names(path, shapes)
        check_shapes(path, {names[key]: shape for key, shape in shapes.items()}, None)
    except ValueError as e:
        raise UnusableRepoError(
            f"{where}: {e}{source.foreign_config()}", repo_id=source.name, file=weights
        ) from e


def _fetch_beside(snapshot: Snapshot, weights: str, config: U2NetConfig | None) -> None:
    """Download shards and external data, and bound what a graph asks for."""
    from ..checkpoints import files_beside

    folder = weights.rpartition("/")[0]
    for name in files_beside(snapshot.path(weights)):
        inside = f"{folder}/{name}" if folder else name
        if inside not in snapshot.names:
            raise ValueError(f"{weights} needs {inside}, which is not in the repo")
        snapshot.path(inside)
    if weights.lower().endswith(".onnx"):
        _bound(snapshot.path(weights), config)


def _bound(path: Path, config: U2NetConfig | None) -> None:
    """Refuse a graph that an engine would run as it is, if it asks for far more than its network."""
    from ..checkpoints import check_onnx_cost, read_onnx_config

    inside = read_onnx_config(path)
    if inside is not None:
        check_onnx_cost(None, path, config or inside)
