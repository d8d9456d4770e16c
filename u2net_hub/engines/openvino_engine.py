"""Networks in OpenVINO."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ..config import U2NetConfig
from ..hub import Source
from .graph_cache import KEPT, Float32, check_size, kept_graph, wanted
from .graph_files import import_runtime
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
        source: a network, weights, or an .onnx or .xml file that `export` made.
        device: "cpu", OpenVINO's own names, e.g. "GPU" for Intel's, or "auto" for the CPU.
        precision: "exact", float32; "fast", bfloat16 where the CPU has it, with the layers that need it in
            float32; "int8", of a file that was exported so.

    Raises:
        ImportError: openvino or onnx is not installed.
        RuntimeError: OpenVINO does not know the device.
        ValueError: the file is not of the family, or the network's input is too small for this engine.
    """

    name = "openvino"

    def __init__(self, source: U2Net | Source, device: str = "auto", precision: Precision = "exact") -> None:
        ov = import_runtime("openvino", "openvino")
        self._core = ov.Core()
        self.device = "cpu" if device == "auto" else device
        if self.device.upper().partition(".")[0] not in (
            d.partition(".")[0] for d in self._core.available_devices
        ):
            raise RuntimeError(
                f"device {device!r} was asked for, but OpenVINO has {self._core.available_devices} here"
            )
        self.precision: Precision = precision
        if precision == "fast" and "BF16" not in self._capabilities() and self.device == "cpu":
            logger.warning("this CPU has no bfloat16 arithmetic: running in float32")
            self.precision = "exact"
        self._hint = "bf16" if self.precision == "fast" and self.device == "cpu" else "f32"
        if self.precision == "fast" and self.device != "cpu":
            self._hint = "f16"
        if isinstance(source, Source) and source.format == "xml":
            self._model = read_openvino(self._core, source.weights_path)
            self.config = U2NetConfig.from_dict(json.loads(self._said("config")))
            self._outputs = json.loads(self._said("outputs"))
        else:
            self.config, graph, self._outputs = kept_graph(source)
            self._model = self._core.read_model(graph)
        is_quantised = any(op.get_type_name() == "FakeQuantize" for op in self._model.get_ops())
        if is_quantised != (precision == "int8"):
            found = "int8" if is_quantised else "exact or fast"
            raise ValueError(f"precision {precision!r} was asked for, and the file is for {found}")
        if self._hint != "f32":
            kept = json.loads(self._said("float32"))
            self._model = keep_in_float32(self._core, self._model, kept) if kept else self._model
        check_size(self)
        self._compiled: dict[tuple[int, int, str], list[openvino.InferRequest]] = {}
        self._lock = Lock()

    def __call__(self, batch: Float32, *, side_outputs: bool = False) -> tuple[Float32, ...]:
        names = wanted(self._outputs, side_outputs)
        height, width = batch.shape[2:]
        maps = [np.empty((len(batch), self.config.out_channels, height, width), np.float32) for _ in names]
        with self._lock:  # a request is one caller's at a time
            requests = self._compile(height, width, "LATENCY" if len(batch) == 1 else "THROUGHPUT")
            # Each photo goes to the request that has waited longest. No callbacks: a thread of OpenVINO that
            # wants the interpreter's lock, while the interpreter ends that thread, waits for ever.
            for i in range(len(batch) + len(requests)):
                request, done = requests[i % len(requests)], i - len(requests)
                if 0 <= done < len(batch):
                    request.wait()
                    for each, name in zip(maps, names, strict=True):
                        each[done] = request.get_tensor(name).data[0]
                if i < len(batch):
                    request.start_async({INPUT_NAME: batch[i : i + 1]})
        return tuple(maps)

    def _said(self, key: str) -> str:
        """An entry of the graph's metadata."""
        return str(self._model.get_rt_info([METADATA, key]).value)

    def _capabilities(self) -> list[str]:
        device = self.device.upper()
        return list(self._core.get_property(device, "OPTIMIZATION_CAPABILITIES"))

    def _compile(self, height: int, width: int, goal: str) -> list[openvino.InferRequest]:
        """Requests for photos of one size: one at a time is "LATENCY", several together are "THROUGHPUT"."""
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
            compiled = self._core.compile_model(self._model, self.device.upper(), settings)
            n = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if goal == "THROUGHPUT" else 1
            self._compiled[key] = [compiled.create_infer_request() for _ in range(n)]
        return self._compiled[key]


def read_openvino(core: openvino.Core, path: Path) -> openvino.Model:
    """The graph of an .xml that `export` made.

    Raises:
        ValueError: it is damaged, or not one of those.
    """
    try:
        model = core.read_model(path)
    except RuntimeError as e:
        raise ValueError(f"{path} is no OpenVINO model that can be read: {e}") from e
    if not model.has_rt_info([METADATA, "config"]):
        raise ValueError(
            f"{path} is an OpenVINO model, but none of this library: it holds no config; export the weights "
            "anew: u2net export --model SOURCE --format openvino --out FILE.xml"
        )
    return model


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
