"""Networks in ONNX Runtime."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..hub import Source
from .graph_cache import Float32, check_size, kept_graph, wanted
from .graph_files import import_runtime
from .onnx_builder import INPUT_NAME
from .openvino_engine import usable_cores
from .precision import Precision

if TYPE_CHECKING:
    from ..model import U2Net


logger = logging.getLogger(__name__)


_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}


class OnnxRuntimeEngine:
    """The network in ONNX Runtime, float32.

    Args:
        source: a network, weights, or an .onnx file that `export` made.
        device: "cpu", "cuda", "cuda:1", "coreml", "dml" (DirectML), or "auto" for the CPU.
        precision: "exact"; "fast" is the same here, and says so.

    Raises:
        ImportError: onnxruntime or onnx is not installed.
        RuntimeError: this onnxruntime cannot use the device.
        ValueError: the file is not of the family, or the network's input is too small for this engine.
    """

    name = "onnxruntime"

    def __init__(self, source: U2Net | Source, device: str = "auto", precision: Precision = "exact") -> None:
        ort = import_runtime("onnxruntime", "onnx")
        if precision == "fast":
            logger.warning("onnxruntime calculates in float32: precision is 'exact'")
        self.precision: Precision = "exact"
        self.device = "cpu" if device == "auto" else device
        kind, _, index = self.device.partition(":")
        providers: list[object] = ["CPUExecutionProvider"]
        if kind != "cpu":
            wanted = _PROVIDERS.get(kind)
            there = ort.get_available_providers()
            if wanted not in there:
                raise RuntimeError(
                    f"device {device!r} was asked for, but this onnxruntime has {there}; for a GPU: "
                    "pip install onnxruntime-gpu, or use engine='torch'"
                )
            providers.insert(0, (wanted, {"device_id": int(index or 0)} if kind != "coreml" else {}))
        self.config, graph, self._outputs = kept_graph(source)
        check_size(self)

        def open_session(threads: int) -> Any:
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            return ort.InferenceSession(graph, options, providers=providers)

        self._open = open_session
        self._whole: Any = None
        self._single: Any = None
        self._streams = usable_cores() if kind == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._streams)

    def __call__(self, batch: Float32, *, side_outputs: bool = False) -> tuple[Float32, ...]:
        names = wanted(self._outputs, side_outputs)
        if len(batch) < self._streams or self._streams == 1:
            self._whole = self._whole or self._open(usable_cores())
            return tuple(self._whole.run(names, {INPUT_NAME: batch}))
        # each photo on a core of its own: less waiting for each other than all cores on one photo
        self._single = self._single or self._open(1)
        runs = self._pool.map(lambda x: self._single.run(names, {INPUT_NAME: x[None]}), batch)
        return tuple(np.concatenate(maps) for maps in zip(*runs, strict=True))
