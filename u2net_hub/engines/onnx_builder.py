"""Build the network as an ONNX graph, in well under a second and without torch.

ONNX Runtime and OpenVINO both read the graph. Batch norm is folded into the convolutions, and the graph
includes the activation. Batch, height and width are free. The node of each convolution has its official name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..checkpoints import Conv, Folded, walk
from ..config import U2NetConfig

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


OPSET = 18
INPUT_NAME = "input"
OUTPUT_NAME = "saliency"
SMALLEST = 33
"""The smallest side in pixels for which an exported graph promises torch's maps; below it, some engines pool
differently."""

_IR_VERSION = 8  # ONNX Runtime reads it since version 1.12


def build_graph(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    *,
    side_outputs: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """Build the ONNX model of a network.

    The input is called "input": float32 (batch, channels, height, width), as `imaging.preprocess` makes it.
    The outputs are called "saliency" and, on request, "side1" …: float32 (batch, out, height, width) after
    the activation.

    Args:
        config: The config of the network. The metadata contains it in the form of config.json.
        convs: The folded convolutions by their official names, as `fold` returns them.
        side_outputs: Whether the model also has the side outputs.
        metadata: More entries for the metadata.

    Raises:
        ImportError: onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as e:
        raise ImportError(
            "building a graph needs onnx; install it with: pip install 'u2net-hub[onnx]'"
        ) from e

    graph = _GraphBuilder(convs)
    fused, sides = walk(config, graph, INPUT_NAME)
    names = output_names(config) if side_outputs else [OUTPUT_NAME]
    for name, logits in zip(names, (fused, *sides), strict=False):
        if config.activation == "softmax":
            graph.node("Softmax", logits, value=name, axis=1)
        else:
            graph.node("Sigmoid", logits, value=name)
    size: list[str | int | None] = ["batch", config.in_channels, "height", "width"]
    out_size: list[str | int | None] = ["batch", config.out_channels, "height", "width"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            config.variant,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, size)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, out_size) for name in names],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="u2net-hub",
    )
    described = {
        "config": config.to_json(),
        "preprocessing": _preprocessing(config),
        "outputs": json.dumps(names),
        "smallest_size": f"{SMALLEST} x {SMALLEST} px",
    }
    helper.set_model_props(model, described | dict(metadata or {}))
    return model


def _preprocessing(config: U2NetConfig) -> str:
    """Describe the preprocessing in words, for people who have only the exported file."""
    height, width = config.input_size
    divisor = "the maximum of the image" if config.scale == "image_max" else "255"
    return (
        f"RGB, resized to {height} x {width} px ({config.interpolation}), divided by {divisor}, minus mean "
        f"{list(config.mean)}, divided by std {list(config.std)}; float32, (batch, channels, height, width)"
    )


def output_names(config: U2NetConfig) -> list[str]:
    """List the names of all outputs: the fused map first, then the side outputs from fine to coarse."""
    return [OUTPUT_NAME, *(f"side{i}" for i in range(1, (len(config.table) + 1) // 2 + 1))]


class _GraphBuilder:
    """The operations of the network for `walk`: each adds nodes and returns the name of its ONNX value."""

    def __init__(self, convs: Mapping[str, Folded]) -> None:
        from onnx import helper, numpy_helper

        self._make_node, self._make_tensor = helper.make_node, numpy_helper.from_array
        self.convs = convs
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def node(
        self, op: str, *inputs: str, name: str | None = None, value: str | None = None, **attributes: Any
    ) -> str:
        """Add a node and return the name of its output value."""
        name = name or f"{op}_{len(self.nodes)}"
        value = value or f"{name}.out"
        self.nodes.append(self._make_node(op, [*inputs], [value], name=name, **attributes))
        return value

    def conv(self, conv: Conv, x: str) -> str:
        name = conv.name
        weight, bias = self.convs[name]
        self.tensors.append(self._make_tensor(weight, f"{name}.weight"))
        self.tensors.append(self._make_tensor(bias, f"{name}.bias"))
        value = self.node(
            "Conv",
            *(x, f"{name}.weight", f"{name}.bias"),
            name=name,
            kernel_shape=weight.shape[2:],
            pads=[conv.dilation * (conv.kernel // 2)] * 4,
            dilations=[conv.dilation] * 2,
        )
        return self.node("Relu", value, name=f"{name}.relu") if conv.normed else value

    def pool(self, x: str) -> str:
        return self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def resize_like(self, x: str, like: str) -> str:
        """Resize bilinearly to the height and width of another value."""
        batch = self.node("Shape", x, start=0, end=2)
        size = self.node("Concat", batch, self.node("Shape", like, start=2, end=4), axis=0)
        # "half_pixel" is align_corners=False in torch
        return self.node(
            "Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel"
        )

    def concat(self, *values: str) -> str:
        return self.node("Concat", *values, axis=1)

    def add(self, name: str, residual: str, x: str) -> str:
        return self.node("Add", residual, x, name=name)
