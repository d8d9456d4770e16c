"""What an exported ONNX or OpenVINO file says of itself in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..config import U2NetConfig

if TYPE_CHECKING:
    pass


def metadata_config(metadata: Mapping[str, str], path: object) -> U2NetConfig | None:
    """The config in the metadata of a file that `build_graph` made; None if it is of another make.

    Raises:
        ValueError: what is there is no config.
    """
    if not {"config", "outputs"} <= metadata.keys():
        return None
    try:
        return U2NetConfig.from_dict(json.loads(metadata["config"]))
    except ValueError as e:
        raise ValueError(f"{path} holds a config that cannot be used: {e}") from e
