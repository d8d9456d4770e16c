"""What the files for phones have in common: their input, the types of their weights, and their metadata."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import U2NetConfig
from .onnx_builder import WeightType as WeightType

PIXELS_NAME = "image"
"""The name of the input, which holds the pixels of a photo that was resized to the size of the input."""


def import_for(format: Literal["litert", "coreml"], name: str) -> Any:
    """Import a module that a format needs; the ImportError for a missing one says how to install it."""
    try:
        return import_module(name)
    except ImportError as e:
        raise ImportError(
            f"format {format!r} needs {e.name}; install it with: pip install 'u2net-hub[{format}]'"
        ) from e


def fits_float16(array: NDArray[np.float32], *, exactly: bool = False) -> bool:
    """Tell whether float16 holds all values, or with `exactly` whether it holds them without rounding."""
    rounded = round_float16(array)
    return bool((rounded == array).all() if exactly else np.isfinite(rounded).all())


def round_float16(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to float16 and back; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


def describe(config: U2NetConfig, weights: WeightType, weights_sha256: str | None) -> dict[str, str]:
    """Make the metadata of a file for phones.

    Args:
        config: The config of the network.
        weights: The type of the weights in the file.
        weights_sha256: The SHA-256 of the weights that the file was made from, if they came from a file.
    """
    height, width = config.input_size
    divisor = "its maximum" if config.scale == "image_max" else "255"
    colours = "RGB" if config.in_channels == 3 else "grey"
    said = {
        "config": config.to_json(),
        "preprocessing": (
            f"{colours} pixels from 0 to 255, resized to {height} x {width} px ({config.interpolation}, "
            f"antialiased, without keeping the aspect); the file itself divides them by {divisor}, subtracts "
            f"mean {list(config.mean)} and divides by std {list(config.std)}"
        ),
        "weights": weights,
    }
    if config.invert:
        said["postprocessing"] = "the saliency is 1 minus the output"
    if config.labels is not None:
        said["labels"] = json.dumps(config.labels)
    if weights_sha256 is not None:
        said["weights_sha256"] = weights_sha256
    return said
