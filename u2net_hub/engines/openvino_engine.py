"""The engine that runs networks in OpenVINO."""

from __future__ import annotations

import gzip
import json
import logging
import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ..config import U2NetConfig
from ..hub import Source
from .graph_cache import KEPT, Float32, check_size, choose_outputs, kept_graph
from .graph_files import calibrated_graph, import_runtime, one_line, outputs_inside, refused_graph
from .onnx_builder import INPUT_NAME, SMALLEST
from .openvino_precision import METADATA, keep_in_float32
from .precision import Precision

if TYPE_CHECKING:
    import openvino

    from ..model import U2Net


logger = logging.getLogger(__name__)


class OpenVinoEngine:
    """The network in OpenVINO.

    Args:
        source: A network, weights, or an .onnx or .xml file that `export` made.
        device: "cpu", one of OpenVINO's names, e.g. "GPU" for Intel's, or "auto" for the CPU; upper and
            lower case mean the same.
        precision: "exact" is float32. "fast" is bfloat16 on CPUs that have it and float16 on other devices,
            except in layers that need float32. "int8" needs a bundled model, or a file exported with that
            precision.

    Raises:
        ImportError: openvino or onnx is not installed.
        RuntimeError: OpenVINO does not have the device here.
        ValueError: The file is not of the U²-Net family, it has another precision, or the network's input
            is too small for this engine.
    """

    name = "openvino"

    def __init__(self, source: U2Net | Source, device: str = "auto", precision: Precision = "exact") -> None:
        import_runtime("openvino", "openvino")
        self._core = openvino_core()
        self.device = _find_device(device, self._core.available_devices)
        self.precision: Precision = precision
        if precision == "fast" and self.device == "cpu" and "BF16" not in self._capabilities():
            logger.warning("this CPU has no bfloat16 arithmetic, so the network runs in float32")
            self.precision = "exact"
        low = "bf16" if self.device == "cpu" else "f16"
        self._hint = low if self.precision == "fast" else "f32"
        self._path: Path | None = None
        """The exported file, for messages; None for a graph that was built from weights."""
        calibrated = calibrated_graph(source) if precision == "int8" and isinstance(source, Source) else None
        if isinstance(source, Source) and (calibrated or source.format == "xml"):
            self._path = source.weights_path
            self._model = (
                read_calibrated(self._core, calibrated)
                if calibrated
                else read_openvino(self._core, self._path)
            )
            self.config = U2NetConfig.from_dict(json.loads(self._metadata("config")))
            self._outputs = outputs_inside({"outputs": self._metadata("outputs", "")}, self._path)
        else:
            self.config, graph, self._outputs, self._path = kept_graph(source)
            try:
                self._model = self._core.read_model(graph)
            except RuntimeError as e:
                raise refused_graph(self._path, "OpenVINO", e) from e
        is_quantised = any(op.get_type_name() == "FakeQuantize" for op in self._model.get_ops())
        if is_quantised != (precision == "int8"):
            found = "int8" if is_quantised else "exact or fast"
            raise ValueError(f"precision {precision!r} was asked for, but the file is for {found}")
        if self._hint != "f32":
            kept = json.loads(self._metadata("float32", "[]"))
            self._model = keep_in_float32(self._core, self._model, kept) if kept else self._model
        check_size(self)
        self._compiled: dict[tuple[int, int, str], list[openvino.InferRequest]] = {}
        self._lock = Lock()

    def __call__(self, batch: Float32, *, side_outputs: bool = False) -> tuple[Float32, ...]:
        names = choose_outputs(self._outputs, side_outputs)
        height, width = batch.shape[2:]
        maps = [np.empty((len(batch), self.config.out_channels, height, width), np.float32) for _ in names]
        with self._lock:  # only one caller at a time may use the requests
            requests = self._compile(height, width, "LATENCY" if len(batch) == 1 else "THROUGHPUT")
            # Each photo goes to the request that was started longest ago. Callbacks are not used: at
            # interpreter shutdown, an OpenVINO thread that waits for the GIL deadlocks.
            for i in range(len(batch) + len(requests)):
                request, done = requests[i % len(requests)], i - len(requests)
                if 0 <= done < len(batch):
                    request.wait()
                    for each, name in zip(maps, names, strict=True):
                        each[done] = request.get_tensor(name).data[0]
                if i < len(batch):
                    request.start_async({INPUT_NAME: batch[i : i + 1]})
        return tuple(maps)

    def _metadata(self, key: str, default: str | None = None) -> str:
        """Read one entry of the graph's metadata."""
        if default is not None and not self._model.has_rt_info([METADATA, key]):
            return default
        return str(self._model.get_rt_info([METADATA, key]).value)

    def _capabilities(self) -> list[str]:
        """Return OpenVINO's names for the number formats in which the device can compute, e.g. "BF16"."""
        return list(self._core.get_property(self.device.upper(), "OPTIMIZATION_CAPABILITIES"))

    def _compile(self, height: int, width: int, goal: str) -> list[openvino.InferRequest]:
        """Return OpenVINO's inference requests for photos of one size; the first use compiles them.

        Args:
            height: The height of the input in pixels.
            width: The width of the input in pixels.
            goal: "LATENCY" for one photo at a time, "THROUGHPUT" for several together.
        """
        key = (height, width, goal)
        if key not in self._compiled:
            if len(self._compiled) == KEPT:
                del self._compiled[next(iter(self._compiled))]
            if min(height, width) < SMALLEST:
                raise ValueError(
                    f"got an input of {height} × {width} px, expected at least {SMALLEST} × {SMALLEST} with "
                    "engine 'openvino'; engine 'torch' takes any"
                )
            self._model.reshape({INPUT_NAME: [1, self.config.in_channels, height, width]})
            settings = {"INFERENCE_PRECISION_HINT": self._hint, "PERFORMANCE_HINT": goal}
            if self.device == "cpu":
                settings["INFERENCE_NUM_THREADS"] = str(usable_cores())
            try:
                compiled = self._core.compile_model(self._model, self.device.upper(), settings)
            except RuntimeError as e:
                raise RuntimeError(
                    f"OpenVINO could not compile the network for {height} × {width} px on {self.device}: "
                    f"{one_line(e)}; use another device or engine"
                ) from e
            n = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if goal == "THROUGHPUT" else 1
            self._compiled[key] = [compiled.create_infer_request() for _ in range(n)]
        return self._compiled[key]


