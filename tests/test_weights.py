"""The bundled weights are what their files say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from safetensors import safe_open

import u2net_hub
from u2net_hub import SaliencyDataset, SaliencyPipeline, U2Net, evaluate
from u2net_hub.evaluation.results import Results

FOLDER = Path(u2net_hub.__file__).parent / "weights" / "u2netp"


def test_they_fit_in_less_than_three_megabytes_and_two_precisions() -> None:
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 2.6e6
    with safe_open(weights, "pt") as file:
        kinds = {(".bn_s1." in key, file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
    assert kinds == {(False, "F16"), (True, "F32"), (True, "I64")}


def test_results_and_card_name_their_hash() -> None:
    sha256 = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert Results.load(FOLDER / "results.json").weights_sha256 == sha256
    assert sha256 in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_card_says_how_they_were_made_and_on_what_terms() -> None:
    results = Results.load(FOLDER / "results.json")
    assert results.training is not None
    assert results.training.data == ("DUTS-TR",)
    assert results.training.start is None
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "DUTS" in card
    assert "research" in card


def test_they_score_on_ecssd_what_their_results_say(shared: Path) -> None:
    ecssd = shared / "data" / "ecssd-100"
    dataset = SaliencyDataset(images=ecssd / "images", masks=ecssd / "masks", name="ECSSD-100")
    pipeline = SaliencyPipeline(U2Net.from_pretrained("u2netp"), device="cpu")
    found = evaluate(pipeline, dataset, workers=0).datasets["ECSSD-100"]
    said = Results.load(FOLDER / "results.json").datasets["ECSSD-100"]
    assert said.measured
    assert said.n == found.n == 100
    assert dict(found.scores) == pytest.approx(dict(said.scores), abs=1e-3)


def test_the_readme_has_their_scores() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    for name, dataset in Results.load(FOLDER / "results.json").datasets.items():
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| {name} |")]
        found = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        measures = ("max_f", "mae", "weighted_f", "s_measure", "max_e", "relaxed_boundary_f")
        assert found == pytest.approx([dataset.n, *(dataset.scores[name] for name in measures)], abs=5.1e-5)
