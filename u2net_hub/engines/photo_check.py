"""Compare graphs that take photos with the library's own preprocessing and postprocessing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import U2NetConfig
from ..imaging import Photo, normalise, preprocess, resize
from .graph_files import import_runtime
from .onnx_builder import INPUT_NAME
from .photo_graph import IMAGE_NAME, MAP_NAME, SIZE_NAME, InputType, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]

LEVELS = (2.0, 0.05)
"""The largest and the mean difference in grey levels that is allowed after the resize of a photo."""
TOLERANCE = 1e-3
"""The largest difference that is allowed in any pixel of a map in [0, 1]."""


def check_photo_graphs(
    config: U2NetConfig, graphs: Mapping[Part, bytes], network: bytes | None, input_type: InputType
) -> None:
    """Check each graph at two sizes of photos, and the whole against the chain of its parts.

    Args:
        config: The config of the network.
        graphs: Some of "preprocessing", "postprocessing" and "whole"; the last one needs the other two.
        network: The graph of the network alone, which was compared with torch; for "whole".
        input_type: The type of the photos.

    Raises:
        ValueError: A graph differs; the message says how much.
    """
    sessions = {part: open_session(graph) for part, graph in graphs.items()}
    chain = None if network is None else open_session(network)
    for pixels in _photos(config):
        image = pixels.astype(input_type)
        size = pixels.shape[2:]
        x: Float32 | None = None
        if "preprocessing" in sessions:
            x = sessions["preprocessing"].run(None, {IMAGE_NAME: image})[0]
            _check_input(config, pixels, x)
        if "postprocessing" in sessions:
            for map_ in _maps(config):
                _check_map(config, sessions["postprocessing"], map_, size)
        if "whole" in sessions and chain is not None:
            map_ = chain.run(None, {INPUT_NAME: x})[0]
            expected = _run_after(sessions["postprocessing"], map_, size)
            found = sessions["whole"].run(None, {IMAGE_NAME: image})[0]
            _refuse(float(np.abs(found - expected).max()), TOLERANCE, "the whole graph", "its parts", size)


def open_session(graph: bytes) -> Any:
    """Open a graph in ONNX Runtime on the CPU."""
    ort = import_runtime("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _check_input(config: U2NetConfig, pixels: NDArray[np.uint8], x: Float32) -> None:
    """Compare the network's input of a photo, in grey levels."""
    picture = pixels[0].transpose(1, 2, 0)
    expected = preprocess(
        Photo(Image.fromarray(picture if picture.shape[2] == 3 else picture.repeat(3, axis=2))), config
    )
    std = np.array(config.std, np.float32)[:, None, None]
    top = float(pixels.max()) if config.scale == "image_max" else 255.0
    difference = np.abs(x[0] - expected) * std * max(top, 1.0)
    size = pixels.shape[2:]
    largest, mean = LEVELS
    _refuse(float(difference.max()), largest, "the preprocessing", "Pillow, in grey levels", size)
    _refuse(float(difference.mean()), mean, "the preprocessing", "Pillow on average, in grey levels", size)


def _check_map(config: U2NetConfig, session: Any, map_: Float32, size: tuple[int, ...]) -> None:
    """Compare a map after min–max and resize."""
    found = _run_after(session, map_[None], size)[0]
    height, width = size
    for i, channel in enumerate(map_):
        if len(map_) == 1:
            channel = np.asarray(1 - channel if config.invert else channel, np.float32)
            channel = normalise(channel, config.minmax)
        expected = resize(channel, (height, width))
        _refuse(
            float(np.abs(found[i] - expected).max()), TOLERANCE, "the postprocessing", "the pipeline", size
        )


def _run_after(session: Any, map_: Float32, size: tuple[int, ...]) -> Float32:
    found: Float32 = session.run(None, {MAP_NAME: map_, SIZE_NAME: np.array(size, np.int64)})[0]
    return found


def _refuse(difference: float, limit: float, what: str, reference: str, size: tuple[int, ...]) -> None:
    if not difference <= limit:  # NaN too
        raise ValueError(
            f"{what} of the exported file differs from {reference} by {difference:.2g} for a photo of "
            f"{size[0]} × {size[1]} px, expected at most {limit}; nothing was written. Please report it with "
            "the version of onnxruntime"
        )
    logger.debug("%s differs from %s by %.2g at %d × %d px", what, reference, difference, *size)


def _photos(config: U2NetConfig) -> Iterator[NDArray[np.uint8]]:
    """Make a photo that is larger than the input, one that is higher and narrower, and a black one."""
    height, width = config.input_size
    rng = np.random.default_rng(0)
    for size in ((height + 61, 2 * width + 13), (height + 40, max(width // 2, 1) + 3)):
        y, x = np.mgrid[: size[0], : size[1]]
        waves = np.sin(x / 7 + 3) + np.sin(y / 11) + np.sin((x + y) / 31)
        photo = 120 + 28 * waves + rng.normal(0, 6, (config.in_channels, *size))
        yield np.clip(photo, 0, 230).astype(np.uint8)[None]
    yield np.zeros((1, config.in_channels, 5, 9), np.uint8)


def _maps(config: U2NetConfig) -> Iterator[Float32]:
    """Make a map with an object, one in which nothing is sure, and a constant one: (out, h, w) each."""
    height, width = config.input_size
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-(((x / width - 0.4) / 0.25) ** 2) - ((y / height - 0.6) / 0.3) ** 2)
    shares = np.linspace(0.97, 0.5, config.out_channels)[:, None, None]
    for low, high in ((0.01, 0.98), (0.05, 0.3), (0.4, 0.4)):
        yield np.asarray(low + (high - low) * blob * shares, np.float32)
