"""Read the metadata of exported files, import the runtimes that open them, and explain their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints import metadata_config
from ..config import U2NetConfig
from ..hub import Source

INT8_NAME = "int8.xml.gz"
"""The calibrated graph beside each bundled model, for OpenVINO; its weights are in int8.bin."""


def config_inside(path: Path) -> U2NetConfig | None:
    """Read the config from an .onnx file that `export` made; None for any other file.

    Raises:
        ValueError: The metadata has an entry for the config, but the entry is no valid config.
    """
    return metadata_config(read_metadata(path), path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of an .onnx file; the result is an empty dict if onnx cannot parse the file.

    Raises:
        ValueError: onnx is not installed, and ONNX Runtime cannot open the file.
    """
    try:
        import onnx
    except ImportError:
        ort = import_runtime("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            return dict(ort.InferenceSession(path, options).get_modelmeta().custom_metadata_map)
        except onnxruntime_errors() as e:
            raise refused_graph(path, "ONNX Runtime", e) from e
    from google.protobuf.message import DecodeError

    try:
        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except DecodeError:
        return {}  # the reader of checkpoints reports the damage


def calibrated_graph(source: Source) -> Path | None:
    """Find the packed int8 graph that lies beside bundled weights; None for any other source."""
    packed = source.weights_path.with_name(INT8_NAME)
    return packed if source.kind == "bundled" and packed.is_file() else None


def outputs_inside(metadata: Mapping[str, str], path: Path) -> list[str]:
    """Read the names of a graph's outputs from its metadata.

    Raises:
        ValueError: The metadata does not list them.
    """
    try:
        outputs = json.loads(metadata.get("outputs", ""))
    except json.JSONDecodeError:
        outputs = None
    if not isinstance(outputs, list) or not outputs or not all(isinstance(name, str) for name in outputs):
        raise ValueError(
            f"{path} has a config but no list of outputs in its metadata; export the weights again: "
            f"u2net export --model SOURCE --out {path.name}"
        )
    return outputs


def import_runtime(package: str, extra: str) -> Any:
    """Import a package; the ImportError for a missing one says how to install it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as e:
        raise ImportError(
            f"engine {package!r} needs {e.name}; install it with: pip install 'u2net-hub[{extra}]'"
        ) from e


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime, which share no base class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(
        found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception)
    )


def refused_graph(path: Path | None, runtime: str, error: Exception) -> ValueError | RuntimeError:
    """Make the exception to raise when a runtime cannot open a graph.

    Args:
        path: The exported file; None if the graph was built from weights, which is no fault of the user.
        runtime: The name of the runtime, for the message.
        error: The runtime's own exception.
    """
    if path is None:
        return RuntimeError(
            f"{runtime} cannot run the graph that was built from these weights: {one_line(error)}; "
            f"update {runtime} or use engine='torch'"
        )
    return ValueError(
        f"{path} cannot be run by {runtime}: {one_line(error)}; export the weights again: "
        f"u2net export --model SOURCE --out {path.name}"
    )


def one_line(error: Exception, longest: int = 300) -> str:
    """Shorten the message of an exception to one line of limited length."""
    text = " ".join(str(error).split())
    return text if len(text) <= longest else f"{text[:longest]}…"
