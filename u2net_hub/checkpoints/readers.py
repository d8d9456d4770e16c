"""Read checkpoints of the U²-Net family and check every key and shape.

The formats are .safetensors, the official .pth and other pickles (of which only tensors are read and no code
is executed) and .onnx. The result is a config and a state dict under the official keys.
"""

from __future__ import annotations

import pickle
import re
import shlex
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import U2NetConfig
from .names import official_names
from .onnx_reader import read_onnx
from .parts import INDEX, PICKLES, shards
from .printable import printable_text
from .topology import BN_EPS, TRACKED, check_shapes, official_shapes

_MOST_UNPACKED = 4
"""The most bytes that a pickle may make of each of its own."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Checkpoint(NamedTuple):
    """The content of a file of weights."""

    config: U2NetConfig
    state: dict[str, Tensor]
    """A float32 tensor for every official key; `num_batches_tracked` is int64."""
    notes: dict[str, str]
    """Facts for people: "format", "precision" and, if the file names them, "made_by" and "derived_from"."""


def read_checkpoint(
    path: str | Path, *, config: U2NetConfig | None = None, allow_pickle: bool = True
) -> Checkpoint:
    """Read a .safetensors, .onnx, .pth, .pt, .bin or .ckpt file of the U²-Net family, or its shards.

    Of an .onnx file this reads the weights; `check_onnx` checks whether its graph computes the same maps.

    Args:
        path: The file of weights, or the .index.json of its shards, which lie beside it.
        config: The config that the file must fit. None infers the variant and the channels from the shapes.
        allow_pickle: Whether pickles are accepted. They are always read with `weights_only=True`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, is not a checkpoint of the family, or does not fit `config`.
        ImportError: The file is an .onnx, and onnx is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    parts = [path, *shards(path)] if path.name.endswith(INDEX) else [path]
    for part in parts:
        if not part.is_file():
            raise FileNotFoundError(f"{path} lists {part.name!r}, which is not beside it; copy that file too")
        _check_download(part)
    parts = parts[1:] or parts
    suffix = parts[0].suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path, parts, config)
    if suffix in PICKLES:
        if not allow_pickle:
            raise ValueError(f"{path} is a pickle, which is read on request only: allow_pickle=True")
        return _read_pickles(path, parts, config)
    if suffix == ".onnx":
        return _read_onnx(path, config)
    raise ValueError(
        f"{path} has the suffix {suffix!r}, expected .safetensors, .pth, .pt, .bin, .ckpt or .onnx"
    )


