"""Post-training quantisation of an OpenVINO graph to int8, calibrated and checked on photos."""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import U2NetConfig
from ..datasets import find_pairs, pictures_by_stem
from ..imaging import load, preprocess
from .onnx_builder import INPUT_NAME, OUTPUT_NAME
from .openvino_engine import openvino_core
from .openvino_precision import METADATA, WITHOUT_BIAS

if TYPE_CHECKING:
    import openvino


logger = logging.getLogger(__name__)


Float32 = NDArray[np.float32]

CALIBRATION = 200
"""The number of photos from whose activations NNCF takes the ranges of int8."""
JUDGED = 24
"""The number of other photos, on which maps are compared."""
LIMIT = 0.004
"""The largest accepted mean difference from the maps of float32, in [0, 1]: one level of 256."""


def quantise(model: openvino.Model, config: U2NetConfig, data: str | Path) -> openvino.Model:
    """Quantise the convolutions of a graph to int8, except those that int8 would damage.

    Convolutions with a large bias stay in float, as in 16-bit precision. If the maps still differ from those
    of float32 by more than `LIMIT` on average, each stage is quantised alone to measure its effect. Then
    stages stay in float one by one, the worst first, until the difference is at most `LIMIT`. NNCF corrects
    the biases (`fast_bias_correction`).

    Args:
        model: The float32 graph that `build_graph` made; it is not changed.
        config: The config of the network.
        data: A folder of photos, or a data set, of which only the photos are used.

    Raises:
        ImportError: nncf is not installed.
        ValueError: There are fewer than two photos, or every stage would have to stay in float.
    """
    try:
        import nncf
    except ImportError as e:
        raise ImportError("int8 needs nncf; install it with: pip install 'u2net-hub[int8]'") from e

    logging.getLogger("nncf").setLevel(logging.ERROR)  # NNCF's own function would silence other loggers too
    calibration, judged = (
        [preprocess(load(path), config)[None] for path in paths] for paths in choose_photos(data)
    )
    names = [
        node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"
    ]
    kept = {name + WITHOUT_BIAS for name in json.loads(model.get_rt_info([METADATA, "float32"]).value)}
    expected = _maps(model, judged)

    def quantised(ignored: set[str], photos: Sequence[Float32]) -> tuple[openvino.Model, float]:
        scope = nncf.IgnoredScope(names=sorted(ignored)) if ignored else None
        with redirect_stdout(sys.stderr):  # progress bars belong on standard error
            made = nncf.quantize(
                model.clone(),
                nncf.Dataset(photos),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(photos),
                ignored_scope=scope,
            )
        return made, float(np.mean(np.abs(_maps(made, judged) - expected)))

    made, error = quantised(kept, calibration)
    if error > LIMIT:
        stages = dict.fromkeys(name.partition(".")[0] for name in names)
        costs: dict[str, float] = {}
        for stage in stages:
            others = {name for name in names if name.partition(".")[0] != stage}
            if set(names) - others <= kept:
                continue
            _, costs[stage] = quantised(kept | others, calibration[:JUDGED])
            logger.info("int8 in %s alone: maps differ by %.5f", stage, costs[stage])
        for stage in sorted(costs, key=lambda name: -costs[name]):
            kept |= {name for name in names if name.partition(".")[0] == stage}
            made, error = quantised(kept, calibration)
            logger.info("with %s in float: maps differ by %.5f", stage, error)
            if error <= LIMIT:
                break
    n = len(names)
    if len(kept) >= n:
        raise ValueError(
            f"int8 in any stage of this network changes its maps by more than {LIMIT}; use precision 'fast'"
        )
    logger.info("%d of %d convolutions in int8, maps differ by %.5f on average", n - len(kept), n, error)
    return made


def choose_photos(data: str | Path) -> tuple[list[Path], list[Path]]:
    """Choose photos to calibrate on and others to compare maps on; the choice is the same each time.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There are fewer than two photos.
    """
    try:
        photos = [pair.image for pair in find_pairs(data)]
    except FileNotFoundError:  # the folder has no masks
        photos = list(pictures_by_stem(Path(data)).values())
    if len(photos) < 2:
        raise ValueError(f"{data} holds {len(photos)} photos, expected some hundreds to calibrate on")
    random.Random(0).shuffle(photos)
    n = min(JUDGED, len(photos) // 2)
    return photos[n : n + CALIBRATION], photos[:n]


def _maps(model: openvino.Model, photos: Sequence[Float32]) -> Float32:
    """Compute the fused maps of n photos, each (1, channels, height, width): (n, out, height, width)."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino_core().compile_model(model, "CPU", settings)
    found = [compiled({INPUT_NAME: photo})[OUTPUT_NAME] for photo in photos]
    return np.concatenate([np.array(maps) for maps in found])
