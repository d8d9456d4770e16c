"""Build the network as a LiteRT (TensorFlow Lite) model, in about a second, without torch or TensorFlow.

The model has a fixed size. It takes the pixels of a resized photo, and the scaling and the activation are
inside it. Batch norm is folded into the convolutions. Values are stored as (batch, height, width, channels),
as LiteRT has them. The output tensor of each convolution has the convolution's official name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Conv, Folded, walk
from ..config import U2NetConfig
from .onnx_builder import output_names
from .phone_graph import PIXELS_NAME, WeightType, fits_float16, import_for
from .precision import sensitive_convolutions

SIGNATURE = "serving_default"
"""The name of the model's only function, the usual one."""

_SCHEMA = "ai_edge_litert.schema_py_generated"
_VERSION = 3  # of the file format; the only one in use
# The oldest version of each operator that has what is used here; 1 where none is named
_OPERATOR_VERSIONS = {"RESIZE_BILINEAR": 3, "DEQUANTIZE": 3}  # half-pixel centres; float16
_INT8_CONV_VERSION = 5  # float32 activations, int8 weights with a scale for each output channel


def build_litert(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    *,
    weights: WeightType = "float32",
    side_outputs: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> tuple[bytes, dict[str, WeightType]]:
    """Build the LiteRT model of a network.

    The input is called "image": uint8 (1, height, width, channels), a photo that was resized to the input
    size of the config. The outputs are called "saliency" and, on request, "side1" …: float32
    (1, height, width, out) after the activation.

    Args:
        config: The config of the network.
        convs: The folded convolutions by their official names, as `fold` returns them.
        weights: The type of the weights. float16 ones become float32 when the file is loaded. int8 ones also
            calculate in int8, with activations that are quantised for each photo (dynamic range). Weights
            that it would damage are excepted: with "float16" those of sensitive convolutions, with "int8"
            also those of convolutions that read their large values, and those of the side outputs and the
            fusion. Biases are always float32.
        side_outputs: Whether the model also has the side outputs.
        metadata: Entries for the metadata of the file.

    Returns:
        The content of the file, and the type of the weights of each convolution.

    Raises:
        ImportError: ai-edge-litert is not installed.
    """
    height, width = config.input_size
    graph = _GraphBuilder(convs, weights)
    pixels = graph.tensor(PIXELS_NAME, (1, height, width, config.in_channels), "UINT8")
    fused, sides = walk(config, graph, _scale(graph, config, pixels))
    names = output_names(config) if side_outputs else output_names(config)[:1]
    outputs = [
        graph.node("SOFTMAX", [x], graph.shapes[x], name=name, options=("SoftmaxOptions", {"beta": 1.0}))
        if config.activation == "softmax"
        else graph.node("LOGISTIC", [x], graph.shapes[x], name=name)
        for name, x in zip(names, (fused, *sides), strict=False)
    ]
    return graph.pack([pixels], outputs, metadata or {}), graph.types


def _scale(graph: _GraphBuilder, config: U2NetConfig, pixels: int) -> int:
    """Divide by the maximum or by 255, subtract the mean and divide by std, as `imaging.preprocess` does."""
    x = graph.node("CAST", [pixels], graph.shapes[pixels], options=("CastOptions", _CAST))
    top = graph.constant(np.array(255, np.float32))
    if config.scale == "image_max":
        axes = graph.constant(np.array([1, 2, 3], np.int32))
        top = graph.node(
            "REDUCE_MAX", [x, axes], (1, 1, 1, 1), options=("ReducerOptions", {"keepDims": True})
        )
        # a black image is divided by 1
        one = graph.constant(np.array(1, np.float32))
        top = graph.node("MAXIMUM", [top, one], (1, 1, 1, 1), options=("MaximumMinimumOptions", {}))
    mean, std = (graph.constant(np.array(values, np.float32)) for values in (config.mean, config.std))
    shape = graph.shapes[x]
    x = graph.node("DIV", [x, top], shape, options=("DivOptions", {}))
    x = graph.node("SUB", [x, mean], shape, options=("SubOptions", {}))
    return graph.node("DIV", [x, std], shape, name="normalised", options=("DivOptions", {}))


_CAST = {"inDataType": 3, "outDataType": 0}  # UINT8, FLOAT32
_TENSOR_TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8"}

Shape: TypeAlias = tuple[int, ...]


class _GraphBuilder:
    """The operations of the network for `walk`: each adds operators and returns the index of its tensor."""

    def __init__(self, convs: Mapping[str, Folded], weights: WeightType) -> None:
        self.schema = import_for("litert", _SCHEMA)
        self.convs = convs
        self.weights = weights
        self.shapes: list[Shape] = []
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.opcodes: list[tuple[str, int]] = []
        self.buffers: list[Any] = [self.schema.BufferT()]  # tensors that are calculated share the empty one
        self.sensitive = {*sensitive_convolutions(convs)}
        self.types: dict[str, WeightType] = {}
        self.large: set[int] = set()  # the tensors that hold channels from sensitive convolutions

    def tensor(self, name: str, shape: Shape, kind: str = "FLOAT32", buffer: int = 0) -> int:
        """Add a tensor and return its index."""
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name, [*shape], buffer
        made.type = getattr(self.schema.TensorType, kind)
        self.tensors.append(made)
        self.shapes.append(shape)
        return len(self.tensors) - 1

    def constant(self, array: NDArray[Any], name: str | None = None) -> int:
        """Add a constant and return the index of its tensor."""
        name = name or f"constant_{len(self.tensors)}"
        return self.tensor(name, array.shape, _TENSOR_TYPES[array.dtype.name], self.buffer(array.tobytes()))

    def buffer(self, content: bytes) -> int:
        made = self.schema.BufferT()
        made.data = np.frombuffer(content, np.uint8)
        self.buffers.append(made)
        return len(self.buffers) - 1

    def node(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Shape,
        *,
        name: str | None = None,
        options: tuple[str, Mapping[str, Any]] | None = None,
        version: int | None = None,
    ) -> int:
        """Add an operator and return the index of its output tensor."""
        made = self.schema.OperatorT()
        opcode = op, version or _OPERATOR_VERSIONS.get(op, 1)
        if opcode not in self.opcodes:
            self.opcodes.append(opcode)
        made.opcodeIndex = self.opcodes.index(opcode)
        output = self.tensor(name or f"{op.lower()}_{len(self.operators)}", shape)
        made.inputs, made.outputs = [*inputs], [output]
        if options is not None:
            kind, values = options
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(self.schema, f"{kind}T")(**values)
        self.operators.append(made)
        if op != "CONV_2D" and self.large & {*inputs}:
            self.large.add(output)
        return output

    def conv(self, conv: Conv, x: int) -> int:
        kind = self.types[conv.name] = self._weight_type(conv, x)
        filters = self._filters(conv, kind)
        bias = self.constant(self.convs[conv.name].bias, f"{conv.name}.bias")
        functions = self.schema.ActivationFunctionType
        options = {
            "padding": self.schema.Padding.SAME,
            "strideW": 1,
            "strideH": 1,
            "fusedActivationFunction": functions.RELU if conv.normed else functions.NONE,
            "dilationWFactor": conv.dilation,
            "dilationHFactor": conv.dilation,
        }
        output = self.node(
            "CONV_2D",
            [x, filters, bias],
            (*self.shapes[x][:3], conv.out),
            name=conv.name,
            options=("Conv2DOptions", options),
            version=_INT8_CONV_VERSION if kind == "int8" else None,
        )
        if conv.name in self.sensitive:
            self.large.add(output)
        return output

    def _weight_type(self, conv: Conv, x: int) -> WeightType:
        """Choose the type of a convolution's weights; `x` is its input."""
        weight = self.convs[conv.name].weight
        if self.weights == "int8" and not (conv.name in self.sensitive or x in self.large or not conv.normed):
            return "int8"
        if self.weights == "float32" or not fits_float16(weight, exactly=conv.name in self.sensitive):
            return "float32"
        return "float16"

    def _filters(self, conv: Conv, kind: WeightType) -> int:
        """Store the weights of a convolution as (out, height, width, in); returns the index of the tensor."""
        weight, name = self.convs[conv.name].weight.transpose(0, 2, 3, 1), f"{conv.name}.weight"
        if kind == "float32":
            return self.constant(weight, name)
        if kind == "float16":
            half = self.constant(weight.astype(np.float16), f"{name}.float16")
            return self.node("DEQUANTIZE", [half], weight.shape, name=name)
        scale = np.abs(weight).max((1, 2, 3)) / np.float32(127)
        scale[scale == 0] = 1
        filters = self.constant(np.rint(weight / scale[:, None, None, None]).astype(np.int8), name)
        quantization = self.schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = [*map(float, scale)], [0] * conv.out
        self.tensors[filters].quantization = quantization
        return filters

    def pool(self, x: int) -> int:
        n, height, width, channels = self.shapes[x]
        # SAME rounds half of an odd size up, and what it adds at the border is never the maximum
        options = {"padding": self.schema.Padding.SAME} | dict.fromkeys(
            ("strideW", "strideH", "filterWidth", "filterHeight"), 2
        )
        shape = (n, -(-height // 2), -(-width // 2), channels)
        return self.node("MAX_POOL_2D", [x], shape, options=("Pool2DOptions", options))

    def resize_like(self, x: int, like: int) -> int:
        n, _, _, channels = self.shapes[x]
        _, height, width, _ = self.shapes[like]
        size = self.constant(np.array([height, width], np.int32))
        # half-pixel centres are align_corners=False in torch
        options = ("ResizeBilinearOptions", {"alignCorners": False, "halfPixelCenters": True})
        return self.node("RESIZE_BILINEAR", [x, size], (n, height, width, channels), options=options)

    def concat(self, *values: int) -> int:
        channels = sum(self.shapes[value][3] for value in values)
        shape = (*self.shapes[values[0]][:3], channels)
        return self.node("CONCATENATION", values, shape, options=("ConcatenationOptions", {"axis": 3}))

    def add(self, name: str, residual: int, x: int) -> int:
        return self.node("ADD", [residual, x], self.shapes[x], name=name, options=("AddOptions", {}))

    def pack(self, inputs: Sequence[int], outputs: Sequence[int], metadata: Mapping[str, str]) -> bytes:
        """Return the bytes of a file with one function, which has the given inputs and outputs."""
        import flatbuffers

        schema = self.schema
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self.tensors, self.operators
        graph.inputs, graph.outputs = [*inputs], [*outputs]
        model = schema.ModelT()
        model.version, model.description = _VERSION, "u2net-hub"
        model.subgraphs = [graph]
        model.operatorCodes = [self._opcode(op, version) for op, version in self.opcodes]
        model.signatureDefs = [self._signature(inputs, outputs)]
        model.metadata = []
        for name, text in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, self.buffer(text.encode())
            model.metadata.append(entry)
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _opcode(self, op: str, version: int) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = getattr(self.schema.BuiltinOperator, op)
        made.deprecatedBuiltinCode = min(made.builtinCode, 127)  # read by runtimes from before 2020
        made.version = version
        return made

    def _signature(self, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        made = self.schema.SignatureDefT()
        made.signatureKey = SIGNATURE
        for side, indices in (("inputs", inputs), ("outputs", outputs)):
            maps = [self.schema.TensorMapT() for _ in indices]
            for each, index in zip(maps, indices, strict=True):
                each.name, each.tensorIndex = self.tensors[index].name, index
            setattr(made, side, maps)
        return made
