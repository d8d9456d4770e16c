"""ONNX graphs that take a photo as it is: preprocessing, network and postprocessing in one file, or in parts.

They do what `imaging.preprocess` and `imaging.postprocess` do, so that a program in another language needs no
instructions beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..checkpoints import Folded, walk
from ..config import U2NetConfig
from ..imaging import FOUND_FROM, check_channels
from .onnx_builder import INPUT_NAME, OUTPUT_NAME, GraphBuilder, Value, WeightType, make_model

if TYPE_CHECKING:
    from onnx import ModelProto


Part: TypeAlias = Literal["network", "whole", "preprocessing", "postprocessing"]
"""What a file holds: the network alone, everything from a photo to its map, or a step before or after it."""
InputType: TypeAlias = Literal["uint8", "float32"]
MinMax: TypeAlias = Literal["auto", "always", "never"]

IMAGE_NAME = "image"
MAP_NAME = "map"
SIZE_NAME = "size"

_MODES: dict[str, dict[str, object]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # Pillow's value
}
"""The ways to resize that ONNX and Pillow share, as attributes of Resize."""


def check_expressible(config: U2NetConfig) -> None:
    """Raise ValueError if the network takes no photos, or ONNX cannot resize them as the config says."""
    check_channels(config)
    if config.interpolation not in _MODES:
        raise ValueError(
            f"ONNX cannot resize photos as {config.interpolation!r} does in Pillow, expected one of "
            f"{list(_MODES)}; export the network alone, and resize before it"
        )


def build_photo_graph(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    part: Part,
    *,
    input_type: InputType = "uint8",
    weights: WeightType = "float32",
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """Build the ONNX model of a part other than the network alone.

    "whole" maps "image", (1, channels, H, W) from 0 to 255, to "saliency": float32 (1, out, H, W) in [0, 1].
    "preprocessing" maps "image" to the network's "input". "postprocessing" maps "map", one output of the
    network, float32 (1, out, h, w), and "size", int64 [H, W], to "saliency" at that size. With one output,
    min–max is applied as `config.minmax` says; classes keep their probabilities.

    Args:
        config: The config of the network.
        convs: The folded convolutions by their official names; they are not used without the network.
        part: Which steps the graph holds.
        input_type: The type of "image". Float values are rounded to whole grey levels.
        weights: The type in which the weights are stored; the network calculates in float32.
        metadata: More entries for the metadata.

    Raises:
        ImportError: onnx is not installed.
        ValueError: ONNX cannot resize as the config says.
    """
    check_expressible(config)
    graph = GraphBuilder(convs, weights)
    image: Value = (IMAGE_NAME, input_type, [1, config.in_channels, "height", "width"])
    saliency: Value = (OUTPUT_NAME, "float32", [1, config.out_channels, "height", "width"])
    inputs, outputs = [image], [saliency]
    if part == "preprocessing":
        outputs = [(INPUT_NAME, "float32", [1, config.in_channels, *config.input_size])]
        _preprocess(graph, config, input_type, value=INPUT_NAME)
    elif part == "postprocessing":
        inputs = [
            (MAP_NAME, "float32", [1, config.out_channels, "map_height", "map_width"]),
            (SIZE_NAME, "int64", [2]),
        ]
        _postprocess(graph, config, MAP_NAME, SIZE_NAME)
    else:
        fused, _ = walk(config, graph, _preprocess(graph, config, input_type))
        size = graph.node("Shape", IMAGE_NAME, start=2, end=4)
        _postprocess(graph, config, graph.activate(config, fused), size)
    described = {
        "takes": "photos" if part != "postprocessing" else "maps",
        "part": part,
        # not "config", which marks the files that this library runs as a network
        "photo_config": config.replace(other={}).to_json(),
        "outputs": json.dumps([name for name, *_ in outputs]),
    }
    return make_model(f"{config.variant}-{part}", graph, inputs, outputs, described | dict(metadata or {}))


def _preprocess(
    graph: GraphBuilder, config: U2NetConfig, input_type: InputType, value: str | None = None
) -> str:
    """Add the steps of `imaging.preprocess`; returns the network's input."""
    pixels = IMAGE_NAME
    if input_type == "float32":
        rounded = graph.node("Floor", graph.node("Add", pixels, graph.scalar(0.5)))
        clipped = graph.node("Clip", rounded, graph.scalar(0.0), graph.scalar(255.0))
        pixels = graph.cast(clipped, "uint8")
    x = graph.cast(_resize_photo(graph, config, pixels), "float32")
    if config.scale == "image_max":
        # A black photo is divided by 1.
        top = graph.node("Max", graph.reduce("ReduceMax", x), graph.scalar(1.0))
    else:
        top = graph.scalar(255.0)
    mean, std = (
        graph.constant(np.array(values, np.float32).reshape(1, -1, 1, 1))
        for values in (config.mean, config.std)
    )
    centred = graph.node("Sub", graph.node("Div", x, top), mean)
    return graph.node("Div", centred, std, value=value)


