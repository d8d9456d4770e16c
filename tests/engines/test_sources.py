"""Networks in every form that a program may hold: fused, in 16 bit, or in a file that a runtime refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, export
from u2net_hub.config import Stage
from u2net_hub.engines import graph_files, open_engine
from u2net_hub.engines.precision import sensitive_layers

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CLOSE = 1e-4

engines = pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])


def small() -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40)))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def photos(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 3, 48, 40)).astype(np.float32)


def in_float32(network: U2Net) -> np.ndarray:
    """The maps of a network's weights, calculated in float32 with batch norm as it was trained."""
    again = small()
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        return again(torch.from_numpy(photos()))[0].sigmoid().numpy()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def with_a_node_that_no_runtime_has(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[3].op_type = "Frobnicate"
    onnx.save(model, path)


def from_the_future(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save(model, path)


@engines
def test_a_fused_network_gives_the_maps_that_it_gave_before(engine: str) -> None:
    (found,) = SaliencyPipeline(small().fuse(), engine=engine, device="cpu").engine(photos())
    assert np.abs(found - in_float32(small())).max() <= CLOSE


@engines
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_network_of_another_dtype_is_calculated_in_float32(engine: str, dtype: torch.dtype) -> None:
    network = small().to(dtype)
    (found,) = SaliencyPipeline(network, engine=engine, device="cpu").engine(photos())
    assert found.dtype == np.float32
    assert np.abs(found - in_float32(network)).max() <= CLOSE
    assert network.outconv.weight.dtype == dtype  # the caller's network is left as it was


@engines
def test_a_fused_network_in_bfloat16_runs(engine: str) -> None:
    network = small().fuse().bfloat16()
    with torch.inference_mode():
        expected = network.float()(torch.from_numpy(photos()))[0].sigmoid().numpy()
    (found,) = open_engine(network.bfloat16(), engine=engine, device="cpu")(photos())
    assert np.abs(found - expected).max() <= CLOSE


def test_a_fused_network_has_the_sensitive_layers_that_it_had_before() -> None:
    network = small()
    with torch.no_grad():
        network.stage1d.rebnconv1d.bn_s1.bias[0] = 1361
    assert sensitive_layers(network.fuse()) == sensitive_layers(network) == ("stage1d.rebnconv1d",)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_fused_network_is_exported(suffix: str, tmp_path: Path) -> None:
    path = export(small().fuse(), tmp_path / f"net{suffix}")
    engine = "onnxruntime" if suffix == ".onnx" else "openvino"
    (found,) = open_engine(path, engine=engine, device="cpu")(photos())
    assert np.abs(found - in_float32(small())).max() <= CLOSE


@pytest.mark.parametrize(
    ("engine", "damage"),
    [
        ("onnxruntime", with_a_node_that_no_runtime_has),
        ("openvino", with_a_node_that_no_runtime_has),
        ("onnxruntime", from_the_future),
    ],
)
def test_a_graph_that_the_runtime_refuses_is_named_with_a_remedy(
    engine: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    path = export(small(), tmp_path / "net.onnx")
    damage(path)
    with pytest.raises(ValueError, match=r"net\.onnx cannot be run by .*; export .* u2net export") as caught:
        open_engine(path, engine=engine, device="cpu")(photos())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [cut, with_a_node_that_no_runtime_has])
def test_a_graph_that_cannot_be_read_without_onnx_is_named(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(small(), tmp_path / "net.onnx")
    damage(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"net\.onnx cannot be run by ONNX Runtime"):
        graph_files.read_metadata(path)


def test_a_failure_of_onnxruntime_during_a_run_is_a_runtime_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    class Failing:
        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

        def run(self, *arguments: object) -> None:
            raise Fail("[ONNXRuntimeError] : 1 : FAIL : bad allocation\nat line 7")

    monkeypatch.setattr(ort, "InferenceSession", Failing)
    opened = open_engine(small(), engine="onnxruntime", device="cpu")
    with pytest.raises(RuntimeError, match=r"could not run a batch of 1 .* bad allocation.*smaller batch"):
        opened(photos(1))
