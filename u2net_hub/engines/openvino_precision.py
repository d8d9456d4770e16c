"""Keep chosen layers of an OpenVINO graph in float32 while the others run in bfloat16.

OpenVINO's CPU plugin keeps a node in float32 if the node is marked as "precise". Python cannot set this mark
on a graph in memory. So the graph is written to a file, the marks are added to its XML, and it is read again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from openvino import Core, Model


METADATA = "framework"
"""The key under which OpenVINO keeps the metadata of an ONNX file."""
WITHOUT_BIAS = "/WithoutBiases"
"""The suffix that OpenVINO gives to a convolution when it turns the bias into a separate node."""


def keep_in_float32(core: Core, model: Model, names: Collection[str]) -> Model:
    """Return a graph in which convolutions, and the nodes that pass their values on, stay in float32.

    Args:
        core: The OpenVINO core that reads the marked graph.
        model: The graph. Its resizes are replaced in place; only the returned graph has the marks.
        names: The official names of the convolutions, e.g. "stage2d.rebnconv1d".
    """
    _restate_resizes(model)
    with tempfile.TemporaryDirectory(prefix="u2net-") as folder:
        path = Path(folder, "graph.xml")
        _serialize(model, path)
        graph = ElementTree.parse(path).getroot()
        _mark(graph, names)
        marked = ElementTree.tostring(graph)
        weights = path.with_suffix(".bin").read_bytes()
    # Read the graph from memory: a graph that is read from a file needs that file as long as it is used.
    from openvino import Tensor

    return core.read_model(marked, Tensor(np.frombuffer(weights, np.uint8)))


def _serialize(model: Model, path: Path) -> None:
    from openvino import serialize

    serialize(model, path)


def _restate_resizes(model: Model) -> None:
    """Replace each Interpolate node by that of opset 4: the plugin does so by itself and loses the marks."""
    from openvino import opset13
    from openvino.utils.node_factory import NodeFactory

    factory = NodeFactory("opset4")
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Interpolate":
            continue
        scales, axes = np.ones(4, np.float32), np.arange(4)
        inputs = [node.input_value(0), node.input_value(1), opset13.constant(scales), opset13.constant(axes)]
        older = factory.create("Interpolate", inputs, node.get_attributes())
        older.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(older.output(0))
    model.validate_nodes_and_infer_types()


def _mark(graph: ElementTree.Element, names: Collection[str]) -> None:
    """Mark the named convolutions in the XML of a graph.

    The nodes after each of them are marked too, up to the next convolution.
    """
    layers = {layer.get("id", ""): layer for layer in graph.iter("layer")}
    behind: dict[str, list[str]] = {number: [] for number in layers}
    for edge in graph.iter("edge"):
        behind[edge.get("from-layer", "")].append(edge.get("to-layer", ""))
    chosen = {
        number
        for number, layer in layers.items()
        if layer.get("type") == "Convolution" and layer.get("name", "").removesuffix(WITHOUT_BIAS) in names
    }
    marked: set[str] = set()
    waiting = list(chosen)
    while waiting:
        number = waiting.pop()
        kind = layers[number].get("type")
        if number in marked or kind == "ShapeOf" or (kind == "Convolution" and number not in chosen):
            continue
        marked.add(number)
        waiting += behind[number]
    for number in marked:
        layer = layers[number]
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.Element("rt_info")
            data = layer.find("data")
            layer.insert(0 if data is None else 1, info)
        ElementTree.SubElement(info, "attribute", name="precise", version="0")