@cache
def openvino_core() -> openvino.Core:
    """Return OpenVINO's core, one for the process, which is never freed.

    The CPU plugin gives the thread that loads it a stack for signals. If the last core is freed in another
    thread, that stack is unmapped while it is in use, and the next signal ends the process with a
    segmentation fault (seen in openvino 2026.4).

    Raises:
        ImportError: openvino is not installed.
    """
    import openvino

    return openvino.Core()


def read_openvino(core: openvino.Core, path: Path) -> openvino.Model:
    """Read the graph of an .xml file that `export` made.

    Raises:
        ValueError: The file is damaged, or `export` did not make it.
    """
    try:
        model = core.read_model(path)
    except RuntimeError as e:
        raise ValueError(
            f"{path} cannot be read as an OpenVINO model: {one_line(e)}; check that its .bin lies beside it, "
            f"or export the weights again: u2net export --model SOURCE --out {path.name}"
        ) from e
    if not model.has_rt_info([METADATA, "config"]):
        raise ValueError(
            f"{path} is an OpenVINO model that this library did not export: it holds no config; export the "
            f"weights again: u2net export --model SOURCE --out {path.name}"
        )
    return model


def read_calibrated(core: openvino.Core, packed: Path) -> openvino.Model:
    """Read a packed int8 graph from memory: nothing is unpacked to the disk."""
    from openvino import Tensor

    weights = np.fromfile(packed.with_name("int8.bin"), np.uint8)
    return core.read_model(gzip.decompress(packed.read_bytes()), Tensor(weights))


def _find_device(device: str, available: list[str]) -> str:
    """Return the name of a device as the engine reports it: "cpu", or OpenVINO's own name, e.g. "GPU.1"."""
    name = str(device).upper()
    if name in ("AUTO", "CPU", "CPU.0", "CPU:0") and "CPU" in available:
        return "cpu"
    kinds = {each.partition(".")[0] for each in available}
    if name == "CPU" or name not in {*available, *kinds, *(f"{kind}.0" for kind in kinds - {"CPU"})}:
        raise RuntimeError(f"device {device!r} was asked for, but OpenVINO has {available} here")
    return name


def usable_cores() -> int:
    """Count the cores that this process may use: those of the system, or fewer by OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) else cores
