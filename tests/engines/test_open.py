"""What runs the network: its maps, its devices, and what it must not import."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.engines.open import open_engine
from u2net_hub.engines.torch_engine import TorchEngine

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))


def tiny(**changes: object) -> U2Net:
    torch.manual_seed(0)
    config = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32)).replace(**changes)
    return U2Net(config).eval()


def batch(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 32, 32)).astype(np.float32)


def test_maps_are_the_sigmoid_of_the_logits() -> None:
    model = tiny()
    (fused,) = TorchEngine(model, "cpu")(batch())
    with torch.inference_mode():
        expected = model(torch.from_numpy(batch()))[0].sigmoid()
    assert fused.dtype == np.float32
    assert np.allclose(fused, expected, atol=1e-5)


def test_several_classes_go_through_softmax() -> None:
    (maps,) = TorchEngine(tiny(out_channels=3, activation="softmax"), "cpu")(batch())
    assert maps.shape == (2, 3, 32, 32)
    assert np.allclose(maps.sum(1), 1, atol=1e-5)


def test_side_outputs_come_after_the_fused_map() -> None:
    model = tiny()
    maps = TorchEngine(model, "cpu")(batch(), side_outputs=True)
    with torch.inference_mode():
        expected = [logits.sigmoid() for logits in model(torch.from_numpy(batch()))]
    assert len(maps) == len(expected) == 3  # fused, and one side for each of two depths
    for found, wanted in zip(maps, expected, strict=True):
        assert np.allclose(found, wanted, atol=1e-5)


def test_training_the_model_further_does_not_change_the_engine() -> None:
    model = tiny()
    engine = TorchEngine(model, "cpu")
    (before,) = engine(batch())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert np.array_equal(engine(batch())[0], before)


def test_the_engine_leaves_a_model_in_training_mode() -> None:
    model = tiny().train()
    TorchEngine(model, "cpu")(batch())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_half_precision_weights_run_in_float32() -> None:
    (fused,) = TorchEngine(tiny().half(), "cpu")(batch())
    assert fused.dtype == np.float32


def test_auto_is_cuda_where_there_is_one() -> None:
    device = open_engine(tiny()).device
    assert (device == "cuda") == torch.cuda.is_available()


def test_auto_runs_an_input_that_no_graph_is_made_for() -> None:
    (fused,) = open_engine(tiny())(batch())
    assert fused.shape == (2, 1, 32, 32)


def test_cuda_without_cuda_is_an_error_and_not_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(RuntimeError, match=r"'cuda' was asked for, but torch .* sees 0 CUDA GPUs"):
        open_engine(tiny(), device="cuda")


def test_mps_without_mps_is_an_error() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    with pytest.raises(RuntimeError, match="'mps' was asked for"):
        open_engine(tiny(), device="mps")


@pytest.mark.parametrize("device", ["gpu", "tpu:0", "", "xpu", "meta"])
def test_an_unknown_device_raises(device: str) -> None:
    with pytest.raises(ValueError, match="unknown device"):
        open_engine(tiny(), device=device)


def test_a_compiled_network_gives_the_same_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile(function: Callable[..., object], **options: object) -> Callable[..., object]:
        """A real one takes a minute and a C++ compiler."""
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    (fused,) = open_engine(tiny(), engine="torch", device="cpu", compile=True)(batch())
    assert compiled == [{"dynamic": False}]
    assert np.array_equal(fused, TorchEngine(tiny(), "cpu")(batch())[0])


def test_an_unknown_engine_raises() -> None:
    with pytest.raises(ValueError, match="unknown engine 'tensorflow', expected one of"):
        open_engine(tiny(), engine="tensorflow")  # type: ignore[arg-type]


def test_an_unknown_precision_raises() -> None:
    with pytest.raises(ValueError, match="unknown precision 'int3'"):
        open_engine(tiny(), precision="int3")  # type: ignore[arg-type]


def test_the_way_from_a_photo_to_a_cutout_imports_no_torch() -> None:
    code = "import sys; from u2net_hub import SaliencyPipeline, run_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["u2netp", "u2netp-168"])
def test_the_bundled_models_run_in_int8_as_installed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("U2NET_CACHE", str(tmp_path / "file"))  # a file, so that no folder can be made in it
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    photo = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
    pipeline = SaliencyPipeline(name, precision="int8")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is unpacked to the disk
    monkeypatch.undo()
    exact = SaliencyPipeline(name)(photo).probability
    assert np.abs(pipeline(photo).probability - exact).mean() <= 0.04


def test_int8_without_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[open_engine.__module__], "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"u2netp in int8 needs openvino, .* pip install 'u2net-hub\[openvino\]'"
    ):
        open_engine("u2netp", precision="int8")


def test_int8_in_another_engine_names_the_one_that_has_it() -> None:
    with pytest.raises(ValueError, match=r"engine 'onnxruntime' has no precision 'int8' for .*'openvino'"):
        open_engine("u2netp", precision="int8", engine="onnxruntime")
