"""Sources of weights: find the local files of a bundled name, a path or a name on the Hub."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..atomic import content_hash
from ..config import STAGES, U2NetConfig

if TYPE_CHECKING:
    from ..evaluation import Speed
    from .snapshot import Snapshot


logger = logging.getLogger(__name__)


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
RESULTS_NAME = "results.json"
BESIDE = ("README.md", RESULTS_NAME, "curves.npz", "example.webp")
"""The files of a repo that are not needed for loading."""
WEIGHTS_DIR = Path(__file__).parents[1] / "weights"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".onnx", ".xml")
_HUB_ID = re.compile(r"(?!.*(--|\.\.).*?/)\w([\w.-]*\w)?/\w([\w.-]*\w)?(@.+)?", re.ASCII)
_FILE_SUFFIX = re.compile(r"\.[a-z]{2,12}", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """The local files of a source of weights."""

    name: str
    """The name that people use: "u2netp", "org/name", or the path."""
    kind: Literal["bundled", "folder", "file", "hub"]
    weights_path: Path
    """.safetensors, .pth, .pt, .onnx or .xml."""
    config_path: Path | None = None
    """config.json, if there is one."""
    revision: str | None = None
    """The commit of a source on the Hub; None for local files."""
    allow_pickle: bool = field(default=False, compare=False)

    @property
    def format(self) -> str:
        """The suffix of the weights without its dot, e.g. "safetensors"."""
        return self.weights_path.suffix.lower().removeprefix(".")

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file of weights, in hexadecimal; of several files that of all their hashes."""
        from ..checkpoints import files_beside

        hashes = [content_hash(self.weights_path)]
        hashes += [content_hash(self.weights_path.parent / name) for name in files_beside(self.weights_path)]
        return hashes[0] if len(hashes) == 1 else content_hash("\n".join(hashes).encode())

    def config(self) -> U2NetConfig | None:
        """Read config.json; None if there is none.

        Raises:
            ValueError: The file is not a config of this library; the message names it.
        """
        return None if self.config_path is None else U2NetConfig.load(self.config_path)


class ModelInfo(NamedTuple):
    """One bundled model."""

    name: str
    variant: str
    description: str
    input_size: tuple[int, int]
    """Height and width of the network's input, in pixels."""
    scores: Mapping[str, float]
    """The scores on the last data set of its results.json, by measure; empty if there are none."""
    dataset: str
    """The name of that data set."""
    speed: Speed | None
    """The first row of its measured speeds."""


def resolve(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
) -> Source:
    """Find the files of a source: a bundled name, else an existing path, else a model on the Hub.

    Args:
        source: Either "u2netp"; a folder laid out as a Hub repo; a .safetensors, .pth, .onnx or OpenVINO .xml
            file; "org/name" or "org/name@revision".
        revision: A branch, tag or commit, for a source on the Hub.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        local_files_only: Use the cache without a request.
        allow_pickle: Accept a .pth file where a folder or repo holds no other weights. A .pth file that
            `source` names itself is always accepted.

    Raises:
        FileNotFoundError: The source is none of the three, or the folder holds no weights.
        ValueError: The source is ambiguous, or its kind of file is not read.
    """
    if isinstance(source, str) and source in _bundled_names():
        folder = WEIGHTS_DIR / source
        if Path(source).exists() and not Path(source).samefile(folder):
            logger.warning(
                "%r is the bundled model; the file or folder %s in the current folder is not used. "
                "To load that one, write './%s'",
                *(source, source, source),
            )
        return Source(source, "bundled", folder / WEIGHTS_NAME, folder / CONFIG_NAME)
    path = Path(source).expanduser()
    if str(source) and path.exists():  # Path("") is the current folder
        found = resolve_folder(path, allow_pickle) if path.is_dir() else _resolve_file(path)
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for a model on the Hub, and {path} is a local path")
        return found
    if isinstance(source, str) and is_hub_id(source):
        return _ask_hub(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
        )
    if source in STAGES:
        raise FileNotFoundError(
            f"{source!r} is not bundled; fetch the authors' {source}.pth from "
            "https://github.com/xuebinqin/U-2-Net and convert it once: "
            f"u2net convert --model {source}.pth --out {source}"
        )
    raise FileNotFoundError(
        f"no weights at {str(source)!r}, expected a bundled name {_bundled_names()}, "
        f"an existing path (a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, or a file "
        f"{', '.join(WEIGHT_SUFFIXES)}), or a model on the Hub: org/name or org/name@revision"
    )


def _ask_hub(source: str, **options: Any) -> Source:
    """Look for a source on the Hub, since no local path has its name. An error mentions both places."""
    from .errors import HubUnavailableError, NotCachedError, RepoNotFoundError

    # "org/name" is probably a mistyped path if the folder "org" exists, or if the name ends like a file
    typo = Path(source).parent.is_dir() or _FILE_SUFFIX.fullmatch(Path(source).suffix)
    level = logging.WARNING if typo else logging.INFO
    logger.log(level, "there is no local path %r; looking for a repo of that name on the Hub", source)
    try:
        _, found = open_repo(source, **options)
    except (RepoNotFoundError, HubUnavailableError, NotCachedError) as e:
        raise type(e)(
            f"there is no local path {source!r}, and on the Hub: {e}", repo_id=e.repo_id, file=e.file
        ) from e
    return found


