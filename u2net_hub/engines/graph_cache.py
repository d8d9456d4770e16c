"""Graphs built from weights, kept in the user's cache folder under the weights' SHA-256."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..atomic import content_hash, write_files
from ..checkpoints import check_shapes, fold, metadata_config, onnx_bytes
from ..config import U2NetConfig
from ..hub import Source
from .graph_files import outputs_inside, read_metadata
from .onnx_builder import SMALLEST, build_graph, output_names
from .precision import float32_state, sensitive_convolutions
from .protocol import Engine

if TYPE_CHECKING:
    from ..model import U2Net


logger = logging.getLogger(__name__)


Float32 = NDArray[np.float32]
KEPT = 4
"""The number of input sizes that an engine keeps compiled."""


def cache_folder() -> Path:
    """Return the folder for built graphs: U2NET_CACHE if it is set, else a folder in the user's cache."""
    if os.environ.get("U2NET_CACHE"):
        return Path(os.environ["U2NET_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "u2net-hub"


class _KeptGraph(NamedTuple):
    """A graph that a runtime can open."""

    config: U2NetConfig
    content: bytes
    """The content of an ONNX file."""
    outputs: list[str]
    """The names of the outputs, the fused map first."""
    path: Path | None
    """The file that `export` made; None if the graph was built from weights."""


def kept_graph(source: U2Net | Source) -> _KeptGraph:
    """Return the graph of a network with all its outputs.

    A graph that is built from a file of weights is kept in the cache folder for the next time.
    """
    if not isinstance(source, Source):
        built = _build(source.config, float32_state(source))
        return _KeptGraph(source.config, built, output_names(source.config), None)
    if source.format == "onnx":
        metadata = read_metadata(source.weights_path)
        if (inside := metadata_config(metadata, source.weights_path)) is not None:
            path = source.weights_path
            return _KeptGraph(inside, onnx_bytes(path), outputs_inside(metadata, path), path)
    config, read = _tensors(source)
    identity = f"{source.sha256} {config.to_json()} {__version__}"
    kept = cache_folder() / f"{content_hash(identity.encode())}.onnx"
    graph = _read_kept(kept)
    if graph is None:
        graph = _build(config, read())
        try:
            write_files(kept.parent, {kept.name: graph, f"{kept.name}.sha256": content_hash(graph).encode()})
        except OSError as e:
            logger.info("the graph could not be kept for the next time: %s", e)
    return _KeptGraph(config, graph, output_names(config), None)


def _build(config: U2NetConfig, state: dict[str, NDArray[Any]]) -> bytes:
    convs = fold(config, state)
    kept = {"float32": json.dumps(sensitive_convolutions(convs))}
    built: bytes = build_graph(config, convs, side_outputs=True, metadata=kept).SerializeToString()
    return built


def _tensors(source: Source) -> tuple[U2NetConfig, Callable[[], dict[str, NDArray[Any]]]]:
    """Return a weights file's config and a function that reads its tensors, without torch if possible."""
    from safetensors import SafetensorError, safe_open

    if source.format == "safetensors":
        try:
            with safe_open(source.weights_path, "np") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
                types = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            if types <= {"F16", "F32", "F64", "I64"}:  # NumPy has no bfloat16
                from safetensors.numpy import load_file

                config = check_shapes(source.weights_path, shapes, source.config())
                return config, lambda: load_file(source.weights_path)
        except (SafetensorError, ValueError):
            pass  # the reader below reports the damage
    from ..hub import load_network
    from ..model import U2Net

    network = load_network(U2Net, source)
    return network.config, lambda: {key: value.numpy() for key, value in network.state_dict().items()}


def _read_kept(path: Path) -> bytes | None:
    """Read a kept graph; None if it is missing or differs from what was written."""
    try:
        graph = path.read_bytes()
        said = path.with_name(f"{path.name}.sha256").read_bytes()
    except OSError:
        return None
    return graph if said == content_hash(graph).encode() else None


def choose_outputs(names: list[str], side_outputs: bool) -> list[str]:
    """Return the names of the outputs to compute: all of a graph's outputs, or only the first one."""
    if not side_outputs:
        return names[:1]
    if len(names) == 1:
        raise ValueError("this file was exported without side outputs; export it again with --all-outputs")
    return names


def check_size(engine: Engine) -> None:
    """Raise a ValueError if the network's input is too small for a graph."""
    if min(engine.config.input_size) < SMALLEST:
        height, width = engine.config.input_size
        raise ValueError(
            f"the network's input is {height} × {width} px, engine {engine.name!r} needs at least "
            f"{SMALLEST} × {SMALLEST}; use engine 'torch'"
        )
