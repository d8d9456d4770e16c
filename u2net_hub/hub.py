"""Where weights live: a bundled name, a folder, a file -> local files -> U2Net; and back into a folder.

This half of U2Net knows configs and files, not layers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar
from uuid import uuid4

from . import __version__
from .config import LIBRARY_NAME, STAGES, U2NetConfig

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

    from .publishing import Pushed
    from .remote import Snapshot
    from .results import Results
else:
    Module = object  # U2Net mixes `Pretrained` into a Module; torch is not needed to find files

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
RESULTS_NAME = "results.json"
WEIGHTS_DIR = Path(__file__).parent / "weights"

Precision = Literal["float32", "float16", "bfloat16"]

_BESIDE = ("README.md", RESULTS_NAME, "curves.npz", "example.webp")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".onnx", ".xml")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@.+)?", re.ASCII)

_M = TypeVar("_M", bound="Pretrained")


@dataclass(frozen=True)
class Source:
    """The local files behind a source of weights."""

    name: str
    """As people know it: "u2netp", "org/name", or the path."""
    kind: Literal["bundled", "folder", "file", "hub"]
    weights_path: Path
    """.safetensors, .pth, .pt, .onnx or .xml."""
    config_path: Path | None = None
    """config.json, where there is one."""
    revision: str | None = None
    """The commit, for a source on the Hub."""
    allow_pickle: bool = field(default=False, compare=False)

    @property
    def format(self) -> str:
        """Suffix of the weights without its dot, e.g. "safetensors"."""
        return self.weights_path.suffix.lower().removeprefix(".")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights' file, in hexadecimal."""
        with self.weights_path.open("rb") as file:
            return _sha256(file.read)

    def config(self) -> U2NetConfig | None:
        """The content of config.json; None without one.

        Raises:
            ValueError: it is not a config of this library; the message names the file.
        """
        return None if self.config_path is None else U2NetConfig.load(self.config_path)


class ModelInfo(NamedTuple):
    """One bundled model."""

    name: str
    variant: str
    description: str


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
        source: "u2netp"; a folder laid out as a Hub repo; a .safetensors, .pth, .onnx or OpenVINO .xml file;
            "org/name" or "org/name@revision".
        revision: branch, tag or commit, for a source on the Hub.
        token: for a private or gated repo; None: the one stored by `hf auth login`.
        cache_dir: in the place of the client's cache folder.
        local_files_only: take what the cache holds, without a request.
        allow_pickle: take a .pth where a folder or repo holds nothing else. Naming the file is asking for it.

    Raises:
        FileNotFoundError: it is none of the three, or the folder holds no weights.
        ValueError: it is ambiguous, or of a kind that is not read.
    """
    if isinstance(source, str) and source in _bundled_names():
        folder = WEIGHTS_DIR / source
        return Source(source, "bundled", folder / WEIGHTS_NAME, folder / CONFIG_NAME)
    path = Path(source).expanduser()
    if str(source) and path.exists():  # Path("") is the current folder
        found = _resolve_folder(path, allow_pickle) if path.is_dir() else _resolve_file(path)
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for a model on the Hub, and {path} is a local path")
        return found
    if isinstance(source, str) and _is_hub_id(source):
        _, found = _open_repo(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
        )
        return found
    if source in STAGES:
        raise FileNotFoundError(
            f"{source!r} is not bundled; fetch the authors' {source}.pth from "
            "https://github.com/xuebinqin/U-2-Net and convert it once: "
            f"u2net convert --model {source}.pth --out {source}"
        )
    raise FileNotFoundError(
        f"no weights at {str(source)!r}, expected a bundled name {_bundled_names()}, "
        f"an existing path (a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, or a file "
        f"{', '.join(_SUFFIXES)}), or a model on the Hub: org/name or org/name@revision"
    )


def list_models() -> list[ModelInfo]:
    """The models that are installed with the library, by name."""
    models = []
    for name in _bundled_names():
        config = U2NetConfig.load(WEIGHTS_DIR / name / CONFIG_NAME)
        models.append(ModelInfo(name, config.variant, _description(WEIGHTS_DIR / name / "README.md")))
    return models


def _bundled_names() -> list[str]:
    return sorted(path.parent.name for path in WEIGHTS_DIR.glob(f"*/{WEIGHTS_NAME}"))


def _description(card: Path) -> str:
    """First paragraph of the model card below its title."""
    if not card.is_file():
        return ""
    body = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = (" ".join(text.split()) for text in body.split("\n\n"))
    return next((text for text in paragraphs if text and text[0] not in "#<!|["), "")


def _is_hub_id(source: str) -> bool:
    return _HUB_ID.fullmatch(source) is not None and not source.lower().endswith(_SUFFIXES)


def _open_repo(
    source: str,
    *,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool = False,
    allow_pickle: bool,
) -> tuple[Snapshot, Source]:
    from .remote import MissingFileError, Snapshot, UnusableRepoError  # its client takes time to import

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
            f"{where} holds {weights} but no {CONFIG_NAME}, so nothing tells what it is; its owner can push "
            f"both with: u2net push --model {weights} {repo_id}",
            repo_id=repo_id,
            file=CONFIG_NAME,
        )
    weights_path = snapshot.path(weights)
    snapshot.keep()
    return snapshot, Source(repo_id, "hub", weights_path, config_path, snapshot.commit, allow_pickle)


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
    if not _is_hub_id(source):
        raise ValueError(f"{source!r} is not a model on the Hub, expected org/name or org/name@revision")
    snapshot, found = _open_repo(
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


def _resolve_file(path: Path) -> Source:
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"{path} is no checkpoint by its suffix, expected {', '.join(_SUFFIXES)}, or a folder"
        )
    # only the layout of a Hub repo says that the two belong together
    beside = path.with_name(CONFIG_NAME)
    config_path = beside if path.name == WEIGHTS_NAME and beside.is_file() else None
    return Source(str(path), "file", path, config_path, allow_pickle=True)


def _resolve_folder(path: Path, allow_pickle: bool) -> Source:
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
    """The file of weights in a folder or repo: model.safetensors, else the only one of its kind.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, or nothing but pickles and they are not allowed.
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


