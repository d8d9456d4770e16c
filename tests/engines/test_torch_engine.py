"""PyTorch: which layers run in which dtype, what torch.compile gets, and CUDA graphs called from threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from u2net_hub import SaliencyPipeline, U2Net
from u2net_hub.engines import open_engine, torch_engine
from u2net_hub.engines.torch_engine import TorchEngine

Forward = Callable[[Tensor, bool], tuple[Tensor, ...]]


def photos(n: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 32, 32)).astype(np.float32)


def dtypes_of_a_run(engine: TorchEngine) -> dict[str, torch.dtype]:
    """The dtype of each convolution's output while the engine runs a photo."""
    found = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[name.removesuffix(".conv_s1")] = output.dtype

        return hook

    for name, module in engine._model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    engine(photos())
    return found


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor for which "fast" is bfloat16, whatever this one is."""
    monkeypatch.setattr(torch_engine, "_low", lambda device: torch.bfloat16)


@pytest.mark.usefixtures("bfloat16")
def test_fast_calculates_every_layer_in_16_bit_but_for_those_with_a_large_bias(
    tiny: Callable[[int], U2Net],
) -> None:
    network = tiny(0)
    with torch.no_grad():
        network.stage1.rebnconv1.bn_s1.bias[0] = 1361
        network.side1.bias[0] = -64
    found = dtypes_of_a_run(TorchEngine(network, "cpu", "fast"))
    in_float32 = {name for name, dtype in found.items() if dtype == torch.float32}
    assert in_float32 == {"stage1.rebnconv1", "side1"}
    assert {dtype for name, dtype in found.items() if name not in in_float32} == {torch.bfloat16}
    assert len(found) == sum(isinstance(module, nn.Conv2d) for module in network.modules())


@pytest.mark.usefixtures("bfloat16")
def test_a_signal_beside_a_large_bias_survives_fast(tiny: Callable[[int], U2Net]) -> None:
    network = tiny(0)
    with torch.no_grad():
        network.side1.bias[0] = 1361
        network.outconv.weight.zero_()
        network.outconv.weight[0, 0] = 1
        network.outconv.bias[0] = -1361  # bfloat16, whose spacing at 1361 is 8, loses the signal
    (exact,), (fast,) = (TorchEngine(network, "cpu", each)(photos()) for each in ("exact", "fast"))
    assert exact.std() > 0.001
    assert np.abs(fast - exact).max() < 0.05


def test_exact_calculates_every_layer_in_float32(tiny: Callable[[int], U2Net]) -> None:
    assert set(dtypes_of_a_run(TorchEngine(tiny(0), "cpu")).values()) == {torch.float32}


def test_maps_come_from_what_torch_compile_returned(
    tiny: Callable[[int], U2Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def stand_in(function: Forward, **options: object) -> Forward:
        def compiled(x: Tensor, side_outputs: bool) -> tuple[Tensor, ...]:
            calls.append(len(x))
            return function(x, side_outputs)

        return compiled

    monkeypatch.setattr(torch, "compile", stand_in)
    folder = tiny(0).save_pretrained(tmp_path / "net")
    photo = np.zeros((32, 32, 3), np.uint8)
    for opened in (
        open_engine(tiny(0), engine="torch", device="cpu", compile=True),
        SaliencyPipeline(tiny(0), engine="torch", device="cpu", compile=True).engine,
        SaliencyPipeline.from_pretrained(folder, engine="torch", device="cpu", compile=True).engine,
    ):
        calls.clear()
        opened(photos(2))
        assert calls == [1, 1]  # on a CPU, one photo after the other
    SaliencyPipeline(tiny(0), engine="torch", device="cpu")(photo)
    assert calls == [1, 1]  # without compile, nothing is


def test_two_threads_get_the_maps_of_their_own_inputs_from_one_cuda_graph(
    tiny: Callable[[int], U2Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Graph:
        """What a captured graph does: fixed memory for its input, which a second caller writes to."""

        def __init__(self, forward: Forward, x: Tensor, side_outputs: bool) -> None:
            self.forward, self.input, self.side_outputs = forward, x.clone(), side_outputs
            self.callers = threading.Barrier(2)

        def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
            self.input.copy_(x)
            try:
                self.callers.wait(0.5)  # both have written, if nothing keeps the second one out
            except threading.BrokenBarrierError:
                self.callers = threading.Barrier(2)
            return self.forward(self.input, self.side_outputs)

    monkeypatch.setattr(torch_engine, "_CapturedGraph", Graph)
    engine = TorchEngine(tiny(0), "cpu")
    inputs = [photos(), -photos()]
    expected = [engine(x)[0] for x in inputs]
    engine._uses_graphs = True
    engine(inputs[0])  # the first call of a shape runs without a graph
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: engine(x)[0], inputs))
    assert len(engine._graphs) == 1
    assert not np.array_equal(expected[0], expected[1])
    for y, wanted in zip(found, expected, strict=True):
        assert np.allclose(y, wanted, atol=1e-6)
