"""int8: what is quantised, what stays in float, and on which photos that is judged."""

from __future__ import annotations

import gzip
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import fill

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, export
from u2net_hub.config import Stage
from u2net_hub.engines import quantisation
from u2net_hub.engines.openvino_engine import openvino_core
from u2net_hub.engines.quantisation import choose_photos

openvino = pytest.importorskip("openvino")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of nncf's own making


def small() -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40)))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def in_int8(path: Path) -> set[str]:
    """Names of the convolutions of a file whose weights are quantised."""
    found = set()
    for node in openvino_core().read_model(path).get_ops():
        if node.get_type_name() == "Convolution":
            weights = node.input_value(1).get_node()
            if weights.get_type_name() != "Constant":  # eight bits times a scale
                found.add(node.get_friendly_name().removesuffix("/WithoutBiases"))
    return found


def stage_of(convolution: str) -> str:
    return convolution.partition(".")[0].removesuffix("/WithoutBiases")


@pytest.fixture(scope="module", autouse=True)
def nncf() -> ModuleType:
    """NNCF, which takes a second to import: only in the process that runs these tests."""
    return pytest.importorskip("nncf")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network in int8."""
    out = tmp_path_factory.mktemp("int8") / "net.xml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "LIMIT", 1.0)  # three photos calibrate it badly
        return export(small(), out, precision="int8", data=EXAMPLES)


def test_its_maps_stay_close_to_those_of_float32(made: Path) -> None:
    assert len(in_int8(made)) > 10  # of 19 convolutions
    pipeline = SaliencyPipeline(made, precision="int8")
    reference = SaliencyPipeline(small(), engine="torch", device="cpu")
    photos = sorted(EXAMPLES.glob("*.jpg"))
    differences = [np.abs(pipeline(photo).probability - reference(photo).probability) for photo in photos]
    assert 0 < np.mean([difference.mean() for difference in differences]) <= 0.02


@pytest.mark.parametrize("name", ["u2netp", "u2netp-168"])
def test_most_convolutions_of_the_bundled_files_are_in_int8(name: str, tmp_path: Path) -> None:
    # test_open compares the maps of these files with those of float32
    folder = files("u2net_hub") / "weights" / name
    (tmp_path / "int8.xml").write_bytes(gzip.decompress((folder / "int8.xml.gz").read_bytes()))
    (tmp_path / "int8.bin").write_bytes((folder / "int8.bin").read_bytes())
    assert len(in_int8(tmp_path / "int8.xml")) > 60  # of 119


def test_a_file_in_int8_is_not_taken_for_an_exact_one(made: Path) -> None:
    with pytest.raises(ValueError, match="'exact' was asked for, but the file is for int8"):
        SaliencyPipeline(made)


def test_a_convolution_with_a_large_bias_stays_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "LIMIT", 1.0)
    network = small()
    with torch.no_grad():
        network.stage1d.rebnconv2d.bn_s1.bias[0] = 1361
    path = export(network, tmp_path / "net.xml", precision="int8", data=EXAMPLES)
    assert "stage1d.rebnconv2d" not in in_int8(path)


def test_the_stage_that_int8_hurts_most_stays_in_float_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nncf: ModuleType
) -> None:
    # in the place of NNCF: what int8 costs is given here, and the costs of stages add up
    costs = {"stage1": 0.01, "stage2": 0.03, "stage1d": 0.02, "outconv": 0.0, "side1": 0.0, "side2": 0.0}
    really, asked = nncf.quantize, []

    def quantize(model: Any, photos: object, *, ignored_scope: Any = None, **options: object) -> Any:
        names = {op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution"}
        names -= set(ignored_scope.names if ignored_scope else ())
        stages = {stage_of(name) for name in names}
        asked.append(stages)
        if {"stage2", "stage1d"} & stages:
            model.set_rt_info(str(sum(costs[stage] for stage in stages)), "cost")
            return model
        return really(model, photos, ignored_scope=ignored_scope, **options)

    def maps(model: Any, photos: object) -> np.ndarray:
        return np.array([float(model.get_rt_info("cost").value) if model.has_rt_info("cost") else 0.0])

    monkeypatch.setattr(nncf, "quantize", quantize)
    monkeypatch.setattr(quantisation, "_maps", maps)
    monkeypatch.setattr(quantisation, "LIMIT", 0.02)
    path = export(small(), tmp_path / "net.xml", precision="int8", data=EXAMPLES)
    # 0.06 together; then each alone; 0.03 without stage2; 0.01 without stage1d either
    everything = set(costs)
    assert asked[0] == everything
    assert sorted(asked[1:7], key=min) == sorted(({stage} for stage in costs), key=min)
    assert asked[7:] == [everything - {"stage2"}, everything - {"stage2", "stage1d"}]
    assert {stage_of(name) for name in in_int8(path)} == {"stage1", "outconv", "side1", "side2"}


def test_a_network_that_int8_hurts_everywhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nncf: ModuleType
) -> None:
    monkeypatch.setattr(nncf, "quantize", lambda model, photos, **options: model)
    monkeypatch.setattr(quantisation, "LIMIT", -1.0)
    with pytest.raises(ValueError, match="int8 in any stage of this network changes its maps"):
        export(small(), tmp_path / "net.xml", precision="int8", data=EXAMPLES)
    assert list(tmp_path.iterdir()) == []


def test_no_photo_is_both_calibrated_on_and_judged() -> None:
    calibration, judged = choose_photos(EXAMPLES)
    assert not set(calibration) & set(judged)
    assert {*calibration, *judged} == set(EXAMPLES.glob("*.jpg"))
    assert (calibration, judged) == choose_photos(EXAMPLES)


def test_one_photo_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes((EXAMPLES / "chelsea.jpg").read_bytes())
    with pytest.raises(ValueError, match="holds 1 photos, expected some hundreds"):
        choose_photos(tmp_path)


def test_without_nncf_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[int8\]'"):
        export(small(), tmp_path / "net.xml", precision="int8", data=EXAMPLES)