def _resize_photo(graph: GraphBuilder, config: U2NetConfig, pixels: str) -> str:
    """Resize uint8 pixels to the network's size, in the order of rows and columns of `imaging.preprocess`.

    Pillow rounds to whole grey levels after each of the two, and so does ONNX Runtime with uint8.
    """
    how = {"antialias": 1, "exclude_outside": 1, **_MODES[config.interpolation]}
    target_height, target_width = (graph.constant(np.array([side], np.int64)) for side in config.input_size)
    lead, height, width = (
        graph.node("Shape", IMAGE_NAME, start=start, end=end) for start, end in ((0, 2), (2, 3), (3, 4))
    )
    # A photo that becomes wider and lower becomes lower first.
    lower_first = graph.node(
        "And", graph.node("Less", width, target_width), graph.node("Greater", height, target_height)
    )
    first_height = graph.node("Where", lower_first, target_height, height)
    lowered = graph.resize(pixels, graph.node("Concat", lead, first_height, width, axis=0), **how)
    return graph.resize(lowered, graph.node("Concat", lead, target_height, target_width, axis=0), **how)


def _postprocess(graph: GraphBuilder, config: U2NetConfig, maps: str, size: str) -> str:
    """Add min–max and the resize of `imaging.postprocess`; returns the map of the given size."""
    if config.out_channels == 1:
        if config.invert:
            maps = graph.node("Sub", graph.scalar(1.0), maps)
        maps = _normalise(graph, maps, config.minmax)
    sizes = graph.node("Concat", graph.constant(np.array([1, config.out_channels], np.int64)), size, axis=0)
    resized = graph.resize(maps, sizes, antialias=1, exclude_outside=1, mode="linear")
    return graph.node("Clip", resized, graph.scalar(0.0), graph.scalar(1.0), value=OUTPUT_NAME)


def _normalise(graph: GraphBuilder, maps: str, minmax: MinMax) -> str:
    """Add the steps of `imaging.normalise`."""
    if minmax == "never":
        return maps
    low = graph.reduce("ReduceMin", maps)
    contrast = graph.node("Sub", graph.reduce("ReduceMax", maps), low)
    # A constant map has no contrast: it is divided by 1, and becomes 0.
    some = graph.node("Greater", contrast, graph.scalar(0.0))
    divisor = graph.node("Where", some, contrast, graph.scalar(1.0))
    stretched = graph.node("Div", graph.node("Sub", maps, low), divisor)
    if minmax == "always":
        return stretched
    foreground = graph.cast(graph.node("GreaterOrEqual", stretched, graph.scalar(0.5)), "float32")
    count = graph.node("Max", graph.reduce("ReduceSum", foreground), graph.scalar(1.0))
    total = graph.reduce("ReduceSum", graph.node("Mul", maps, foreground))
    confidence = graph.node("Div", total, count)
    found = graph.node("GreaterOrEqual", confidence, graph.scalar(FOUND_FROM))
    return graph.node("Mul", stretched, graph.cast(found, "float32"))