def list_bundled() -> list[ModelInfo]:
    """List the models that are installed with the library, sorted by name."""
    from ..evaluation import Results

    models = []
    for name in _bundled_names():
        folder = WEIGHTS_DIR / name
        config = U2NetConfig.load(folder / CONFIG_NAME)
        results = Results.load(folder) if (folder / RESULTS_NAME).is_file() else None
        datasets = results.datasets if results is not None else {}
        dataset = list(datasets)[-1] if datasets else ""
        models.append(
            ModelInfo(
                name,
                config.variant,
                _description(folder / "README.md"),
                config.input_size,
                datasets[dataset].scores if dataset else {},
                dataset,
                results.speed[0] if results is not None and results.speed else None,
            )
        )
    return models


def list_models() -> list[ModelInfo]:
    """The former name of `list_bundled`."""
    warnings.warn("list_models is now list_bundled", DeprecationWarning, stacklevel=2)
    return list_bundled()


def _bundled_names() -> list[str]:
    return sorted(path.parent.name for path in WEIGHTS_DIR.glob(f"*/{WEIGHTS_NAME}"))


def _description(card: Path) -> str:
    """Return the first paragraph below the title of a model card."""
    if not card.is_file():
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = (" ".join(text.split()) for text in body.split("\n\n"))
    return next((text for text in paragraphs if text and text[0] not in "#<!|["), "")


def is_hub_id(source: str) -> bool:
    """Tell whether a Hub repo can have this name. A name that ends like a file of weights is a path."""
    return _HUB_ID.fullmatch(source) is not None and not source.lower().endswith(WEIGHT_SUFFIXES)


def open_repo(
    source: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool = False,
    allow_pickle: bool,
    check: Callable[[set[str]], None] | None = None,
) -> tuple[Snapshot, Source]:
    """Download the config and the weights of a repo, and check their hashes.

    Args:
        source: "org/name" or "org/name@revision".
        revision: A branch, tag or commit.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        local_files_only: Use the cache without a request.
        allow_pickle: Accept a .pth file where the repo holds no other weights.
        check: Called with the names of the repo's files that a model consists of, before the weights are
            downloaded; it can raise.

    Raises:
        HubError: The repo cannot be read, or it holds no model of this library.
        ValueError: The source and `revision` name different revisions, or the repo holds only pickles.
    """
    from .errors import (
        MissingFileError,  # its client takes time to import
        UnusableRepoError,
    )
    from .snapshot import Snapshot

    repo_id, _, tagged = source.partition("@")
    if tagged and revision is not None and tagged != revision:
        raise ValueError(f"{source!r} names revision {tagged!r}, and revision={revision!r} another; give one")
    snapshot = Snapshot(
        repo_id,
        revision=tagged or revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    where = f"{repo_id}@{snapshot.revision}"
    config_path = None
    if CONFIG_NAME in snapshot.names:
        config_path = snapshot.path(CONFIG_NAME)
        try:  # before the weights of another library are downloaded
            U2NetConfig.load(config_path)
        except ValueError as e:
            raise UnusableRepoError(f"{where}: {e}", repo_id=repo_id, file=CONFIG_NAME) from e
    try:
        weights = choose_weights(snapshot.names, allow_pickle=allow_pickle, where=where)
    except FileNotFoundError as e:
        raise MissingFileError(
            f"{e}; see its other revisions on the Hub, or convert them: u2net convert",
            repo_id=repo_id,
            file=WEIGHTS_NAME,
        ) from e
    if config_path is None and weights.endswith(".safetensors"):
        raise MissingFileError(
            f"{where} holds {weights} but no {CONFIG_NAME}, so the network is unknown; its owner can push "
            f"both with: u2net push --model {weights} {repo_id}",
            repo_id=repo_id,
            file=CONFIG_NAME,
        )
    if check is not None:
        check({CONFIG_NAME, weights, *BESIDE} & set(snapshot.names))
    weights_path = snapshot.path(weights)
    snapshot.keep()
    return snapshot, Source(repo_id, "hub", weights_path, config_path, snapshot.commit, allow_pickle)


def _resolve_file(path: Path) -> Source:
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise ValueError(
            f"{path} is no checkpoint by its suffix, expected {', '.join(WEIGHT_SUFFIXES)}, or a folder"
        )
    # the two files belong together only under the names of a Hub repo
    beside = path.with_name(CONFIG_NAME)
    config_path = beside if path.name == WEIGHTS_NAME and beside.is_file() else None
    return Source(str(path), "file", path, config_path, allow_pickle=True)


def resolve_folder(path: Path, allow_pickle: bool) -> Source:
    weights = choose_weights(
        (file.name for file in path.iterdir()), allow_pickle=allow_pickle, where=str(path)
    )
    config_path = path / CONFIG_NAME
    return Source(
        str(path),
        "folder",
        path / weights,
        config_path if config_path.is_file() else None,
        allow_pickle=allow_pickle,
    )


def choose_weights(names: Iterable[str], *, allow_pickle: bool, where: str) -> str:
    """Choose the file of weights in a folder or repo: model.safetensors, or else the only one of its kind.

    Raises:
        FileNotFoundError: There is no file of weights.
        ValueError: There are several, or there are only pickles and they are not allowed.
    """
    names = sorted(names)
    if WEIGHTS_NAME in names:
        return WEIGHTS_NAME
    for suffixes in ((".safetensors",), (".onnx",), (".pth", ".pt")):
        found = [name for name in names if name.lower().endswith(suffixes)]
        if len(found) > 1:
            raise ValueError(f"{where} holds no {WEIGHTS_NAME} but {found}; name the file to use")
        if found and ".pth" in suffixes and not allow_pickle:
            raise ValueError(
                f"{where} holds weights only as a pickle ({found[0]}), which is read on request only: "
                "allow_pickle=True (its tensors are read, nothing in it is executed)"
            )
        if found:
            return found[0]
    raise FileNotFoundError(
        f"{where} holds no weights, expected {WEIGHTS_NAME}; it holds {names[:8] or 'nothing'}"
    )
