"""Build the network as an ONNX graph, in well under a second and without torch.

ONNX Runtime and OpenVINO both read the graph. Batch norm is folded into the convolutions, and the graph
includes the activation. Batch, height and width are free. The node of each convolution has its official name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Conv, Folded, walk
from ..config import U2NetConfig
from .precision import sensitive_convolutions

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


OPSET = 18
INPUT_NAME = "input"
OUTPUT_NAME = "saliency"
SMALLEST = 33
"""The smallest side in pixels for which an exported graph promises torch's maps; below it, some engines pool
differently."""

WeightType: TypeAlias = Literal["float32", "float16", "int8"]
"""The type in which a file stores the weights of the convolutions."""
_FLOAT16_MAX = 65504.0

_IR_VERSION = 8  # ONNX Runtime reads it since version 1.12


def build_graph(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    *,
    side_outputs: bool = False,
    weights: WeightType = "float32",
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
        weights: The type in which the weights are stored; the network calculates in float32.
        metadata: More entries for the metadata.

    Raises:
        ImportError: onnx is not installed.
    """
    graph = GraphBuilder(convs, weights)
    fused, sides = walk(config, graph, INPUT_NAME)
    names = output_names(config) if side_outputs else [OUTPUT_NAME]
    for name, logits in zip(names, (fused, *sides), strict=False):
        graph.activate(config, logits, value=name)
    described = {
        "config": config.to_json(),
        "preprocessing": _preprocessing(config),
        "outputs": json.dumps(names),
        "smallest_size": f"{SMALLEST} x {SMALLEST} px",
    }
    return make_model(
        config.variant,
        graph,
        [(INPUT_NAME, "float32", ["batch", config.in_channels, "height", "width"])],
        [(name, "float32", ["batch", config.out_channels, "height", "width"]) for name in names],
        described | dict(metadata or {}),
    )


Value: TypeAlias = tuple[str, str, Sequence[int | str]]
"""The name, the type and the shape of an input or output of a graph."""


def make_model(
    name: str,
    graph: GraphBuilder,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    metadata: Mapping[str, str],
) -> ModelProto:
    """Make an ONNX model of the nodes in a builder."""
    helper = import_onnx().helper

    def describe(values: Sequence[Value]) -> list[Any]:
        return [helper.make_tensor_value_info(each, _onnx_type(kind), shape) for each, kind, shape in values]

    model: ModelProto = helper.make_model(
        helper.make_graph(graph.nodes, name, describe(inputs), describe(outputs), graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="u2net-hub",
    )
    helper.set_model_props(model, dict(metadata))
    return model


def import_onnx() -> Any:
    """Import onnx; the ImportError for a missing one says how to install it."""
    try:
        import onnx
    except ImportError as e:
        raise ImportError(
            "building a graph needs onnx; install it with: pip install 'u2net-hub[onnx]'"
        ) from e
    return onnx


def _onnx_type(name: str) -> int:
    return int(import_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(name)))


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


class GraphBuilder:
    """The operations of the network for `walk`: each adds nodes and returns the name of its ONNX value.

    Args:
        convs: The folded convolutions by their official names.
        weights: The type in which their weights are stored. "float16" and "int8" are converted to float32
            when they are used. int8 has a scale for each output channel, and convolutions with a large bias
            have float16 weights instead: in int8 their errors ruin the maps.

    Raises:
        ImportError: onnx is not installed.
    """

    def __init__(self, convs: Mapping[str, Folded], weights: WeightType = "float32") -> None:
        onnx = import_onnx()
        self._make_node, self._make_tensor = onnx.helper.make_node, onnx.numpy_helper.from_array
        self.convs = convs
        self.weights = weights
        self._spared = set(sensitive_convolutions(convs) if weights == "int8" else ())
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
        self._store_weight(conv.name, weight)
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
        return self.resize(x, size, mode="linear")

    def resize(self, x: str, size: str, **attributes: Any) -> str:
        """Resize to the whole shape in `size`."""
        # "half_pixel" is align_corners=False in torch
        return self.node("Resize", x, "", "", size, coordinate_transformation_mode="half_pixel", **attributes)

    def concat(self, *values: str) -> str:
        return self.node("Concat", *values, axis=1)

    def add(self, name: str, residual: str, x: str) -> str:
        return self.node("Add", residual, x, name=name)

    def activate(self, config: U2NetConfig, logits: str, value: str | None = None) -> str:
        """Apply the sigmoid or softmax of the network."""
        if config.activation == "softmax":
            return self.node("Softmax", logits, value=value, axis=1)
        return self.node("Sigmoid", logits, value=value)

    def constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.tensors)}"
        self.tensors.append(self._make_tensor(array, name))
        return name

    def scalar(self, number: float) -> str:
        return self.constant(np.array(number, np.float32))

    def cast(self, x: str, kind: str) -> str:
        return self.node("Cast", x, to=_onnx_type(kind))

    def reduce(self, op: str, x: str) -> str:
        """Reduce all but the first axis, and keep the number of axes."""
        return self.node(op, x, self.constant(np.array([1, 2, 3], np.int64)), keepdims=1)

    def _store_weight(self, conv: str, weight: NDArray[np.float32]) -> None:
        """Store the weight of a convolution; what float16 cannot hold stays float32."""
        name = f"{conv}.weight"
        largest = np.abs(weight).max((1, 2, 3))
        if self.weights == "float32" or largest.max() > _FLOAT16_MAX:
            self.tensors.append(self._make_tensor(weight, name))
        elif self.weights == "float16" or conv in self._spared:
            self.tensors.append(self._make_tensor(weight.astype(np.float16), f"{name}.float16"))
            self.node("Cast", f"{name}.float16", value=name, to=_onnx_type("float32"))
        else:
            scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
            levels = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
            self.tensors.append(self._make_tensor(levels, f"{name}.int8"))
            self.tensors.append(self._make_tensor(scale, f"{name}.scale"))
            self.node("DequantizeLinear", f"{name}.int8", f"{name}.scale", value=name, axis=0)
