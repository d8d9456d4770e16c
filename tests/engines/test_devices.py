"""Names of devices: any case, and never a change of precision."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from u2net_hub import U2Net
from u2net_hub.engines import open_engine
from u2net_hub.engines.openvino_engine import OpenVinoEngine


@pytest.fixture
def network() -> U2Net:
    from u2net_hub import U2NetConfig
    from u2net_hub.config import Stage

    torch.manual_seed(0)
    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))
    return U2Net(U2NetConfig(variant="custom", stages=stages, input_size=(40, 40))).eval()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("device", ["cpu", "CPU", "Cpu", "cpu:0"])
def test_the_processor_has_one_name_whatever_its_case(engine: str, device: str, network: U2Net) -> None:
    pytest.importorskip(engine)
    opened = open_engine(network, engine=engine, device=device)
    assert opened.device == "cpu"
    x = np.random.default_rng(0).standard_normal((1, 3, 40, 40)).astype(np.float32)
    assert np.allclose(opened(x)[0], open_engine(network, engine=engine, device="cpu")(x)[0], atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_auto_has_any_case_too(engine: str, network: U2Net) -> None:
    pytest.importorskip(engine)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("auto is the GPU here")
    assert open_engine(network, engine=engine, device="AUTO").device == "cpu"


@pytest.mark.parametrize("device", ["cpu", "CPU", "CPU.0"])
@pytest.mark.parametrize(("capabilities", "expected"), [(["BF16"], "bf16"), (["FP32"], "f32")])
def test_fast_on_the_processor_is_bfloat16_or_float32_whatever_its_name(
    device: str, capabilities: list[str], expected: str, network: U2Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(OpenVinoEngine, "_capabilities", lambda self: capabilities)
    opened = open_engine(network, engine="openvino", device=device, precision="fast")
    assert isinstance(opened, OpenVinoEngine)
    assert opened._hint == expected


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("device", ["cpu:3", "cpu.3", "cuda:x", "", "tpu"])
def test_a_device_that_no_engine_has_is_refused_in_words(engine: str, device: str, network: U2Net) -> None:
    pytest.importorskip(engine)
    with pytest.raises((ValueError, RuntimeError), match=f"device '{device}'"):
        open_engine(network, engine=engine, device=device)


def test_onnxruntime_does_not_fall_back_from_a_gpu_to_the_processor(
    network: U2Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = pytest.importorskip("onnxruntime")

    class Session:
        """What onnxruntime-gpu opens where CUDA's libraries are missing."""

        providers: ClassVar[list[str]] = ["CPUExecutionProvider"]

        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return self.providers

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", Session)
    opened = open_engine(network, engine="onnxruntime", device="CUDA:0")
    assert opened.device == "cuda:0"
    with pytest.raises(RuntimeError, match=r"device 'cuda:0' .* fell back to the CPU"):
        opened(np.zeros((1, 3, 40, 40), np.float32))
