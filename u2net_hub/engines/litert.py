"""Run LiteRT files, and read what their metadata says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .litert_builder import SIGNATURE
from .phone_graph import PIXELS_NAME, import_for

Run: TypeAlias = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]
"""Maps the pixels of one photo, uint8 (height, width, C), to maps by name, each (out, height, width)."""

METADATA_NAME = "u2net_hub"


def open_litert(content: bytes, threads: int | None = None) -> Run:
    """Open a file that `build_litert` made in LiteRT's interpreter on the CPU.

    Args:
        content: The content of the file.
        threads: The number of threads. None lets LiteRT choose.

    Raises:
        ImportError: ai-edge-litert is not installed.
    """
    interpreter = import_for("litert", "ai_edge_litert.interpreter").Interpreter(
        model_content=content, num_threads=threads
    )
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        found = runner(**{PIXELS_NAME: pixels[None]})
        return {name: value[0].transpose(2, 0, 1) for name, value in found.items()}

    return run


def read_litert_metadata(content: bytes) -> dict[str, str]:
    """Read the metadata that this library wrote into a LiteRT file.

    Raises:
        ImportError: ai-edge-litert is not installed.
        ValueError: The file has no metadata of this library.
    """
    schema = import_for("litert", "ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for entry in model.metadata or []:
        if entry.name == METADATA_NAME.encode():
            read: dict[str, str] = json.loads(bytes(model.buffers[entry.buffer].data))
            return read
    raise ValueError("the LiteRT file has no metadata of u2net-hub; export the weights again")
