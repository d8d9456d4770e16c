"""The network in PyTorch: on CPUs, and the only engine for GPUs."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .precision import Precision, sensitive_layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..model import U2Net


logger = logging.getLogger(__name__)


_GRAPHS = 8
"""So many sizes of batch keep a CUDA graph."""


class TorchEngine:
    """The network in PyTorch, batch norm folded, channels last.

    It runs a copy of the network as it is now: training it further changes nothing here.

    Args:
        model: the network.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        precision: "exact", float32; "fast", bfloat16 on a CPU that has it, float16 on a GPU, with the layers
            that need it in float32.
        compile: by torch.compile, at the first call of each batch size.

    Raises:
        ValueError: an unknown device.
        RuntimeError: the device is not there.
    """

    name = "torch"

    def __init__(
        self, model: U2Net, device: str = "auto", precision: Precision = "exact", *, compile: bool = False
    ) -> None:
        self.config = model.config
        self._device = find_device(device)
        self.device = str(self._device)
        self.precision: Precision = precision
        network = model.fuse().float()
        dtype = _low(self._device) if precision == "fast" else torch.float32
        if precision == "fast" and dtype == torch.float32:
            logger.warning("this %s has no fast 16-bit arithmetic: running in float32", self.device)
            self.precision = "exact"
        if dtype != torch.float32:
            _lower(network, dtype, sensitive_layers(model))
        self._dtype = dtype
        self._model = network.to(self._device).to(memory_format=torch.channels_last)
        self._run = self._forward
        if compile:
            logger.info("torch.compile takes a minute or more at the first batch of each size")
            self._run = torch.compile(self._forward, dynamic=False)
        self._graphs: dict[tuple[object, ...], _CapturedGraph] = {}
        self._seen: set[tuple[object, ...]] = set()
        self._uses_graphs = self._device.type == "cuda" and not compile

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            x = torch.from_numpy(batch).to(self._device)
            # on a CPU one photo keeps all cores busy, and several together no longer fit into its caches
            n = 1 if self._device.type == "cpu" else max(len(x), 1)
            parts = [x[i : i + n] for i in range(0, max(len(x), 1), n)]
            maps = [self.maps(part, side_outputs=side_outputs) for part in parts]
            return tuple(torch.cat(y).cpu().numpy() for y in zip(*maps, strict=True))

    def maps(self, x: Tensor, *, side_outputs: bool = False) -> tuple[Tensor, ...]:
        """The maps of a batch that is on the device, there: float32, as for a call of the engine."""
        with torch.inference_mode():
            if not self._uses_graphs:
                return self._run(x, side_outputs)
            key = (tuple(x.shape), side_outputs)
            if key not in self._seen:  # a size that comes once is not worth a graph
                self._seen.add(key)
                return self._run(x, side_outputs)
            if key not in self._graphs:
                if len(self._graphs) == _GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[key] = _CapturedGraph(self._forward, x, side_outputs)
            return self._graphs[key](x)

    def _forward(self, x: Tensor, side_outputs: bool) -> tuple[Tensor, ...]:
        logits = self._model(x.to(self._dtype, memory_format=torch.channels_last))
        maps = logits if side_outputs else logits[:1]
        softmax = self.config.activation == "softmax"
        return tuple(y.float().softmax(1) if softmax else y.float().sigmoid() for y in maps)


class _CapturedGraph:
    """The kernels of one forward pass, launched as one: at batch 1 that takes longer than running them."""

    def __init__(self, forward: object, x: Tensor, side_outputs: bool) -> None:
        assert callable(forward)
        self._input = x.clone()
        # memory and kernels have to be settled before a capture, on a stream of its own
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(self._input, side_outputs)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = forward(self._input, side_outputs)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        self._input.copy_(x)
        self._graph.replay()
        return tuple(y.clone() for y in self._outputs)


def _lower(network: U2Net, dtype: torch.dtype, kept: Collection[str]) -> None:
    """Convolutions in 16 bit but for the sensitive ones; each takes its input in its own precision."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.removesuffix(".conv_s1") not in kept:
                module.to(dtype)
            module.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    assert isinstance(module, nn.Conv2d)
    return (inputs[0].to(module.weight.dtype),)


def _low(device: torch.device) -> torch.dtype:
    """The 16-bit type that the device calculates faster in than in float32; float32 where there is none."""
    if device.type in ("cuda", "mps"):
        return torch.float16
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def find_device(name: str) -> torch.device:
    """The device of a name, "auto" included; raises as `TorchEngine` does."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
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
