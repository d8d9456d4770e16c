"""Exported files: plain runtimes find torch's maps in them, and what is not of the family is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, export
from u2net_hub.checkpoints.topology import Folded, fold
from u2net_hub.cli import app
from u2net_hub.config import Stage
from u2net_hub.engines import exporting
from u2net_hub.engines.openvino_engine import openvino_core

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

ROOT = Path(__file__).resolve().parents[2]
CAT = ROOT / "examples" / "chelsea.jpg"
CLOSE = 1e-4  # filled weights amplify the rounding of float32
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
NAMES = ["saliency", "side1", "side2"]

formats = pytest.mark.parametrize("suffix", [".onnx", ".xml"])


def small(**changes: object) -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40)).replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def run(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of a file by its own runtime, without a line of ours."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"input": x}), strict=True))
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"input": x})
    return {output.any_name: found[output] for output in compiled.outputs}


def expected(network: U2Net, x: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [logits.sigmoid().numpy() for logits in network(torch.from_numpy(x))]


@formats
def test_a_plain_runtime_finds_the_maps_of_torch_at_any_batch_and_size(suffix: str, tmp_path: Path) -> None:
    network = small()
    path = export(network, tmp_path / f"net{suffix}", side_outputs=True)
    for shape in [(1, 3, 48, 40), (3, 3, 33, 33), (2, 3, 61, 97)]:
        x = noise(*shape)
        found = run(path, x)
        assert list(found) == NAMES
        for name, wanted in zip(NAMES, expected(network, x), strict=True):
            assert np.abs(found[name] - wanted).max() <= CLOSE


@formats
def test_the_fused_map_stands_alone_unless_asked_otherwise(suffix: str, tmp_path: Path) -> None:
    path = export(small(), tmp_path / f"net{suffix}")
    assert list(run(path, noise(1, 3, 48, 40))) == ["saliency"]
    with pytest.raises(ValueError, match="without side outputs; export it again with --all-outputs"):
        SaliencyPipeline(path)(CAT, side_outputs=True)


def test_its_metadata_tells_all_that_its_user_needs(tmp_path: Path) -> None:
    network = small(input_size=(64, 48), mean=(0.1, 0.2, 0.3))
    model = onnx.load(export(network, tmp_path / "net.onnx"))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert U2NetConfig.from_dict(json.loads(said["config"])) == network.config
    assert "64 x 48 px" in said["preprocessing"]
    assert "[0.1, 0.2, 0.3]" in said["preprocessing"]
    assert json.loads(said["outputs"]) == ["saliency"]
    assert said["smallest_size"] == "33 x 33 px"
    assert said["opset"] == "18" == str(model.opset_import[0].version)


@formats
def test_a_pipeline_of_the_file_gives_the_mask_of_the_network(suffix: str, tmp_path: Path) -> None:
    path = export(small(), tmp_path / f"net{suffix}")
    pipeline = SaliencyPipeline(path)
    assert pipeline.config == small().config
    reference = SaliencyPipeline(small(), engine="torch", device="cpu")
    assert np.abs(pipeline(CAT).saliency - reference(CAT).saliency).max() <= CLOSE


@formats
def test_the_file_runs_without_torch(suffix: str, tmp_path: Path) -> None:
    path = export(small(), tmp_path / f"net{suffix}")
    code = (
        "import sys; from u2net_hub import SaliencyPipeline; "
        f"SaliencyPipeline({str(path)!r})({str(CAT)!r}).mask(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@formats
def test_a_file_that_differs_from_torch_is_refused_and_not_written(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: object) -> dict[str, Folded]:
        convs = fold(*args)  # type: ignore[arg-type]
        weight, bias = convs["stage1d.rebnconv1d"]
        return {**convs, "stage1d.rebnconv1d": Folded(weight, bias + 0.5)}

    monkeypatch.setattr(exporting, "fold", wrong)
    with pytest.raises(ValueError, match=r"differ from those of torch by up to .*nothing was written"):
        export(small(), tmp_path / f"net{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_maps_hold_nan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engine(source: object, **_: object) -> Callable[..., tuple[np.ndarray]]:
        value = np.nan if isinstance(source, Path) else 0.5
        return lambda x, **_: (np.full((len(x), 1, *x.shape[2:]), value, np.float32),)

    monkeypatch.setattr(exporting, "open_engine", open_engine)
    with pytest.raises(ValueError, match=r"differ from those of torch by up to nan"):
        exporting.check_exported(small(), tmp_path / "net.onnx")


@pytest.mark.parametrize(("suffix", "there"), [(".onnx", ".onnx"), (".xml", ".xml"), (".xml", ".bin")])
def test_a_file_that_is_there_stays_unless_told_otherwise(suffix: str, there: str, tmp_path: Path) -> None:
    old = tmp_path / f"net{there}"
    old.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=rf"net{there} is there"):
        export(small(), tmp_path / f"net{suffix}")
    assert old.read_bytes() == b"mine"
    export(small(), tmp_path / f"net{suffix}", overwrite=True)
    assert old.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("net.pth", {}, r"expected the suffix .onnx or .xml"),
        ("net", {}, r"expected the suffix"),
        ("net.onnx", {"format": "openvino"}, r"cannot write openvino to net.onnx, expected the suffix .xml"),
        ("net.xml", {"format": "tflite"}, r"unknown format 'tflite', expected one of"),
        ("net.xml", {"precision": "fast"}, r"chosen when a file is run, expected 'exact' or 'int8'"),
        ("net.xml", {"precision": "int8"}, r"needs photos to calibrate on: u2net export .*--data FOLDER"),
        ("net.onnx", {"precision": "int8", "data": "."}, r"int8 is for OpenVINO"),
        ("net.onnx", {"data": "."}, r"data is for precision 'int8'"),
    ],
)
def test_a_request_that_makes_no_sense_says_so(
    name: str, arguments: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        export(small(), tmp_path / name, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_without_the_runtime_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[onnx\]'"):
        export(small(), tmp_path / "net.onnx")


def test_an_onnx_file_gives_its_network_back_with_its_config(tmp_path: Path) -> None:
    network = small(input_size=(64, 48), mean=(0.1, 0.2, 0.3))
    path = export(network, tmp_path / "net.onnx")
    again = U2Net.from_pretrained(path)
    assert again.config == network.config
    x = noise(2, 3, 48, 40)
    for found, wanted in zip(expected(again, x), expected(network, x), strict=True):
        assert np.abs(found - wanted).max() <= CLOSE
    pipelines = [SaliencyPipeline(path, engine=engine, device="cpu") for engine in ("torch", "onnxruntime")]
    maps = [pipeline(CAT).saliency for pipeline in pipelines]
    assert np.abs(maps[0] - maps[1]).max() <= CLOSE


def test_an_openvino_file_of_another_maker_is_refused(tmp_path: Path) -> None:
    x = openvino.opset13.parameter([1, 3, 40, 40], np.float32)
    openvino.serialize(openvino.Model([openvino.opset13.relu(x)], [x]), tmp_path / "other.xml")
    with pytest.raises(ValueError, match=r"other.xml is an OpenVINO model that this library did not export"):
        SaliencyPipeline(tmp_path / "other.xml")


def test_an_onnx_file_of_another_network_is_refused(tmp_path: Path) -> None:
    float32 = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, float32, [1, 3, 40, 40]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "other", *[[v] for v in values])),
        tmp_path / "other.onnx",
    )
    with pytest.raises(ValueError, match=r"other.onnx"):
        SaliencyPipeline(tmp_path / "other.onnx")


@pytest.mark.parametrize("lost", [".xml", ".bin"])
def test_a_damaged_openvino_file_is_refused(lost: str, tmp_path: Path) -> None:
    path = export(small(), tmp_path / "net.xml")
    damaged = tmp_path / f"net{lost}"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"net.xml cannot be read as an OpenVINO model"):
        SaliencyPipeline(path)


def test_the_command_writes_a_file_and_says_where(tmp_path: Path) -> None:
    source = small().save_pretrained(tmp_path / "small")
    words = ["export", "--model", str(source), "--out", str(tmp_path / "net.onnx"), "--all-outputs"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "net.onnx")
    assert list(run(tmp_path / "net.onnx", noise(1, 3, 48, 40))) == NAMES


def test_the_real_rembg_makes_the_same_map_of_it(tmp_path: Path) -> None:
    if find_spec("rembg") is None:
        pytest.skip("rembg is not installed")
    network = small(input_size=(320, 320))  # rembg gives every network 320 px
    path = export(network, tmp_path / "net.onnx")
    # at the network's own size, rembg's Lanczos and the official bilinear both leave a photo as it is
    Image.open(CAT).resize((320, 320)).save(tmp_path / "cat.png")
    code = (
        # it refines edges on request, takes no part here, and compiles itself for a minute
        "import sys; from unittest.mock import MagicMock; "
        "names = ['', '.alpha.estimate_alpha_cf', '.foreground.estimate_foreground_ml', '.util.util']; "
        "sys.modules.update({f'pymatting{name}': MagicMock() for name in names}); "
        "from PIL import Image; from rembg import new_session; "
        f"session = new_session('u2net_custom', model_path={str(path)!r}); "
        f"session.predict(Image.open({str(tmp_path / 'cat.png')!r}))[0].save({str(tmp_path / 'rembg.png')!r})"
    )
    # rembg takes own weights from its home only
    env = {**os.environ, "U2NET_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    theirs = np.asarray(Image.open(tmp_path / "rembg.png"), np.float32) / 255
    ours = SaliencyPipeline(network, engine="torch", device="cpu", minmax="always")(
        tmp_path / "cat.png"
    ).saliency
    # 8 bits, cut off there and not rounded
    assert np.abs(theirs - ours).max() <= 1.5 / 255
