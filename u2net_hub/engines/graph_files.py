"""What the file of an exported graph says of itself, and the runtimes that read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import metadata_config
from ..config import U2NetConfig

if TYPE_CHECKING:
    pass


def config_inside(path: Path) -> U2NetConfig | None:
    """The config in the metadata of an .onnx file that `export` made; None if it is another one.

    Raises:
        ValueError: what is there is no config.
    """
    return metadata_config(read_metadata(path), path)


def read_metadata(path: Path) -> dict[str, str]:
    """What an .onnx file says of itself; nothing, if it cannot be read."""
    try:
        import onnx
    except ImportError:
        ort = import_runtime("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return dict(ort.InferenceSession(path, options).get_modelmeta().custom_metadata_map)
    from google.protobuf.message import DecodeError

    try:
        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except DecodeError:
        return {}  # the reader of weights says what is wrong with it


def import_runtime(package: str, extra: str) -> Any:
    """The package, or an ImportError that says how to install it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as e:
        raise ImportError(
            f"engine {package!r} needs {e.name}; install it with: pip install 'u2net-hub[{extra}]'"
        ) from e
