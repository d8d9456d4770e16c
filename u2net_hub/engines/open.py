"""Choose and open the engine for a network or for a source of weights."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..hub import Source, resolve
from .graph_files import calibrated_graph
from .onnx_builder import SMALLEST
from .precision import Precision
from .protocol import Engine, EngineName

if TYPE_CHECKING:
    from ..model import U2Net


logger = logging.getLogger(__name__)

# The engines from the fastest to the slowest on a CPU, as `u2net bench` measured them
_RANKED: dict[Precision, tuple[EngineName, ...]] = {
    "exact": ("openvino", "onnxruntime", "torch"),
    "fast": ("openvino", "torch", "onnxruntime"),
    "int8": ("openvino",),
}


def open_engine(
    source: U2Net | Source | str | Path,
    *,
    engine: EngineName = "auto",
    device: str = "auto",
    precision: Precision = "exact",
    compile: bool = False,
) -> Engine:
    """Open the engine for a network or for a source of weights.

    Args:
        source: A U2Net, what `U2Net.from_pretrained` takes, or a file that `export` made. On a CPU a
            .safetensors or an exported file runs in ONNX Runtime and OpenVINO without importing torch.
        engine: "torch", "onnxruntime", "openvino", or "auto" for the fastest that is installed.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best device available, in any case.
            OpenVINO also knows its own names, e.g. "GPU" for Intel's.
        precision: "exact", float32; "fast", 16-bit if the hardware has it, except in layers that need
            float32; "int8", for the bundled models, and for a file that was exported with
            that precision.
        compile: Whether torch compiles the network at the first call with each batch size. That takes a
            minute or more on a CPU, and is worth it for long runs of one size.

    Raises:
        ValueError: The engine, device, precision or source is unknown, or they do not go together.
        ImportError: The engine is not installed.
        RuntimeError: The device is not available.
    """
    if engine not in get_args(EngineName):
        raise ValueError(f"unknown engine {engine!r}, expected one of {list(get_args(EngineName))}")
    if precision not in get_args(Precision):
        raise ValueError(f"unknown precision {precision!r}, expected one of {list(get_args(Precision))}")
    if isinstance(source, str | Path):
        source = resolve(source)
    exported = None
    if isinstance(source, Source) and (
        _is_exported(source) or (precision == "int8" and calibrated_graph(source))
    ):
        exported = source
    if precision == "int8" and exported is None:
        raise ValueError(
            "precision 'int8' is for a file that was calibrated: "
            "u2net export --model SOURCE --format openvino --precision int8 --data FOLDER --out FILE.xml"
        )
    chosen = _choose(engine, str(device).lower(), precision, exported, _is_too_small(source))
    if compile and chosen != "torch":
        raise ValueError(f"compile=True is for engine 'torch', and the engine is {chosen!r}")
    opened: Engine
    if chosen == "torch":
        from ..model import U2Net
        from .torch_engine import TorchEngine

        network = source if isinstance(source, U2Net) else _load(source)
        opened = TorchEngine(network, device, precision, compile=compile)
    else:
        from .onnxruntime_engine import OnnxRuntimeEngine
        from .openvino_engine import OpenVinoEngine

        kind = OnnxRuntimeEngine if chosen == "onnxruntime" else OpenVinoEngine
        opened = kind(source, device, precision)
    logger.info("engine %s, precision %s, device %s", opened.name, opened.precision, opened.device)
    return opened


def _is_exported(source: Source) -> bool:
    """Tell whether `export` made the file. Of other .onnx files, only the weights are read."""
    if source.format == "xml":
        return True
    if source.format != "onnx":
        return False
    from .graph_files import config_inside

    return config_inside(source.weights_path) is not None


def _load(source: Source) -> U2Net:
    from ..hub import load_network
    from ..model import U2Net

    return load_network(U2Net, source)


def _choose(
    engine: EngineName, device: str, precision: Precision, exported: Source | None, too_small: bool
) -> EngineName:
    """Choose the engine: the requested one if it can run the source, or for "auto" the fastest that can."""
    able: tuple[EngineName, ...] = _RANKED[precision]
    if exported is not None:
        if exported.format == "onnx" and precision == "int8":
            raise ValueError(
                f"{exported.name} is ONNX, whose precision is 'exact'; int8 is for OpenVINO's .xml"
            )
        if exported.format == "xml":
            able = ("openvino",)
        elif exported.format == "onnx":
            able = ("onnxruntime", "openvino", "torch")
    if engine != "auto":
        if engine not in able:
            raise ValueError(
                f"engine {engine!r} has no precision {precision!r} for "
                f"{exported.name if exported else 'this source'}, expected one of {list(able)}"
            )
        return engine
    if "torch" in able and (
        too_small or device not in ("auto", "cpu", "cpu:0") or (device == "auto" and _has_gpu())
    ):
        return "torch"
    for name in able:
        if name == "torch" or _is_installed(name, exported is None):
            return name
    what = exported.name if exported else "this source"
    raise ImportError(
        f"{what}{' in int8' if precision == 'int8' else ''} needs openvino, which is not installed; "
        "install it with: pip install 'u2net-hub[openvino]'"
    )


def _is_installed(name: EngineName, builds: bool) -> bool:
    """Tell whether the engine is installed and, if a graph has to be built, whether onnx is installed."""
    return find_spec(name) is not None and (not builds or find_spec("onnx") is not None)


def _is_too_small(source: U2Net | Source) -> bool:
    """Tell whether the network's input is too small for a graph."""
    config = source.config() if isinstance(source, Source) else source.config
    return config is not None and min(config.input_size) < SMALLEST


def _has_gpu() -> bool:
    """Tell whether torch has a GPU; torch is imported only if the machine may have one."""
    maybe = sys.platform == "darwin" or os.path.exists("/proc/driver/nvidia") or shutil.which("nvidia-smi")
    if not maybe:
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
