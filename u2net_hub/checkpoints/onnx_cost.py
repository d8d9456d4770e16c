"""What it would take to run an ONNX graph, known before it is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import U2NetConfig
from .onnx_files import load_onnx
from .topology import Conv, walk

if TYPE_CHECKING:
    import onnx

MOST_PIXELS = 2_100_000
"""The most pixels of a batch that a graph is run on, about 1450 × 1450."""
_ALLOWANCE = 4
"""A graph may make so many times the numbers that the network itself makes."""

_Size = tuple[int, int, int]


def check_onnx_cost(
    model: onnx.ModelProto | None, path: Path, config: U2NetConfig, shape: Sequence[int] | None = None
) -> None:
    """Refuse a graph that makes far more numbers than its network has to. Nothing is run.

    Args:
        model: The graph. None reads it from `path`.
        path: The .onnx file.
        config: The config of the network.
        shape: The shape of the input. None is one photo of the config's size.

    Raises:
        ValueError: The graph is too costly, or its cost cannot be told.
        ImportError: onnx is not installed.
    """
    import onnx

    graph = deepcopy(load_onnx(path) if model is None else model)
    shape = shape or (1, config.in_channels, *config.input_size)
    constant = {tensor.name for tensor in graph.graph.initializer}
    for value in graph.graph.input:
        if value.name not in constant:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    del graph.graph.value_info[:]  # what the file says of its own sizes is not believed
    for value in graph.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as e:
        raise ValueError(f"{path} is no valid ONNX file: its sizes contradict each other") from e
    sizes = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }
    made = [(node.op_type, name) for node in graph.graph.node for name in node.output if name]
    unknown = [op for op, name in made if name not in sizes]
    if unknown:
        raise ValueError(
            f"{path} is not run, since the size of what its {unknown[0][:80]!r} makes cannot be told "
            "beforehand; use another file of these weights, e.g. .safetensors or .pth"
        )
    found = sum(sizes[name] for op, name in made if op != "Constant")
    expected = shape[0] * _count_values(config, shape[2], shape[3])
    if found > _ALLOWANCE * expected + graph.ByteSize():  # the file may copy its weights
        raise ValueError(
            f"{path} is not run: its graph makes {found:,} numbers for an input of {list(shape)}, where the "
            f"network makes {expected:,}; use another file of these weights, e.g. .safetensors or .pth"
        )


class _Counting:
    """The operations of the network on (channels, height, width); all values are counted."""

    def __init__(self) -> None:
        self.count = 0

    def _made(self, channels: int, height: int, width: int) -> _Size:
        self.count += channels * height * width
        return channels, height, width

    def conv(self, conv: Conv, x: _Size) -> _Size:
        return self._made(conv.out, *x[1:])

    def pool(self, x: _Size) -> _Size:
        return self._made(x[0], -(-x[1] // 2), -(-x[2] // 2))

    def resize_like(self, x: _Size, like: _Size) -> _Size:
        return self._made(x[0], *like[1:])

    def concat(self, *values: _Size) -> _Size:
        return self._made(sum(value[0] for value in values), *values[0][1:])

    def add(self, name: str, residual: _Size, x: _Size) -> _Size:
        return self._made(*x)


def _count_values(config: U2NetConfig, height: int, width: int) -> int:
    """Count the numbers that the network makes for one photo."""
    ops = _Counting()
    walk(config, ops, (config.in_channels, height, width))
    return ops.count