class Pretrained(Module):
    """The loading and saving half of U2Net."""

    config: U2NetConfig
    notes: Mapping[str, str] = MappingProxyType({})
    """What the file says of itself: "format", "precision", "made_by", and "derived_from", the foreign
    file that the weights were converted from; saved files carry that one along."""
    loaded_from: Source | None = None
    """The files that the weights came from; training does not change it."""

    @classmethod
    def from_pretrained(
        cls: type[_M],
        source: str | Path,
        *,
        config: U2NetConfig | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> _M:
        """Load a network in eval mode, float32, on the CPU; every weight must be there and fit.

        Args:
            source: "u2netp"; a folder laid out as a Hub repo; a .safetensors, .pth or .onnx file of the
                family; "org/name" or "org/name@revision".
            config: in the place of config.json, or of what the shapes tell where there is none.
            revision: branch, tag or commit, for a source on the Hub.
            token: for a private or gated repo; None: the one stored by `hf auth login`.
            cache_dir: in the place of the client's cache folder.
            local_files_only: take what the cache holds, without a request.
            allow_pickle: take a .pth where a folder or repo holds nothing else. Nothing in it is executed.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: they are damaged, not of the family, or do not fit their config.
            ImportError: an .onnx file, and onnx is not installed.
        """
        found = resolve(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
        )
        return load_network(cls, found, config=config)

    def save_pretrained(self, folder: str | Path, *, dtype: Precision | torch.dtype = "float32") -> Path:
        """Write config.json and model.safetensors into a folder, which then loads with `from_pretrained`.

        Each file appears whole or not at all.

        Args:
            folder: made where it is missing; the two files are replaced where they are there.
            dtype: of the convolutions. Batch norm stays float32: it is a hundredth of the file, and running
                variances leave the range of float16.

        Raises:
            ValueError: the network is fused, a weight is not finite in `dtype`, or `dtype` is another one.
        """
        import torch
        from safetensors.torch import save

        from .layout import official_shapes

        name = str(dtype).removeprefix("torch.")
        if name not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype is {dtype!r}, expected float32, float16 or bfloat16")
        state = self.state_dict()
        if state.keys() != official_shapes(self.config).keys():
            raise ValueError(
                "this network has no batch norm left to save (fuse() makes such copies for inference); "
                "save the network that it was made from"
            )
        tensors = {}
        for key, value in state.items():
            if value.is_floating_point():
                value = value.to(torch.float32 if ".bn_s1." in key else getattr(torch, name))
                if not value.isfinite().all():
                    raise ValueError(f"{key} holds values that are not finite in {name}; nothing was written")
            tensors[key] = value.detach().to("cpu").contiguous()
        metadata = {"format": "pt", "library_name": LIBRARY_NAME, "library_version": __version__}
        if "derived_from" in self.notes:
            metadata["derived_from"] = self.notes["derived_from"]
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_json().encode()
        write_files(folder, {CONFIG_NAME: config, WEIGHTS_NAME: _in_order(save(tensors, metadata))})
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        tag: str | None = None,
        token: str | bool | None = None,
        metrics: Results | Mapping[str, object] | str | Path | None = None,
        picture: str | Path | None = None,
        license: str | None = None,
        dtype: Precision | torch.dtype = "float32",
    ) -> Pushed:
        """Push weights, config, card and results in one commit; the same content again makes none.

        Repo and branch are created where they are missing. A push that fails leaves the repo as it was, and
        can be repeated. Of a README.md in the repo only our fields and the marked sections change.

        Args:
            repo_id: "org/name".
            private: for a new repo; None: as the account is set up.
            branch: None: main.
            create_pr: open a pull request, in the place of a commit.
            commit_message: None: "Upload model with u2net-hub".
            tag: a name for the commit.
            token: with write permission; None: the one stored by `hf auth login`.
            metrics: results of these weights, as `evaluate` gives them; or the path of their results.json,
                or of its folder. curves.npz beside it is taken too.
            picture: a .webp for the card: a photo that may be shown, with its map and cutout.
            license: of the weights, as the Hub names it; None: what the README there says, else "apache-2.0".
            dtype: as for `save_pretrained`.

        Raises:
            OSError: the Hub refuses or cannot be reached; the classes are those of `u2net_hub.remote`.
            ValueError: the metrics are of other weights, or `private=True` and the repo is public.
        """
        from .publishing import push_folder

        with tempfile.TemporaryDirectory(prefix="u2net-push-") as folder:
            self.fill_repo(folder, metrics=metrics, picture=picture, dtype=dtype)
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message,
                private=private,
                branch=branch,
                create_pr=create_pr,
                tag=tag,
                token=token,
                license=license,
            )

    def fill_repo(
        self,
        folder: str | Path,
        *,
        metrics: Results | Mapping[str, object] | str | Path | None = None,
        picture: str | Path | None = None,
        dtype: Precision | torch.dtype = "float32",
    ) -> Path:
        """Write what `push_to_hub` pushes into a folder, but for the card; arguments as there."""
        from .card import PICTURE_NAME, results_of
        from .results import Results

        folder = self.save_pretrained(folder, dtype=dtype)
        if isinstance(metrics, str | Path):
            path = Path(metrics)
            metrics = Results.load(path / RESULTS_NAME if path.is_dir() else path)
        elif isinstance(metrics, Mapping):
            metrics = Results.from_dict(dict(metrics))
        if metrics is not None:
            saved, loaded = _resolve_folder(folder, allow_pickle=False), self.loaded_from
            if (
                loaded is not None
                and metrics.weights_sha256 == loaded.sha256
                and _equal_weights(saved, loaded)
            ):
                metrics = replace(metrics, weights_sha256=saved.sha256)  # the same weights in another file
            results_of(metrics, saved.sha256).save(folder)
        if picture is not None:
            shutil.copyfile(picture, folder / PICTURE_NAME)
        return folder


