"""ONNX Runtime and OpenVINO: the network as a graph, without torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .config import U2NetConfig
from .graph import INPUT_NAME, SMALLEST, build_graph, config_said, fold, output_names
from .hub import Source, write_files
from .layout import fit
from .openvino_precision import METADATA, keep_in_float32
from .precision import Precision, sensitive_convolutions

if TYPE_CHECKING:
    import openvino

    from .model import U2Net

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]

_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}
_KEPT = 4
"""So many input sizes stay compiled."""


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
        self.config, graph, self._outputs = _graph_of(source)
        _check_size(self)

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
        names = _wanted(self._outputs, side_outputs)
        if len(batch) < self._streams or self._streams == 1:
            self._whole = self._whole or self._open(usable_cores())
            return tuple(self._whole.run(names, {INPUT_NAME: batch}))
        # each photo on a core of its own: less waiting for each other than all cores on one photo
        self._single = self._single or self._open(1)
        runs = self._pool.map(lambda x: self._single.run(names, {INPUT_NAME: x[None]}), batch)
        return tuple(np.concatenate(maps) for maps in zip(*runs, strict=True))


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
            self.config, graph, self._outputs = _graph_of(source)
            self._model = self._core.read_model(graph)
        is_quantised = any(op.get_type_name() == "FakeQuantize" for op in self._model.get_ops())
        if is_quantised != (precision == "int8"):
            found = "int8" if is_quantised else "exact or fast"
            raise ValueError(f"precision {precision!r} was asked for, and the file is for {found}")
        if self._hint != "f32":
            kept = json.loads(self._said("float32"))
            self._model = keep_in_float32(self._core, self._model, kept) if kept else self._model
        _check_size(self)
        self._compiled: dict[tuple[int, int, str], list[openvino.InferRequest]] = {}
        self._lock = Lock()

    def __call__(self, batch: Float32, *, side_outputs: bool = False) -> tuple[Float32, ...]:
        names = _wanted(self._outputs, side_outputs)
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
            if len(self._compiled) == _KEPT:
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


def config_inside(path: Path) -> U2NetConfig | None:
    """The config in the metadata of an .onnx file that `export` made; None if it is another one.

    Raises:
        ValueError: what is there is no config.
    """
    return config_said(_metadata(path), path)


def _metadata(path: Path) -> dict[str, str]:
    """What an .onnx file says of itself; nothing, if it cannot be read."""
    try:
        import onnx
    except ImportError:
        ort = import_runtime("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return dict(ort.InferenceSession(path, options).get_modelmeta().custom_metadata_map)
    from google.protobuf.message import DecodeError

    try:
        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except DecodeError:
        return {}  # the reader of weights says what is wrong with it


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Where built graphs are kept: U2NET_CACHE, else the user's cache folder."""
    if os.environ.get("U2NET_CACHE"):
        return Path(os.environ["U2NET_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "u2net-hub"


class _Graph(NamedTuple):
    config: U2NetConfig
    content: bytes
    """ONNX."""
    outputs: list[str]


def _graph_of(source: U2Net | Source) -> _Graph:
    """The graph of a network, with all its outputs; of a file of weights it is kept for the next time."""
    if not isinstance(source, Source):
        state = {key: value.detach().cpu().numpy() for key, value in source.state_dict().items()}
        return _Graph(source.config, _build(source.config, state), output_names(source.config))
    if source.format == "onnx" and (inside := config_inside(source.weights_path)) is not None:
        outputs = json.loads(_metadata(source.weights_path)["outputs"])
        return _Graph(inside, source.weights_path.read_bytes(), outputs)
    config, read = _tensors(source)
    identity = f"{source.sha256} {config.to_json()} {__version__}"
    kept = cache_folder() / f"{hashlib.sha256(identity.encode()).hexdigest()}.onnx"
    graph = _read_kept(kept)
    if graph is None:
        graph = _build(config, read())
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_files(kept.parent, {kept.name: graph, f"{kept.name}.sha256": _sha256(graph)})
        except OSError as e:
            logger.info("the graph is not kept for the next time: %s", e)
    return _Graph(config, graph, output_names(config))


def _build(config: U2NetConfig, state: dict[str, NDArray[Any]]) -> bytes:
    convs = fold(config, state)
    kept = {"float32": json.dumps(sensitive_convolutions(convs))}
    built: bytes = build_graph(config, convs, side_outputs=True, metadata=kept).SerializeToString()
    return built


def _tensors(source: Source) -> tuple[U2NetConfig, Callable[[], dict[str, NDArray[Any]]]]:
    """The config of a file of weights, and what reads its tensors; without torch, where that can be had."""
    from safetensors import SafetensorError, safe_open

    if source.format == "safetensors":
        try:
            with safe_open(source.weights_path, "np") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
                types = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            if types <= {"F16", "F32", "F64", "I64"}:  # NumPy has no bfloat16
                from safetensors.numpy import load_file

                config = fit(source.weights_path, shapes, source.config())
                return config, lambda: load_file(source.weights_path)
        except (SafetensorError, ValueError):
            pass  # the reader below says what is wrong with it
    from .hub import load_network
    from .model import U2Net

    network = load_network(U2Net, source)
    return network.config, lambda: {key: value.numpy() for key, value in network.state_dict().items()}


def _read_kept(path: Path) -> bytes | None:
    """A graph that was kept, if it is as it was written."""
    try:
        graph = path.read_bytes()
        said = path.with_name(f"{path.name}.sha256").read_bytes()
    except OSError:
        return None
    return graph if said == _sha256(graph) else None


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _wanted(names: list[str], side_outputs: bool) -> list[str]:
    if not side_outputs:
        return names[:1]
    if len(names) == 1:
        raise ValueError("this file was exported without side outputs; export it with --all-outputs")
    return names


def _check_size(engine: OnnxRuntimeEngine | OpenVinoEngine) -> None:
    if min(engine.config.input_size) < SMALLEST:
        height, width = engine.config.input_size
        raise ValueError(
            f"the network's input is {height} × {width} px, engine {engine.name!r} needs at least "
            f"{SMALLEST} × {SMALLEST}; use engine 'torch'"
        )


def import_runtime(package: str, extra: str) -> Any:
    """The package, or an ImportError that says how to install it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as e:
        raise ImportError(
            f"engine {package!r} needs {e.name}; install it with: pip install 'u2net-hub[{extra}]'"
        ) from e
