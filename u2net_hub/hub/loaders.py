"""The files in a repo that loaders of other libraries read; `engines` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

Loader: TypeAlias = Literal["onnxruntime", "transformers.js", "transformers", "endpoints"]
"""A library, or Inference Endpoints, that a repo can be laid out for. timm needs no files of its own."""

GRAPH_NAME = "onnx/model.onnx"
GRAPHS = (GRAPH_NAME, "onnx/model_fp16.onnx", "onnx/model_quantized.onnx")
"""Graphs with the weights inside: they are of no use beside other weights."""
PROCESSOR_NAME = "preprocessor_config.json"
NETWORK_NAME = "u2net_network.py"
MODELING_NAME = "modeling_u2net.py"
HANDLER_NAME = "handler.py"
REQUIREMENTS_NAME = "requirements.txt"

LOADER_FILES: Mapping[Loader, tuple[str, ...]] = {
    "onnxruntime": (GRAPH_NAME,),
    "transformers.js": (*GRAPHS, PROCESSOR_NAME),
    "transformers": (NETWORK_NAME, MODELING_NAME),
    "endpoints": (NETWORK_NAME, HANDLER_NAME, REQUIREMENTS_NAME),
}
"""The files that each loader needs beside config.json and model.safetensors."""


LAID_OUT = "u2net_hub.loaders"
"""The entry of config.json that lists the loaders whose files this library made."""


class ExtraFiles(NamedTuple):
    """What is pushed for other loaders."""

    files: Mapping[str, bytes]
    """The content of each file by its name in the repo."""
    config: Mapping[str, object]
    """Their entries in config.json."""


MakeExtra: TypeAlias = Callable[[Mapping[str, object]], ExtraFiles]
"""Makes the files for other loaders; it is given the entries of other libraries in config.json."""


def laid_out(entries: Mapping[str, object]) -> tuple[Loader, ...]:
    """Return the loaders whose files this library made, from the entries of config.json."""
    found = entries.get(LAID_OUT)
    return tuple(loader for loader in LOADER_FILES if isinstance(found, list) and loader in found)


def without_graphs(entries: Mapping[str, object]) -> dict[str, object]:
    """Remove from the entries of config.json the loaders that need a graph."""
    kept = [loader for loader in laid_out(entries) if GRAPH_NAME not in LOADER_FILES[loader]]
    return {**entries, LAID_OUT: kept}
