"""The engine that runs networks in PyTorch, on CPUs and GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from copy import deepcopy
from threading import Lock
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
"""The number of batch shapes for which an engine keeps a CUDA graph."""


class TorchEngine:
    """The network in PyTorch, with batch norm folded, in the channels-last memory format.

    The engine runs a copy of the network, so that further training does not change its maps. Several threads
    may call one engine.

    Args:
        model: The network, of any dtype, fused or not.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto"; upper and lower case mean the same.
        precision: "exact" is float32. "fast" is bfloat16 on a CPU that has it and float16 on a GPU, except in
            layers that need float32.
        compile: Whether torch.compile compiles the network, at the first call with each batch size.

    Raises:
        ValueError: The device is unknown.
        RuntimeError: The device is not available.
    """

    name = "torch"

    def __init__(
        self, model: U2Net, device: str = "auto", precision: Precision = "exact", *, compile: bool = False
    ) -> None:
        self.config = model.config
        self._device = find_device(device)
        self.device = str(self._device)
        self.precision: Precision = precision
        # fold batch norm in float32, whatever the weights' dtype
        in_float32 = all(tensor.dtype == torch.float32 for tensor in model.parameters())
        network = (model if in_float32 else deepcopy(model).float()).fuse()
        dtype = _low(self._device) if precision == "fast" else torch.float32
        if precision == "fast" and dtype == torch.float32:
            logger.warning("%s has no fast 16-bit arithmetic, so the network runs in float32", self.device)
            self.precision = "exact"
        if dtype != torch.float32:
            _lower_convolutions(network, dtype, sensitive_layers(model))
        self._dtype = dtype
        self._model = network.to(self._device).to(memory_format=torch.channels_last)
        self._run = self._forward
        if compile:
            logger.info("torch.compile takes a minute or more for the first batch of each size")
            self._run = torch.compile(self._forward, dynamic=False)
        self._graphs: dict[tuple[object, ...], _CapturedGraph] = {}
        self._seen: set[tuple[object, ...]] = set()
        self._uses_graphs = self._device.type == "cuda" and not compile
        self._lock = Lock()

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            x = torch.from_numpy(batch).to(self._device)
            # On a CPU one photo keeps all cores busy, and several together do not fit into its caches.
            n = 1 if self._device.type == "cpu" else max(len(x), 1)
            parts = [x[i : i + n] for i in range(0, max(len(x), 1), n)]
            maps = [self.maps(part, side_outputs=side_outputs) for part in parts]
            return tuple(torch.cat(y).cpu().numpy() for y in zip(*maps, strict=True))

    def maps(self, x: Tensor, *, side_outputs: bool = False) -> tuple[Tensor, ...]:
        """Compute the float32 maps of a batch; batch and maps are tensors on the engine's device."""
        with torch.inference_mode():
            if not self._uses_graphs:
                return self._run(x, side_outputs)
            # A graph reads and writes fixed memory: a second thread would replace the first one's input.
            with self._lock:
                return self._replay(x, side_outputs)

    def _replay(self, x: Tensor, side_outputs: bool) -> tuple[Tensor, ...]:
        """Compute the maps with the CUDA graph for this shape, which is captured when a shape repeats."""
        key = (tuple(x.shape), side_outputs)
        if key not in self._seen:
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
    """A CUDA graph of one forward pass, which launches all kernels together.

    At batch 1, to launch the kernels one by one takes longer than to run them. Only one thread at a time may
    call the object.
    """

    def __init__(
        self, forward: Callable[[Tensor, bool], tuple[Tensor, ...]], x: Tensor, side_outputs: bool
    ) -> None:
        self._input = x.clone()
        # memory and kernels have to be chosen before the capture, on a stream of its own
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(self._input, side_outputs)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = forward(self._input, side_outputs)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record(torch.cuda.current_stream(x.device))

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(self._done)  # the last caller's copies may be on another thread's stream
        self._input.copy_(x)
        self._graph.replay()
        maps = tuple(y.clone() for y in self._outputs)
        self._done.record(stream)
        return maps


def _lower_convolutions(network: U2Net, dtype: torch.dtype, kept: Collection[str]) -> None:
    """Convert convolutions to a 16-bit dtype, except the kept ones; each one casts its input to its dtype."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.removesuffix(".conv_s1") not in kept:
                module.to(dtype)
            module.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    assert isinstance(module, nn.Conv2d)
    return (inputs[0].to(module.weight.dtype),)


def _low(device: torch.device) -> torch.dtype:
    """Return the 16-bit dtype in which the device is faster than in float32; float32 if there is none."""
    if device.type in ("cuda", "mps"):
        return torch.float16
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def find_device(name: str) -> torch.device:
    """Find the device that a name stands for, which may be "auto".

    Raises:
        ValueError: The name is unknown.
        RuntimeError: The device is not available.
    """
    asked, name = name, str(name).lower()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    unknown = f"unknown device {asked!r}, expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ValueError(unknown) from e
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index):
        raise ValueError(unknown)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA GPUs; use device='auto' or 'cpu', or install a torch with CUDA: https://pytorch.org"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError("device 'mps' was asked for, but this machine has no Apple GPU that torch can use")
    return torch.device("cpu") if device.type == "cpu" else device
