"""Send a source of weights to other machines, which keep its files in a cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from ...atomic import content_hash, write_file
from ...checkpoints import files_beside
from ...engines import cache_folder
from ...hub import Source, resolve

_WEIGHTS = "weights"


@dataclass(frozen=True)
class ShippedWeights:
    """The description of a source of weights, without the contents of its files."""

    source: Source
    """The source as the sender sees it."""
    weights: str
    """The name of the file of weights in `hashes`."""
    config: str | None
    """The name of config.json in `hashes`."""
    hashes: Mapping[str, str]
    """The SHA-256 of each file, by its path in the cache."""

    @property
    def digest(self) -> str:
        """The SHA-256 of all files together."""
        lines = [f"{name} {value}\n" for name, value in sorted(self.hashes.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def pack_weights(source: Source) -> tuple[ShippedWeights, dict[str, bytes]]:
    """Read the files of a source: the weights, what lies beside them, and the config."""
    path = source.weights_path
    beside = [path.parent / name for name in files_beside(path)]
    if source.format == "xml":
        beside.append(path.with_suffix(".bin"))
    if source.kind == "bundled":
        beside += sorted(path.parent.glob("int8.*"))
    files = {f"{_WEIGHTS}/{each.relative_to(path.parent).as_posix()}": each for each in (path, *beside)}
    config = None
    if source.config_path is not None:
        config = source.config_path.name
        files[config] = source.config_path
        if source.config_path.parent == path.parent:
            config = f"{_WEIGHTS}/{config}"
            files[config] = files.pop(source.config_path.name)
    contents = {name: each.read_bytes() for name, each in files.items()}
    hashes = {name: content_hash(content) for name, content in contents.items()}
    return ShippedWeights(source, f"{_WEIGHTS}/{path.name}", config, hashes), contents


def unpack_weights(shipped: ShippedWeights, fetch: Callable[[], Mapping[str, bytes]]) -> Source:
    """Find the weights on this machine, or write them into its cache.

    Several processes of a machine may call this at the same time: the first one fetches, the others wait.
    Every file is hashed before it is used.

    Args:
        shipped: What `pack_weights` returned.
        fetch: A function that fetches the contents of the files.

    Raises:
        OSError: The cache cannot be written to.
        ValueError: A file that was fetched does not have its hash.
    """
    source = shipped.source
    if source.kind == "bundled":
        here = resolve(source.name)
        if pack_weights(here)[0].hashes == shipped.hashes:
            return replace(here, given=source.given)
    folder = _weights_folder() / shipped.digest
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        missing = [name for name, value in shipped.hashes.items() if not _is_intact(folder / name, value)]
        if missing:
            contents = fetch()
            for name in missing:
                if content_hash(contents[name]) != shipped.hashes[name]:
                    raise ValueError(f"{name} of {source.name} was damaged on its way to this machine")
                write_file(folder / name, contents[name])
    config = None if shipped.config is None else folder / shipped.config
    return replace(source, weights_path=folder / shipped.weights, config_path=config)


def _weights_folder() -> Path:
    """Return the folder for weights from other machines, in the user's cache if it can be written to."""
    try:
        folder = cache_folder() / "weights"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or a home that cannot be written to
        return Path(tempfile.gettempdir()) / f"u2net-hub-{os.getuid() if hasattr(os, 'getuid') else 0}"
    return folder


def _is_intact(path: Path, expected: str) -> bool:
    return path.is_file() and content_hash(path) == expected
