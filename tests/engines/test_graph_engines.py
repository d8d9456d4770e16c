"""ONNX Runtime and OpenVINO: their maps are torch's, their graphs are kept, and torch is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill
from PIL import Image

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig
from u2net_hub.checkpoints.topology import fold
from u2net_hub.config import Stage
from u2net_hub.engines import onnxruntime_engine
from u2net_hub.engines.graph_cache import cache_folder
from u2net_hub.engines.open import open_engine
from u2net_hub.engines.openvino_engine import OpenVinoEngine, openvino_core
from u2net_hub.engines.protocol import Engine

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

CLOSE = 1e-4  # filled weights amplify the rounding of float32
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))

engines = pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("U2NET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small(**changes: object) -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40)).replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small().save_pretrained(tmp_path / "small")


def photos(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def with_torch(network: U2Net, x: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        logits = network(torch.from_numpy(x))
    softmax = network.config.activation == "softmax"
    return [(y.softmax(1) if softmax else y.sigmoid()).numpy() for y in logits]


@engines
@pytest.mark.parametrize("n", [1, 2, 5])
def test_side_outputs_are_those_of_torch_at_any_batch(engine: str, n: int) -> None:
    network, x = small(), photos(n, 3, 48, 40)
    expected = with_torch(network, x)
    found = open_engine(network, engine=engine, device="cpu")(x, side_outputs=True)
    assert len(found) == len(expected) == 3
    for y, wanted in zip(found, expected, strict=True):
        assert y.dtype == np.float32
        assert y.shape == wanted.shape
        assert np.abs(y - wanted).max() <= CLOSE


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_maps_are_those_of_torch_with_any_number_of_cores(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_engine, "usable_cores", lambda: cores)
    network, x = small(), photos(3, 3, 48, 40)
    (y,) = open_engine(network, engine="onnxruntime", device="cpu")(x)
    assert np.abs(y - with_torch(network, x)[0]).max() <= CLOSE


@engines
def test_one_engine_takes_one_size_after_another(engine: str) -> None:
    network = small()
    opened = open_engine(network, engine=engine, device="cpu")
    for size in [(48, 40), (33, 33), (61, 97), (64, 64), (35, 80), (80, 35), (48, 40)]:
        x = photos(2, 3, *size)
        (y,) = opened(x)
        assert np.abs(y - with_torch(network, x)[0]).max() <= CLOSE


@engines
@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 1, "mean": (0.5,), "std": (0.5,)},
        {"out_channels": 3, "activation": "softmax"},
    ],
    ids=["grey", "classes"],
)
def test_other_channels_are_those_of_torch(engine: str, changes: dict[str, object]) -> None:
    network = small(**changes)
    x = photos(2, network.config.in_channels, 48, 40)
    (y,) = open_engine(network, engine=engine, device="cpu")(x)
    assert np.abs(y - with_torch(network, x)[0]).max() <= CLOSE


@engines
def test_what_an_engine_gave_stays_as_it_is_when_it_is_called_again(engine: str) -> None:
    opened = open_engine(small(), engine=engine, device="cpu")
    for n in (1, 3):
        (y,) = opened(photos(n, 3, 48, 40))
        before = y.copy()
        opened(-photos(n, 3, 48, 40))
        assert np.array_equal(y, before)


@engines
def test_training_the_model_further_does_not_change_the_engine(engine: str) -> None:
    network, x = small(), photos(1, 3, 48, 40)
    opened = open_engine(network, engine=engine, device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert np.abs(opened(x)[0] - with_torch(small(), x)[0]).max() <= CLOSE


@engines
def test_float16_weights_run_in_float32(engine: str, tmp_path: Path) -> None:
    folder = small().save_pretrained(tmp_path / "half", dtype="float16")
    x = photos(1, 3, 48, 40)
    (y,) = open_engine(folder, engine=engine, device="cpu")(x)
    assert np.abs(y - with_torch(U2Net.from_pretrained(folder), x)[0]).max() <= CLOSE


@engines
def test_bfloat16_weights_run_though_numpy_has_no_such_type(engine: str, tmp_path: Path) -> None:
    folder = small().save_pretrained(tmp_path / "half", dtype="bfloat16")
    x = photos(1, 3, 48, 40)
    (y,) = open_engine(folder, engine=engine, device="cpu")(x)
    assert np.abs(y - with_torch(U2Net.from_pretrained(folder), x)[0]).max() <= CLOSE


@engines
def test_a_mask_is_made_without_torch(engine: str, folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), "white").save(tmp_path / "photo.png")
    code = (
        "import sys; from u2net_hub import SaliencyPipeline\n"
        f"pipeline = SaliencyPipeline.from_pretrained({str(folder)!r}, engine={engine!r})\n"
        f"assert pipeline({str(tmp_path / 'photo.png')!r}).mask().size == (60, 50)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@engines
def test_the_graph_of_a_file_of_weights_is_kept(engine: str, folder: Path, cache: Path) -> None:
    open_engine(folder, engine=engine, device="cpu")
    (graph,) = cache.glob("*.onnx")
    written = graph.stat().st_mtime_ns
    open_engine(folder, engine=engine, device="cpu")
    assert [*cache.glob("*.onnx")] == [graph]
    assert graph.stat().st_mtime_ns == written


def test_other_weights_have_a_graph_of_their_own(folder: Path, tmp_path: Path, cache: Path) -> None:
    other = small()
    with torch.no_grad():
        other.outconv.bias.add_(1)
    other_folder = other.save_pretrained(tmp_path / "other")
    for each in (folder, other_folder):
        open_engine(each, engine="onnxruntime", device="cpu")
    assert len([*cache.glob("*.onnx")]) == 2


@pytest.mark.parametrize("damage", [b"", b"no graph", None], ids=["empty", "other", "one byte"])
def test_a_damaged_graph_is_made_anew(damage: bytes | None, folder: Path, cache: Path) -> None:
    x = photos(1, 3, 48, 40)
    (before,) = open_engine(folder, engine="onnxruntime", device="cpu")(x)
    (graph,) = cache.glob("*.onnx")
    whole = graph.read_bytes()
    middle = len(whole) // 2
    graph.write_bytes(whole[:middle] + b"\xff" + whole[middle + 1 :] if damage is None else damage)
    (after,) = open_engine(folder, engine="onnxruntime", device="cpu")(x)
    assert np.array_equal(before, after)
    assert graph.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_no_harm(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("U2NET_CACHE", str(tmp_path / "file" / "cache"))
    x = photos(1, 3, 48, 40)
    (y,) = open_engine(folder, engine="onnxruntime", device="cpu")(x)
    assert np.abs(y - with_torch(small(), x)[0]).max() <= CLOSE


def test_the_cache_lies_where_the_system_keeps_such_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("U2NET_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/u2net-hub")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "u2net-hub"


@engines
def test_a_network_is_not_written_to_the_cache(engine: str, cache: Path) -> None:
    open_engine(small(), engine=engine, device="cpu")
    assert not cache.exists()


@engines
def test_damaged_weights_are_refused_and_not_kept(engine: str, folder: Path, cache: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        open_engine(folder, engine=engine, device="cpu")
    assert not cache.exists()


@engines
def test_weights_of_another_shape_are_refused(engine: str, folder: Path) -> None:
    U2NetConfig(variant="u2netp").save(folder / "config.json")
    with pytest.raises(ValueError, match="does not fit 'u2netp'"):
        open_engine(folder, engine=engine, device="cpu")


@engines
def test_an_input_below_33_px_is_refused_before_work_starts(engine: str) -> None:
    with pytest.raises(
        ValueError, match=r"input is 32 × 48 px, .* needs at least 33 × 33; use engine 'torch'"
    ):
        open_engine(small(input_size=(32, 48)), engine=engine, device="cpu")


@pytest.mark.parametrize(
    ("engine", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")], ids=["onnxruntime", "openvino"]
)
def test_an_engine_that_is_not_installed_names_the_command(
    engine: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(ImportError, match=rf"engine '{engine}' needs .*pip install 'u2net-hub\[{extra}\]'"):
        open_engine(small(), engine=engine, device="cpu")


def test_auto_takes_the_next_where_the_fastest_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from u2net_hub.engines import open

    def without(*missing: str) -> Engine:
        monkeypatch.setattr(open, "find_spec", lambda name: None if name in missing else name)
        return open_engine(small(), device="cpu")

    assert without().name == "openvino"
    assert without("openvino").name == "onnxruntime"
    assert without("openvino", "onnxruntime").name == "torch"
    assert without("onnx").name == "torch"  # nothing to build a graph with


def test_onnxruntime_names_the_devices_that_it_has() -> None:
    with pytest.raises(RuntimeError, match=r"device 'coreml' was asked for, .*CPUExecutionProvider"):
        open_engine(small(), engine="onnxruntime", device="coreml")


def test_openvino_names_the_devices_that_it_has() -> None:
    with pytest.raises(RuntimeError, match=r"device 'NPU.7' was asked for, but OpenVINO has \['CPU'"):
        open_engine(small(), engine="openvino", device="NPU.7")


def test_int8_of_weights_says_how_to_calibrate_them() -> None:
    with pytest.raises(ValueError, match=r"u2net export .*--precision int8"):
        open_engine(small(), engine="openvino", precision="int8")


def test_compile_is_for_torch_alone() -> None:
    with pytest.raises(ValueError, match="compile=True is for engine 'torch'"):
        open_engine(small(), engine="openvino", device="cpu", compile=True)


def test_fast_says_where_onnxruntime_stays_exact(caplog: pytest.LogCaptureFixture) -> None:
    network, x = small(), photos(1, 3, 48, 40)
    opened = open_engine(network, engine="onnxruntime", device="cpu", precision="fast")
    assert opened.precision == "exact"
    assert "float32" in caplog.text
    assert np.abs(opened(x)[0] - with_torch(network, x)[0]).max() <= CLOSE


def test_fast_falls_back_and_says_so_on_a_cpu_without_bfloat16(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoEngine, "_capabilities", lambda self: ["FP32", "INT8"])
    network, x = small(), photos(1, 3, 48, 40)
    opened = open_engine(network, engine="openvino", device="cpu", precision="fast")
    assert opened.precision == "exact"
    assert "no bfloat16" in caplog.text
    assert np.abs(opened(x)[0] - with_torch(network, x)[0]).max() <= CLOSE


def test_fast_in_openvino_keeps_a_sensitive_convolution_in_float32() -> None:
    core = openvino_core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    network = small()
    with torch.no_grad():
        network.stage1d.rebnconv1d.bn_s1.bias[0] = 1361
    opened = open_engine(network, engine="openvino", device="cpu", precision="fast")
    assert isinstance(opened, OpenVinoEngine)
    opened(photos(1, 3, 48, 40))
    ((request,),) = opened._compiled.values()
    compiled = request.get_compiled_model()
    nodes = {op.get_friendly_name(): op.get_rt_info() for op in compiled.get_runtime_model().get_ops()}
    in_float32 = {
        name.removesuffix("/WithoutBiases")
        for name, held in nodes.items()
        if (held["layerType"].astype(str), held["runtimePrecision"].astype(str)) == ("Convolution", "f32")
    }
    assert in_float32 == {"stage1d.rebnconv1d"}


def test_the_engine_chosen_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "u2net_hub")
    open_engine(small(), engine="onnxruntime", device="cpu")
    assert "engine onnxruntime, precision exact, device cpu" in caplog.text


def test_a_pipeline_gives_the_same_map_in_every_engine(folder: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    maps = [
        SaliencyPipeline(folder, engine=engine, device="cpu", minmax="never")(picture).saliency
        for engine in ("torch", "onnxruntime", "openvino")
    ]
    for found in maps[1:]:
        assert np.abs(found - maps[0]).max() <= CLOSE


def test_a_fold_of_a_whole_network_names_every_convolution() -> None:
    network = small()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    assert len(fold(network.config, state)) == sum(
        isinstance(module, torch.nn.Conv2d) for module in network.modules()
    )
