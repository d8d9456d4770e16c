"""Read the weights of an .onnx file of the family, and check that its graph computes the same maps.

A convolution is recognised by the expression that feeds it, so the names of nodes and weights do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import U2NetConfig
from .onnx_cost import MOST_PIXELS, check_onnx_cost
from .onnx_files import load_onnx
from .onnx_metadata import metadata_config
from .printable import printable_text
from .topology import BN_EPS, NORM, ValueNumbering, check_shapes, convolutions

if TYPE_CHECKING:
    import onnx


_TRANSPARENT = {"Relu", "MaxPool", "Resize", "Upsample", "Pad", "Identity", "Cast", "Dropout"}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": torch.sigmoid,
    "Sigmoid": torch.sigmoid,
    "Softmax": partial(torch.softmax, dim=1),
}
_TOLERANCE = 1e-4


class _Filled(NamedTuple):
    """The weights of a convolution in a graph, and of the batch norm that follows it."""

    weight: Tensor
    bias: Tensor | None = None
    norm: Sequence[Tensor] | None = None
    """Weight, bias, mean and variance of the batch norm; None if none follows."""


class _Graph:
    """An ONNX graph followed from its input to its outputs.

    Attributes:
        convs: The convolutions by the value number of the expression that feeds each.
        outputs: For each output, the value number before its activation, and the activation's ONNX name or
            "".
        input_shape: The shape of the input in the graph; a free size is 0.
    """

    def __init__(self, path: Path, number: ValueNumbering) -> None:
        self.path = path
        self.number = number
        self.model = load_onnx(path)
        self.convs: dict[int, _Filled] = {}
        graph = self.model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        # Old files also list their weights as inputs.
        inputs = [value for value in graph.input if value.name not in self._constants]
        if len(inputs) != 1:
            raise self.wrong(f"it takes {len(inputs)} inputs")
        self.input_name = inputs[0].name
        self.input_shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
        self._values = {self.input_name: number("input")}
        self._operands: dict[int, tuple[str, int]] = {}
        for node in self._in_order():
            self._follow(node)
        self.outputs = [self._output(value.name) for value in graph.output]
        if not self.outputs:
            raise self.wrong("it has no outputs")

    def _in_order(self) -> Iterator[onnx.NodeProto]:
        nodes = self.model.graph.node
        origin = {name: i for i, node in enumerate(nodes) for name in node.output}
        feeds = {i: {origin[name] for name in node.input if name in origin} for i, node in enumerate(nodes)}
        try:
            return iter([nodes[i] for i in TopologicalSorter(feeds).static_order()])
        except CycleError as e:
            raise ValueError(f"{self.path} is no valid ONNX file: its graph runs in a circle") from e

    def _follow(self, node: onnx.NodeProto) -> None:
        if not node.output:
            return
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._constants[node.output[0]] = attribute.t
        elif node.op_type in ("Identity", "Cast") and node.input and node.input[0] in self._constants:
            self._constants[node.output[0]] = self._constants[node.input[0]]
        feeds = [self._values[name] for name in node.input if name in self._values]
        if feeds and node.op_type != "Shape":  # nodes that compute sizes are no part of the network
            self._values[node.output[0]] = self._value(node, feeds)

    def _value(self, node: onnx.NodeProto, feeds: list[int]) -> int:
        op, x = node.op_type, feeds[0]
        if op == "Conv":
            if x in self.convs:
                raise self.wrong("two of its convolutions work on the same maps")
            weights = [self._constant(name) for name in node.input[1:3] if name]
            if not weights:
                raise self.wrong("one of its convolutions has no weights")
            self.convs[x] = _Filled(weights[0], weights[1] if len(weights) == 2 else None)
            return self._result("conv", x)
        if op == "BatchNormalization":
            behind, feed = self._operands.get(x, ("", -1))
            norm = [self._constant(name) for name in node.input[1:5]]
            if behind != "conv" or self.convs[feed].norm is not None or len(norm) != 4:
                raise self.wrong("one of its batch norms does not follow a convolution")
            eps = next((a.f for a in node.attribute if a.name == "epsilon"), BN_EPS)
            norm[3] = norm[3] + (eps - BN_EPS)
            self.convs[feed] = self.convs[feed]._replace(norm=norm)
            return x
        if op in _TRANSPARENT or (op == "Concat" and len(feeds) == 1):
            return x
        if op == "Concat":
            return self.number("concat", *feeds)
        if op in ("Add", "Sum"):
            return self.number("add", frozenset(feeds))
        return self._result(op, x)

    def _result(self, op: str, x: int) -> int:
        value = self.number(op, x)
        self._operands[value] = (op, x)
        return value

    def _constant(self, name: str) -> Tensor:
        from onnx import numpy_helper

        if name not in self._constants:
            raise self.wrong(f"the weight {name!r} is calculated")
        try:
            return torch.tensor(numpy_helper.to_array(self._constants[name]))
        except (ValueError, TypeError) as e:
            raise ValueError(f"{self.path} is damaged: its tensor {name!r} cannot be read ({e})") from e

    def _output(self, name: str) -> tuple[int, str]:
        if name not in self._values:
            raise self.wrong(f"the output {name!r} does not depend on the image")
        op, x = self._operands.get(self._values[name], ("", -1))
        return (x, op) if op in _ACTIVATIONS and op else (self._values[name], "")

    def wrong(self, what: str) -> ValueError:
        return ValueError(
            f"{self.path} is not of the U²-Net family: {what}; expected an export of u2net or u2netp"
        )


def read_onnx(path: Path, config: U2NetConfig | None) -> tuple[U2NetConfig, dict[str, Tensor], str]:
    """Read the weights of an .onnx file.

    If a batch norm was folded into its convolution, the result has a batch norm there that changes nothing.

    Args:
        path: The .onnx file.
        config: The config that the file must fit. None takes the config that `export` wrote into the file, or
            else infers it from the shapes.

    Returns:
        The config that the weights fit, the weights under the official keys, and the program that made the
        file.

    Raises:
        ValueError: The file is damaged, or its graph is not that of the network.
        ImportError: onnx is not installed.
    """
    number = ValueNumbering()
    graph = _Graph(path, number)
    if config is None:
        config = metadata_config({entry.key: entry.value for entry in graph.model.metadata_props}, path)
    # The published variants differ only in their widths, so any of them gives the expected structure.
    expected = convolutions(config or U2NetConfig(), number)
    if graph.convs.keys() != expected.keys():
        known = len(graph.convs.keys() & expected.keys())
        raise graph.wrong(
            f"only {known} of its {len(graph.convs)} convolutions match the {len(expected)} of the network"
        )
    tensors: dict[str, Tensor] = {}
    for feed, conv in expected.items():
        found = graph.convs[feed]
        width = found.weight.shape[:1]
        tensors[f"{conv.key}.weight"] = found.weight
        tensors[f"{conv.key}.bias"] = torch.zeros(width) if found.bias is None else found.bias
        if conv.norm is not None:
            values = found.norm or _identity_norm(width)
            tensors.update({f"{conv.norm}.{name}": value for name, value in zip(NORM, values, strict=True)})
    fitting = check_shapes(path, {key: tuple(value.shape) for key, value in tensors.items()}, config)
    if config is None and fitting.out_channels > 1 and graph.outputs[0][1] == "Sigmoid":
        fitting = fitting.replace(activation="sigmoid")
    return fitting, tensors, f"{graph.model.producer_name} {graph.model.producer_version}".strip()


def _identity_norm(width: Sequence[int]) -> Sequence[Tensor]:
    """Make the tensors of a batch norm that changes nothing.

    Its variance is 1 - epsilon. With the epsilon added it is exactly 1 in float32, so no bit of the maps
    changes.
    """
    return torch.ones(width), torch.zeros(width), torch.zeros(width), torch.ones(width) - BN_EPS


def check_onnx(path: str | Path, network: nn.Module, config: U2NetConfig) -> None:
    """Run a graph and the network with its weights on one random input, and compare their maps.

    The maps may differ by 1e-4. If the network's own float32 error, measured against a run in float64, is
    larger, single pixels may differ by up to eight times that error, and each map by 1e-4 on average.

    Raises:
        ValueError: The maps differ, or the graph does not run.
        ImportError: onnx is not installed.
    """
    path = Path(path)
    number = ValueNumbering()
    heads = {
        conv.key: number("conv", feed)
        for feed, conv in convolutions(config, number).items()
        if not conv.normed
    }
    order = ["outconv", *(key for key in heads if key != "outconv")]
    index = {heads[key]: i for i, key in enumerate(order)}
    graph = _Graph(path, number)
    if {value for value, _ in graph.outputs} - index.keys() or heads["outconv"] != graph.outputs[0][0]:
        raise graph.wrong("its outputs are not the fused map, or the fused map followed by side outputs")

    free = (1, config.in_channels, *config.input_size)
    shape = [size or default for size, default in zip(graph.input_shape, free, strict=False)]
    if len(shape) != 4 or shape[1] != config.in_channels or shape[0] * shape[2] * shape[3] > MOST_PIXELS:
        raise graph.wrong(f"its input is {graph.input_shape}")
    check_onnx_cost(graph.model, path, config, shape)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def maps(network: nn.Module, x: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            logits = network(x)
            return [_ACTIVATIONS[name](logits[index[value]]).double() for value, name in graph.outputs]

    ours, theirs = maps(network, x), _run_onnx(graph, x)
    # Logits have no fixed scale, so apply a sigmoid to them before the comparison.
    theirs = [y if name else y.sigmoid() for y, (_, name) in zip(theirs, graph.outputs, strict=True)]
    if [y.shape for y in theirs] != [y.shape for y in ours]:
        raise graph.wrong(f"its maps are {[list(y.shape) for y in theirs]}")
    difference = _differences(theirs, ours)
    if difference.max() <= _TOLERANCE:
        return
    rounding = _differences(ours, maps(deepcopy(network).double(), x.double()))
    mean = difference.flatten(1).mean(1)  # one mean per map
    if not (difference.max() <= 8 * rounding.max() and mean.max() <= _TOLERANCE):  # this form refuses NaN
        raise ValueError(
            f"{path} does not calculate what U²-Net does with its weights: on a random input "
            f"the maps differ by up to {difference.max():.2g}, expected at most {_TOLERANCE:g}"
        )


def _differences(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x - y).abs() for x, y in zip(a, b, strict=True)])


def _run_onnx(graph: _Graph, x: Tensor) -> list[Tensor]:
    feeds = {graph.input_name: x.numpy()}
    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, LookupError)
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        onnxruntime = None
    else:
        failures += (
            errors.EPFail,
            errors.Fail,
            errors.InvalidArgument,
            errors.InvalidGraph,
            errors.InvalidProtobuf,
            errors.NotImplemented,
            errors.RuntimeException,
        )
    try:
        if onnxruntime is None:
            from onnx.reference import ReferenceEvaluator

            with np.errstate(over="ignore", invalid="ignore"):  # exp(x) in its sigmoid may overflow
                outputs = ReferenceEvaluator(graph.model).run(None, feeds)
        else:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # no messages: errors are raised
            session = onnxruntime.InferenceSession(
                graph.model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # a fallback would only try the same provider again and print
            )
            outputs = session.run(None, feeds)
        return [torch.tensor(y).double() for y in outputs]
    except failures as e:
        raise ValueError(f"{graph.path} does not run: {printable_text(e)}") from e
