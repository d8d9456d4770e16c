"""int8: what is quantised, what stays in float, and on which photos that is judged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, export
from u2net_hub.config import Stage
from u2net_hub.engines import quantisation
from u2net_hub.engines.quantisation import choose_photos

pytest.importorskip("nncf")
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
    for node in openvino.Core().read_model(path).get_ops():
        if node.get_type_name() == "Convolution":
            weights = node.input_value(1).get_node()
            if weights.get_type_name() != "Constant":  # eight bits times a scale
                found.add(node.get_friendly_name().removesuffix("/WithoutBiases"))
    return found


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network in int8."""
    out = tmp_path_factory.mktemp("int8") / "net.xml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "LIMIT", 1.0)  # three photos calibrate it badly
        return export("u2netp", out, precision="int8", data=EXAMPLES)


def test_its_maps_stay_close_to_those_of_float32(bundled: Path) -> None:
    assert len(in_int8(bundled)) > 60  # of 119 convolutions
    pipeline = SaliencyPipeline(bundled, precision="int8")
    reference = SaliencyPipeline("u2netp", engine="torch", device="cpu")
    photos = sorted(EXAMPLES.glob("*.jpg"))
    differences = [np.abs(pipeline(photo).probability - reference(photo).probability) for photo in photos]
    assert 0 < np.mean([difference.mean() for difference in differences]) <= 0.02


def test_a_file_in_int8_is_not_taken_for_an_exact_one(bundled: Path) -> None:
    with pytest.raises(ValueError, match="'exact' was asked for, but the file is for int8"):
        SaliencyPipeline(bundled)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "u2net_hub.engines.quantisation")
    monkeypatch.setattr(quantisation, "LIMIT", 1.0)
    path = export(small(), tmp_path / "net.xml", precision="int8", data=EXAMPLES)
    (said,) = [r.args for r in caplog.records if "convolutions in int8" in r.msg]
    monkeypatch.setattr(quantisation, "LIMIT", 0.9 * said[2])
    caplog.clear()
    path = export(small(), tmp_path / "net.xml", precision="int8", data=EXAMPLES, overwrite=True)
    alone = {r.args[0]: r.args[1] for r in caplog.records if "alone" in r.msg}
    kept = [r.args[0] for r in caplog.records if "in float" in r.msg]
    assert kept == sorted(alone, key=lambda stage: -alone[stage])[: len(kept)]
    assert kept
    assert not {name for name in in_int8(path) if name.partition(".")[0] in kept}


def test_a_network_that_int8_hurts_everywhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
