"""Sources of weights: find the local files of a bundled name, a path or a name on the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import U2NetConfig
from .addresses import WEIGHT_SUFFIXES, Address, full_address, parse_address, path_inside
from .bundled import CONFIG_NAME, bundled_folder, bundled_names
from .family import find_member
from .layouts import WEIGHTS_NAME, choose_weights
from .source import Source

if TYPE_CHECKING:
    from .fetching import Options

logger = logging.getLogger(__name__)


def resolve(
    source: str | Path,
    *,
    config: U2NetConfig | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    filename: str | Path | None = None,
    subfolder: str | Path | None = None,
    allow_pickle: bool = False,
) -> Source:
    """Find the files of a source: a bundled name, else an existing path, else a model on the Hub.

    The arguments are those of `U2Net.from_pretrained`. An OpenVINO graph (.xml) is found too.

    Raises:
        FileNotFoundError: The source is none of the three, or the folder holds no weights.
        ValueError: The source is ambiguous, or its kind of file is not read.
    """
    inside = path_inside(subfolder, filename)
    folder = bundled_folder(source) if isinstance(source, str) and not inside else None
    if folder is not None:
        if Path(source).exists() and not Path(source).samefile(folder):
            logger.warning(
                "%r is the bundled model; the file or folder %s in the current folder is not used. "
                "To load that one, write './%s'",
                *(source, source, source),
            )
        return Source(str(source), "bundled", folder / WEIGHTS_NAME, folder / CONFIG_NAME, given=config)
    if inside and bundled_folder(str(source)) is not None and not Path(source).exists():
        raise ValueError(f"{source!r} is bundled with its only file of weights; leave out {inside!r}")
    path = Path(source).expanduser()
    address = parse_address(source) if isinstance(source, str) else None
    if str(source) and path.exists() and not (address and address.explicit):  # Path("") is the current folder
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for a model on the Hub, and {path} is a local path")
        return resolve_local(path, inside, allow_pickle=allow_pickle, config=config)
    if address is None or _is_mistyped(address):
        raise _nothing_at(str(source))
    from .fetching import Options, complete_address

    options = Options(
        config=config,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        allow_pickle=allow_pickle,
    )
    return _ask_hub(str(source), complete_address(address, str(source), revision, inside), options)


def name_weights(source: str) -> str:
    """Name the file of weights of a source, so that it may be a pickle: naming a pickle asks for it.

    Any source whose weights are no pickle stays as it is. Weights on the Hub are downloaded, and pinned.
    """
    from ..checkpoints import PICKLES

    found = resolve(source, allow_pickle=True)
    if found.weights_path.suffix.lower() not in PICKLES:
        return source
    if found.kind != "hub":
        return str(found.weights_path)
    path = found.weights_path.as_posix().partition(f"/snapshots/{found.revision}/")[2]
    return f"{found.name}@{found.revision}/{path}"


def _is_mistyped(address: Address) -> bool:
    """Tell whether this is more likely a path of a local folder than a file in a repo."""
    return bool(address.path) and not address.explicit and Path(address.repo_id.partition("/")[0]).is_dir()


def _nothing_at(source: str) -> FileNotFoundError:
    """Make the error for a source that is neither here nor on the Hub."""
    if (member := find_member(source)) is not None:
        name, (file, origin, config) = member
        own = "" if config == U2NetConfig(variant=config.variant) else f" --config {name}"
        return FileNotFoundError(
            f"{source!r} is not bundled; the file {file} is {origin}: fetch it, and convert it once with: "
            f"u2net convert --model {file}{own} --out {name}"
        )
    full = full_address(source)
    hint = f"; if it is on the Hub, write {full}" if full else ""
    return FileNotFoundError(
        f"no weights at {source!r}, expected a bundled name {bundled_names()}, "
        f"an existing path (a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, or a file "
        f"{', '.join(WEIGHT_SUFFIXES)}), or a model on the Hub: org/name or org/name@revision{hint}"
    )


def _ask_hub(source: str, address: Address, options: Options) -> Source:
    """Look for a source on the Hub. If it could be a path too, an error mentions both places."""
    from .errors import HubUnavailableError, NotCachedError, RepoNotFoundError
    from .fetching import open_repo

    # "org/name" is probably a mistyped path if the folder "org" exists
    is_like_a_path = not address.explicit and (bool(address.path) or Path(source).parent.is_dir())
    level = logging.WARNING if is_like_a_path and not address.path else logging.INFO
    logger.log(level, "there is no local path %r; looking for a repo of that name on the Hub", source)
    try:
        return open_repo(address, options)[1]
    except (RepoNotFoundError, HubUnavailableError, NotCachedError) as e:
        if not is_like_a_path:
            raise
        raise type(e)(
            f"there is no local path {source!r}, and on the Hub: {e}", repo_id=e.repo_id, file=e.file
        ) from e


def resolve_local(
    path: Path, inside: str = "", *, allow_pickle: bool = False, config: U2NetConfig | None = None
) -> Source:
    """Find the weights of a file or folder.

    Args:
        path: The file or folder.
        inside: A file or folder inside it.
        allow_pickle: Accept a pickle where a folder holds no other weights.
        config: A config that replaces config.json.
    """
    place = path / inside
    if not place.exists():
        raise FileNotFoundError(f"there is no {inside!r} in {path}")
    if not place.is_dir():
        return _resolve_file(place, config)
    names = [file.relative_to(path).as_posix() for file in (*place.iterdir(), *place.glob("*/*"))]
    weights = choose_weights(
        names, folder=inside, allow_pickle=allow_pickle, where=str(place), source=str(path)
    )
    config_path = next((p for p in (place / CONFIG_NAME, path / CONFIG_NAME) if p.is_file()), None)
    return Source(str(place), "folder", path / weights, config_path, None, allow_pickle, config)


def _resolve_file(path: Path, config: U2NetConfig | None) -> Source:
    if not path.name.lower().endswith(WEIGHT_SUFFIXES):
        raise ValueError(
            f"{path} is no checkpoint by its suffix, expected {', '.join(WEIGHT_SUFFIXES)}, or a folder"
        )
    # the two files belong together only under the names of a Hub repo
    beside = path.with_name(CONFIG_NAME)
    config_path = beside if path.name == WEIGHTS_NAME and beside.is_file() else None
    return Source(str(path), "file", path, config_path, None, True, config)
