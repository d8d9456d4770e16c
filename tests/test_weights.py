"""The bundled weights are what their files say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import u2net_hub
from u2net_hub import Results, SaliencyPipeline, U2Net, evaluate, list_bundled

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path(u2net_hub.__file__).parent / "weights"
NAMES = ("u2netp", "u2netp-168")

bundled = pytest.mark.parametrize("name", NAMES)


def test_these_models_are_bundled() -> None:
    assert [model.name for model in list_bundled()] == list(NAMES)


@bundled
def test_they_fit_in_less_than_three_megabytes_and_two_precisions(name: str) -> None:
    weights = WEIGHTS / name / "model.safetensors"
    assert weights.stat().st_size <= 2.6e6
    with safe_open(weights, "pt") as file:
        kinds = {(".bn_s1." in key, file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
    assert kinds == {(False, "F16"), (True, "F32"), (True, "I64")}


@bundled
def test_results_and_card_name_their_hash(name: str) -> None:
    sha256 = hashlib.sha256((WEIGHTS / name / "model.safetensors").read_bytes()).hexdigest()
    assert Results.load(WEIGHTS / name / "results.json").weights_sha256 == sha256
    assert sha256 in (WEIGHTS / name / "README.md").read_text(encoding="utf-8")


@bundled
def test_the_card_says_what_they_were_trained_on_and_on_what_terms(name: str) -> None:
    results = Results.load(WEIGHTS / name / "results.json")
    assert results.training is not None
    assert results.training.data == ("DUTS-TR",)
    card = (WEIGHTS / name / "README.md").read_text(encoding="utf-8")
    assert "DUTS" in card
    assert "research" in card


def test_the_default_is_the_file_of_the_authors(shared: Path) -> None:
    theirs = (shared / "reference" / "u2netp_author.safetensors").read_bytes()
    assert (WEIGHTS / "u2netp" / "model.safetensors").read_bytes() == theirs


@pytest.mark.parametrize("file", ["NOTICE", "u2net_hub/weights/u2netp/README.md"])
def test_the_authors_are_named_with_their_licence(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "Xuebin Qin" in text
    assert "Apache" in text


@pytest.mark.parametrize(("name", "size"), list(zip(NAMES, (320, 168), strict=True)))
def test_each_is_used_at_its_own_size(name: str, size: int) -> None:
    assert U2Net.from_pretrained(name).config.input_size == (size, size)


def test_the_default_makes_the_maps_that_the_authors_weights_make(
    shared: Path, remembering: Callable[..., SaliencyPipeline]
) -> None:
    ecssd = shared / "data" / "ecssd-100"
    photos = sorted((ecssd / "images").glob("*.jpg"))[::10]  # those of the tests of the pipeline
    pipeline = remembering("u2netp", minmax="always")
    for photo, result in zip(photos, pipeline(photos), strict=True):
        with Image.open(ecssd / "maps_u2netp_author" / f"{photo.stem}.png") as theirs:
            wanted = np.asarray(theirs.convert("L"), np.float32) / 255
        assert np.abs(result.saliency - wanted).mean() <= 0.003


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What model_cards/ecssd/measure.py found for the fast model on the hundred photos of ecssd-100."""
    path = ROOT / "model_cards" / "ecssd" / "ecssd.json"
    return json.loads(path.read_text(encoding="utf-8"))["networks"]["u2netp-168"]


def test_the_fast_model_scored_on_ecssd_what_its_results_say(measured: dict[str, Any]) -> None:
    said = Results.load(WEIGHTS / "u2netp-168" / "results.json").datasets["ECSSD-100"]
    sha256 = hashlib.sha256((WEIGHTS / "u2netp-168" / "model.safetensors").read_bytes()).hexdigest()
    assert measured["weights_sha256"] == sha256
    assert said.measured
    assert said.n == len(measured["photos"]) == 100
    assert measured["scores"] == pytest.approx(dict(said.scores), abs=1e-3)
    for name in set(said.scores) - {"max_f", "max_e"}:  # these two are of the mean curves
        mean = np.mean([row[name] for row in measured["photos"].values()])
        assert mean == pytest.approx(said.scores[name], abs=1e-3)
    assert max(said.curves["f_measure"]) == pytest.approx(said.scores["max_f"], abs=1e-3)
    assert max(said.curves["e_measure"]) == pytest.approx(said.scores["max_e"], abs=1e-3)


def test_the_fast_model_scores_on_some_photos_what_was_measured(
    shared: Path, measured: dict[str, Any], tmp_path: Path
) -> None:
    ecssd = shared / "data" / "ecssd-100"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for path in sorted((ecssd / kind).iterdir())[::10]:
            (tmp_path / kind / path.name).symlink_to(path)
    pipeline = SaliencyPipeline.from_pretrained("u2netp-168", device="cpu")
    rows = dict(evaluate(pipeline, tmp_path).datasets[tmp_path.name].pictures)
    assert len(rows) == 10
    for score in next(iter(rows.values())):
        found, said = (np.mean([table[name][score] for name in rows]) for table in (rows, measured["photos"]))
        assert found == pytest.approx(said, abs=3e-3), score


@bundled
def test_the_readme_has_their_scores(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}` |")]
    said = Results.load(WEIGHTS / name / "results.json").datasets["ECSSD-100"].scores
    wanted = [format(said[key], ".3f").lstrip("0") for key in ("max_f", "mae", "s_measure")]
    assert [cell for cell in row.replace(" ", "").split("|") if cell in wanted] == wanted
