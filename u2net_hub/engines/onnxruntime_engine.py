"""The engine that runs networks in ONNX Runtime."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..hub import Source
from .graph_cache import Float32, check_size, choose_outputs, kept_graph
from .graph_files import import_runtime, one_line, onnxruntime_errors, refused_graph
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
    """The network in ONNX Runtime, in float32.

    Args:
        source: A network, weights, or an .onnx file that `export` made.
        device: "cpu", "cuda", "cuda:1", "coreml", "dml" (DirectML), or "auto" for the CPU; upper and
            lower case mean the same.
        precision: "exact" is float32. "fast" also runs in float32, with a warning.

    Raises:
        ImportError: onnxruntime or onnx is not installed.
        RuntimeError: This onnxruntime cannot use the device.
        ValueError: The device is unknown, the file is not of the U²-Net family, or the network's input is
            too small for this engine.
    """

    name = "onnxruntime"

    def __init__(self, source: U2Net | Source, device: str = "auto", precision: Precision = "exact") -> None:
        self._ort = import_runtime("onnxruntime", "onnx")
        if precision == "fast":
            logger.warning("onnxruntime calculates in float32, so the precision is 'exact'")
        self.precision: Precision = "exact"
        self.device, self._providers = _find_providers(device, self._ort.get_available_providers())
        self.config, self._graph, self._outputs, self._path = kept_graph(source)
        check_size(self)
        self._whole: Any = None
        self._single: Any = None
        self._streams = usable_cores() if self.device == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._streams)

    def __call__(self, batch: Float32, *, side_outputs: bool = False) -> tuple[Float32, ...]:
        names = choose_outputs(self._outputs, side_outputs)
        try:
            if len(batch) < self._streams or self._streams == 1:
                self._whole = self._whole or self._open(usable_cores())
                return tuple(self._whole.run(names, {INPUT_NAME: batch}))
            # One core per photo is faster than all cores on one photo: the cores wait less for each other.
            self._single = self._single or self._open(1)
            runs = self._pool.map(lambda x: self._single.run(names, {INPUT_NAME: x[None]}), batch)
            return tuple(np.concatenate(maps) for maps in zip(*runs, strict=True))
        except onnxruntime_errors() as e:
            size = " × ".join(map(str, batch.shape[2:]))
            raise RuntimeError(
                f"ONNX Runtime could not run a batch of {len(batch)} photos of {size} px on {self.device}: "
                f"{one_line(e)}; try a smaller batch or another engine"
            ) from e

    def _open(self, threads: int) -> Any:
        """Open a session that uses this number of threads for each run."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = self._ort.InferenceSession(self._graph, options, providers=self._providers)
        except onnxruntime_errors() as e:
            raise refused_graph(self._path, "ONNX Runtime", e) from e
        provider = self._providers[0][0]
        if provider not in session.get_providers():
            raise RuntimeError(
                f"device {self.device!r} was asked for, but ONNX Runtime could not start {provider} and fell "
                "back to the CPU; check the GPU's libraries, or use device='cpu' or engine='torch'"
            )
        return session


def _find_providers(device: str, available: list[str]) -> tuple[str, list[tuple[str, dict[str, int]]]]:
    """Return the device's name in lower case, and ONNX Runtime's providers for it, the preferred first."""
    name = str(device).lower()
    kind, colon, index = name.partition(":")
    on_cpu: tuple[str, dict[str, int]] = ("CPUExecutionProvider", {})
    if name in ("auto", "cpu", "cpu:0"):
        return "cpu", [on_cpu]
    if kind not in _PROVIDERS:
        raise ValueError(
            f"device {device!r} is unknown to engine 'onnxruntime', expected 'auto', 'cpu', "
            f"{', '.join(map(repr, _PROVIDERS))} or 'cuda:1'; engine 'torch' may support it"
        )
    if colon and not (index.isdecimal() and kind != "coreml"):
        raise ValueError(f"device {device!r} has no valid number, expected e.g. 'cuda:1'")
    provider = _PROVIDERS[kind]
    if provider not in available:
        raise RuntimeError(
            f"device {device!r} was asked for, but this onnxruntime has {available}; for a GPU: "
            "pip install onnxruntime-gpu, or use engine='torch'"
        )
    return name, [(provider, {} if kind == "coreml" else {"device_id": int(index or 0)}), on_cpu]