def load_network(cls: type[_M], source: Source, *, config: U2NetConfig | None = None) -> _M:
    """Build a network from local files, once config and shapes are found to agree."""
    import torch

    from .convert import read_checkpoint
    from .onnx_graph import check_onnx

    if source.format == "xml":
        raise ValueError(
            f"{source.name} is an OpenVINO graph, which SaliencyPipeline runs; "
            "a U2Net needs the checkpoint that it was exported from"
        )
    try:
        checkpoint = read_checkpoint(
            source.weights_path, config=config or source.config(), allow_pickle=source.allow_pickle
        )
    except ValueError as e:
        if source.kind != "hub":
            raise
        from .remote import UnusableRepoError

        raise UnusableRepoError(
            f"{source.name}@{source.revision}: {source.weights_path.name} is as the Hub has it, but cannot "
            f"be used: {e}; see the repo's other revisions, or tell its owner",
            repo_id=source.name,
            file=source.weights_path.name,
        ) from e
    with torch.device("meta"):  # no memory, no random weights
        network = cls(checkpoint.config)
    network.load_state_dict(checkpoint.state, strict=True, assign=True)
    network.eval()
    if source.format == "onnx":
        check_onnx(source.weights_path, network, checkpoint.config)
    notes = dict(checkpoint.notes)
    if not notes.get("made_by", "").startswith(LIBRARY_NAME):
        notes.setdefault("derived_from", f"{source.weights_path.name} (SHA-256 {source.sha256})")
    network.notes = notes
    network.loaded_from = source
    return network


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: its writer shuffles it, and equal weights are one blob."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _equal_weights(one: Source, other: Source) -> bool:
    """Whether two files hold the same weights, in whatever precision and format."""
    import torch

    from .convert import read_checkpoint

    if not other.weights_path.is_file():
        return False
    a, b = (read_checkpoint(source.weights_path, config=one.config()).state for source in (one, other))
    return all(torch.equal(value, b[key]) for key, value in a.items())


def _sha256(read: Callable[[int], bytes]) -> str:
    digest = hashlib.sha256()
    while block := read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


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
