"""The network as an ONNX graph, built straight from its table: in well under a second, and without torch.

ONNX Runtime and OpenVINO both read it. Batch norm is folded into the convolutions, the activation is inside,
batch, height and width are free. Each convolution's node has the convolution's official name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..checkpoints import Folded
from ..config import Stage, U2NetConfig

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


OPSET = 18
INPUT_NAME = "input"
OUTPUT_NAME = "saliency"
SMALLEST = 33
"""Side in pixels from which an exported graph is held to torch; below it some engines pool differently."""

_IR_VERSION = 8  # what ONNX Runtime reads since 1.12


def build_graph(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    *,
    side_outputs: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """The ONNX model of a network.

    Its input is "input", float32 (batch, channels, height, width), as `image.preprocess` makes it; its
    outputs are "saliency" and, on request, "side1" …, each float32 (batch, out, height, width) after the
    activation.

    Args:
        config: of the network; it goes into the metadata, as config.json.
        convs: as `fold` gives them.
        side_outputs: the six side outputs too.
        metadata: more entries for the metadata.

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
    fused, sides = graph.network(config)
    names = output_names(config) if side_outputs else [OUTPUT_NAME]
    for name, logits in zip(names, (fused, *sides), strict=False):
        if config.activation == "softmax":
            graph.add("Softmax", logits, value=name, axis=1)
        else:
            graph.add("Sigmoid", logits, value=name)
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
    """What the config says of it, in words for people who hold nothing but the file."""
    height, width = config.input_size
    divisor = "the maximum of the image" if config.scale == "image_max" else "255"
    return (
        f"RGB, resized to {height} x {width} px ({config.interpolation}), divided by {divisor}, minus mean "
        f"{list(config.mean)}, divided by std {list(config.std)}; float32, (batch, channels, height, width)"
    )


def output_names(config: U2NetConfig) -> list[str]:
    """Names of all outputs: fused, then the sides, fine to coarse."""
    return [OUTPUT_NAME, *(f"side{i}" for i in range(1, (len(config.table) + 1) // 2 + 1))]


class _GraphBuilder:
    """Nodes and tensors as they come."""

    def __init__(self, convs: Mapping[str, Folded]) -> None:
        from onnx import helper, numpy_helper

        self._make_node, self._make_tensor = helper.make_node, numpy_helper.from_array
        self.convs = convs
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def add(
        self, op: str, *inputs: str, name: str | None = None, value: str | None = None, **attributes: Any
    ) -> str:
        """Add a node; returns the name of the value that it makes."""
        name = name or f"{op}_{len(self.nodes)}"
        value = value or f"{name}.out"
        self.nodes.append(self._make_node(op, [*inputs], [value], name=name, **attributes))
        return value

    def conv(self, name: str, x: str, dilation: int = 1) -> str:
        weight, bias = self.convs[name]
        self.tensors.append(self._make_tensor(weight, f"{name}.weight"))
        self.tensors.append(self._make_tensor(bias, f"{name}.bias"))
        padding = dilation * (weight.shape[2] // 2)
        return self.add(
            "Conv",
            *(x, f"{name}.weight", f"{name}.bias"),
            name=name,
            kernel_shape=weight.shape[2:],
            pads=[padding] * 4,
            dilations=[dilation] * 2,
        )

    def block(self, name: str, x: str, dilation: int = 1) -> str:
        return self.add("Relu", self.conv(name, x, dilation), name=f"{name}.relu")

    def pool(self, x: str) -> str:
        return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def resize_like(self, x: str, like: str) -> str:
        """Bilinear to the height and width of another value."""
        batch = self.add("Shape", x, start=0, end=2)
        size = self.add("Concat", batch, self.add("Shape", like, start=2, end=4), axis=0)
        # corners are not aligned
        return self.add("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")

    def concat(self, *values: str) -> str:
        return self.add("Concat", *values, axis=1)

    def rsu(self, x: str, stage: Stage) -> str:
        """A residual U-block, as `model.RSU` has it."""
        name, L, dilated = stage.name, stage.L, stage.dilated
        x = residual = self.block(f"{name}.rebnconvin", x)
        skips = []
        for i in range(1, L + 1):
            if not dilated and 1 < i < L:
                x = self.pool(x)
            x = self.block(f"{name}.rebnconv{i}", x, 2 ** (i - 1) if dilated else 2 if i == L else 1)
            skips.append(x)
        x = skips.pop()
        for i in reversed(range(1, L)):
            skip = skips.pop()
            if not dilated and i < L - 1:
                x = self.resize_like(x, skip)
            x = self.block(f"{name}.rebnconv{i}d", self.concat(x, skip), 2 ** (i - 1) if dilated else 1)
        return self.add("Add", residual, x, name=name)

    def network(self, config: U2NetConfig) -> tuple[str, list[str]]:
        """The logits: fused, and of each side."""
        depth = (len(config.table) + 1) // 2
        x, outputs = INPUT_NAME, []
        for i, stage in enumerate(config.table[:depth]):
            x = self.rsu(self.pool(x) if i else x, stage)
            outputs.append(x)
        skips, outputs = outputs[:-1], [x]
        for stage in config.table[depth:]:
            skip = skips.pop()
            x = self.rsu(self.concat(self.resize_like(x, skip), skip), stage)
            outputs.append(x)
        top, *below = [self.conv(f"side{i}", y) for i, y in enumerate(reversed(outputs), start=1)]
        sides = [top, *[self.resize_like(side, top) for side in below]]
        return self.conv("outconv", self.concat(*sides)), sides
