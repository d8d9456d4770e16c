"""The config in the metadata of an exported ONNX or OpenVINO file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..config import U2NetConfig
from .onnx_files import parse_onnx

PHOTO_CONFIG = "photo_config"
"""The entry of the config in files that hold more than the network."""


def read_onnx_config(path: Path) -> U2NetConfig | None:
    """Read the config from an .onnx file that `export` made; None if another program made the file.

    Raises:
        ValueError: The file is damaged, or its config is not valid.
        ImportError: onnx is not installed.
    """
    return metadata_config({entry.key: entry.value for entry in parse_onnx(path).metadata_props}, path)


def metadata_config(metadata: Mapping[str, str], path: object) -> U2NetConfig | None:
    """Read the config from an exported file's metadata; None if another program made the file.

    Args:
        metadata: The entries of the file's metadata.
        path: The file, for messages.

    Raises:
        ValueError: The entry "config" is not a valid config, or the file takes photos.
    """
    if PHOTO_CONFIG in metadata:
        raise ValueError(
            f"{path} does its own preprocessing or postprocessing, for programs without this library; give "
            "the weights that it was exported from, or export them without --with-preprocessing"
        )
    if not {"config", "outputs"} <= metadata.keys():
        return None
    try:
        return U2NetConfig.from_dict(json.loads(metadata["config"]))
    except ValueError as e:
        raise ValueError(f"{path} holds a config that is not valid: {e}") from e