def _check_download(path: Path) -> None:
    """Raise ValueError for a file that failed downloads leave: a web page, a Git LFS pointer, or no bytes."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    for start, what in (
        (b"version https://git-lfs", "a Git LFS pointer (fetch the file itself with: git lfs pull)"),
        (b"<!doctype", "a web page"),
        (b"<html", "a web page"),
    ):
        if head.startswith(start):
            raise ValueError(f"{path} is {what}, expected a checkpoint; download it again")
    if not head:
        raise ValueError(f"{path} is empty, expected a checkpoint; download it again")


def _read_safetensors(path: Path, parts: Sequence[Path], config: U2NetConfig | None) -> Checkpoint:
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(safe_open(part, framework="pt")) for part in parts]
            metadata: dict[str, str] = files[0].metadata() or {}
            holder = {key: file for file in files for key in list(file.keys())}
            # The shapes come from the header, so a file that does not fit is refused before it is loaded.
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key, file in holder.items()}
            names = official_names(path, shapes)
            config = check_shapes(path, {names[key]: shape for key, shape in shapes.items()}, config)
            tensors = {names[key]: file.get_tensor(key) for key, file in holder.items()}
    except SafetensorError as e:
        raise ValueError(f"{path} is damaged or no safetensors file ({e}); copy or download it again") from e
    notes = {"format": "safetensors", "precision": _precision(tensors)}
    if "library_version" in metadata:
        notes["made_by"] = f"{metadata.get('library_name', '')} {metadata['library_version']}"
    if "derived_from" in metadata:
        notes["derived_from"] = metadata["derived_from"]
    elif "source" in metadata:
        notes["derived_from"] = metadata["source"]
    notes = {key: printable_text(text) for key, text in notes.items()}
    return Checkpoint(config, _float32(path, tensors, config), notes)


# The errors that torch.load raises for damaged files, because its unpickler reads any bytes
_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def _read_pickles(path: Path, parts: Sequence[Path], config: U2NetConfig | None) -> Checkpoint:
    found = {key: value for part in parts for key, value in _state_dict(part, _load_pickle(part)).items()}
    names = official_names(path, found)
    tensors = {names[key]: value for key, value in found.items()}
    config = check_shapes(path, {key: tuple(value.shape) for key, value in tensors.items()}, config)
    dense = (each for each in tensors.values() if each.layout == torch.strided and not each.is_meta)
    _check_growth(path, sum(each.nbytes for each in dense), sum(part.stat().st_size for part in parts))
    notes = {"format": "PyTorch", "precision": _precision(tensors)}
    return Checkpoint(config, _float32(path, tensors, config), notes)


def _load_pickle(path: Path) -> object:
    _check_unpacked(path)
    try:
        with warnings.catch_warnings():
            # torch warns of unusual pickle protocols, but it reads or refuses the file with or without it
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN_PICKLE as e:
        if found := re.search(r"GLOBAL ([\w.]+)", str(e)):
            raise ValueError(
                f"{path} holds Python objects ({found[1]}), which are not loaded: they may execute anything; "
                f"expected tensors, as torch.save(model.state_dict(), …) writes them{_tensors_alone(path)}"
            ) from e
        raise ValueError(f"{path} is damaged or no PyTorch file; copy or download it again") from e


def _check_unpacked(path: Path) -> None:
    """Refuse a compressed file that would fill the memory; torch.save does not compress."""
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, ValueError, LookupError, NotImplementedError, struct.error):
        return  # the older format of torch.save, or a file that torch.load refuses
    _check_growth(path, size, path.stat().st_size)


def _check_growth(path: Path, size: int, on_disk: int) -> None:
    """Refuse a small file that makes tensors of many bytes."""
    if size > _MOST_UNPACKED * (on_disk + 1_000_000):
        raise ValueError(
            f"{path} would grow from {on_disk:,} to {size:,} bytes when it is read; expected a checkpoint as "
            "torch.save writes it, neither compressed nor with expanded tensors"
        )


def _tensors_alone(path: Path) -> str:
    """Write the command that saves the tensors of a checkpoint of Lightning, which can hold objects too."""
    if path.suffix.lower() != ".ckpt":
        return ""
    load = f"torch.load({str(path)!r}, weights_only=False)['state_dict']"
    code = f"import torch; torch.save({load}, {path.stem + '.pth'!r})"
    return f"; if you trust whoever made it, save them with: python -c {shlex.quote(code)}"


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """Find the state dict in a .pth file, which can also be one entry of a training checkpoint's dict."""
    if _is_state_dict(content):
        return dict(content)
    if isinstance(content, Mapping):
        inner = {str(key): value for key, value in content.items() if _is_state_dict(value)}
        if len(inner) == 1:
            return dict(*inner.values())
        if inner:
            one, out = sorted(inner)[0], f"{path.stem}-one.pth"
            raise ValueError(
                f"{path} holds several state dicts, {sorted(inner)}; save the one to use by itself, e.g. "
                f"torch.save(torch.load({str(path)!r}, weights_only=True)[{one!r}], {out!r})"
            )
        what = f"a dict with the keys {[str(key)[:80] for key in content][:5]}"
    else:
        what = f"a {type(content).__name__}"
    raise ValueError(f"{path} holds {what}, expected a state dict: tensors by name")


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _read_onnx(path: Path, config: U2NetConfig | None) -> Checkpoint:
    config, tensors, maker = read_onnx(path, config)
    notes = {"format": "ONNX", "precision": _precision(tensors)}
    if maker:
        notes["made_by"] = printable_text(maker)
    return Checkpoint(config, _float32(path, tensors, config), notes)


def _float32(path: Path, tensors: Mapping[str, Tensor], config: U2NetConfig) -> dict[str, Tensor]:
    """Copy the tensors in official order as float32, and check their types and values."""
    state = {}
    for key in official_shapes(config):
        value = tensors[key] if key in tensors else torch.zeros(())  # only num_batches_tracked may be missing
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise ValueError(
                f"{path}: {key} is {value.dtype}, {value.layout}, expected floating point, strided"
            )
        if value.is_meta:
            raise ValueError(
                f"{path}: {key} has a shape and no values (device 'meta'); save it again from a network "
                "whose weights were loaded"
            )
        if key.endswith(TRACKED):
            state[key] = value.to(torch.int64, copy=True)
            continue
        if value.dtype not in _FLOATS:
            raise ValueError(
                f"{path}: {key} is {value.dtype}, expected float16, bfloat16, float32 or float64"
            )
        # Copy the values: the tensor may be a memory map of the file, and the file may change.
        state[key] = value.detach().to(torch.float32, copy=True).contiguous()
        if not state[key].isfinite().all():
            raise ValueError(
                f"{path}: {key} holds NaN or infinity; the file is damaged or its training diverged"
            )
        if key.endswith(".running_var") and not (state[key] + BN_EPS > 0).all():
            raise ValueError(
                f"{path}: {key} holds variances below 0, which make maps of NaN; the file is damaged"
            )
    return state


def _precision(tensors: Mapping[str, Tensor]) -> str:
    """Name the types of the weights, the most frequent first."""
    counts: Counter[str] = Counter()
    for key, value in tensors.items():
        if not key.endswith(TRACKED):
            counts[str(value.dtype).removeprefix("torch.")] += value.numel()
    return " and ".join(name for name, _ in counts.most_common())
