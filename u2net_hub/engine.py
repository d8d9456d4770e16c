"""What runs the network: one callable, batch of preprocessed images in, maps out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from .config import U2NetConfig
    from .model import U2Net

logger = logging.getLogger(__name__)

EngineName: TypeAlias = Literal["auto", "torch"]
Precision: TypeAlias = Literal["exact"]


class Engine(Protocol):
    """Runs one network on batches.

    Calling it maps float32 (B, C, h, w), as `image.preprocess` makes them, to maps in [0, 1] after sigmoid or
    softmax, each float32 (B, out, h, w): the fused one, and with `side_outputs=True` the six sides after it.
    """

    config: U2NetConfig
    name: str
    device: str

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]: ...


def open_engine(
    source: U2Net | str | Path,
    *,
    engine: EngineName = "auto",
    device: str = "auto",
    precision: Precision = "exact",
) -> Engine:
    """The engine for a network or for a source of weights.

    Args:
        source: a U2Net, or what `U2Net.from_pretrained` takes.
        engine: `"torch"`; `"auto"` is the same.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`, or `"auto"` for the best there is.
        precision: `"exact"`, float32.

    Raises:
        ValueError: an unknown engine, device or precision, or an unknown source.
        RuntimeError: the device is not there.
    """
    if engine not in ("auto", "torch"):
        raise ValueError(f"unknown engine {engine!r}, expected one of ['auto', 'torch']")
    if precision != "exact":
        raise ValueError(f"unknown precision {precision!r}, expected 'exact'")
    from .model import U2Net

    model = source if isinstance(source, U2Net) else U2Net.from_pretrained(source)
    return TorchEngine(model, device)


class TorchEngine:
    """The network in PyTorch, float32, batch norm folded.

    It runs a copy of the network as it is now: training it further changes nothing here.
    """

    name = "torch"

    def __init__(self, model: U2Net, device: str = "auto") -> None:
        import torch

        self.config = model.config
        self._device = _torch_device(device)
        self.device = str(self._device)
        self._model = model.fuse().float().to(self._device).to(memory_format=torch.channels_last)

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]:
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
            logits = self._model(x)
            maps = logits if side_outputs else logits[:1]
            return tuple(self._activate(y).cpu().numpy() for y in maps)

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(1) if self.config.activation == "softmax" else logits.sigmoid()


def _torch_device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        logger.info("device %s", name)
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(f"unknown device {name!r}, expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from e
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA GPUs; use device='auto' or 'cpu', or install a torch with CUDA: https://pytorch.org"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError("device 'mps' was asked for, but this machine has no Apple GPU that torch can use")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {name!r}, expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")
    return device
