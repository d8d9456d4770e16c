"""results.json and what is beside it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from u2net_hub.atomic import file_name
from u2net_hub.evaluation.published import published_scores
from u2net_hub.evaluation.results import DatasetScores, Results, Training
from u2net_hub.evaluation.tables import score_table

SCORES = {
    "max_f": 0.9340443,
    "mean_f": 0.8922,
    "adaptive_f": 0.89,
    "mae": 0.0517,
    "weighted_f": 0.8679,
    "s_measure": 0.9025,
    "max_e": 0.9329,
    "mean_e": 0.9159,
    "adaptive_e": 0.9163,
    "relaxed_boundary_f": 0.7973,
}
CURVES = {name: np.linspace(0, 1, 256) for name in ("precision", "recall", "f_measure", "e_measure")}


@pytest.fixture
def results() -> Results:
    pictures = [("cats/1", SCORES), ('a "name", quoted', SCORES)]
    dataset = DatasetScores(2, SCORES, curves=CURVES, pictures=pictures)
    return Results(
        {"ECSSD": dataset}, "ab" * 32, "u2net eval", {"python": "3.12.1"}, "2025-11-01T12:00:00+00:00"
    )


def test_results_json_is_as_the_design_words_it(results, tmp_path):
    results.save(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(content) == ["weights_sha256", "command", "versions", "date", "datasets"]
    assert content["datasets"] == {"ECSSD": {"n": 2, "measured": True, **SCORES, "max_f": 0.934044}}


def test_what_is_saved_is_loaded(results, tmp_path):
    results.save(tmp_path)
    loaded = Results.load(tmp_path / "results.json")
    assert Results.from_dict(results.to_dict()) == loaded
    assert loaded.datasets["ECSSD"].scores["mae"] == 0.0517
    for name, curve in CURVES.items():
        np.testing.assert_array_equal(loaded.datasets["ECSSD"].curves[name], curve)


def test_scores_over_time_are_kept(results, tmp_path):
    history = ({"hours": 0.5, "mae": 0.2, "max_f": 0.7}, {"hours": 1.25, "mae": 0.1, "max_f": 0.8})
    trained = replace(results, training=Training(("DUTS-TR",), history=history))
    trained.save(tmp_path)
    loaded = Results.load(tmp_path / "results.json")
    assert loaded.training is not None
    assert loaded.training.history == history


@pytest.mark.parametrize(
    "history",
    [
        {},
        [[1, 2]],
        [{"mae": 0.1}],
        [{"hours": 1.0}],
        [{"hours": 1.0, "mae": "x"}],
        [{"hours": 1.0, "x": 0.1}],
    ],
)
def test_scores_over_time_that_are_none_are_refused(results, history):
    content = {**results.to_dict(), "training": {"data": ["DUTS-TR"], "history": history}}
    with pytest.raises(ValueError, match="training: history is"):
        Results.from_dict(content)


def test_curves_are_arrays_over_256_thresholds(results, tmp_path):
    results.save(tmp_path)
    with np.load(tmp_path / "curves.npz") as arrays:
        assert set(arrays) == {"thresholds", *(f"ECSSD/{name}" for name in CURVES)}
        assert arrays["thresholds"].tolist() == list(range(256))


def test_the_table_of_pictures_has_a_row_each(results, tmp_path):
    results.save(tmp_path)
    with (tmp_path / "ECSSD.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["cats/1", 'a "name", quoted']
    assert rows[0]["weighted_f"] == "0.867900"


def test_classes_keep_their_iou(tmp_path):
    dataset = DatasetScores(3, {"mean_iou": 0.5}, iou={"background": 0.75, "hat": 0.25, "glove": None})
    Results({"clothes": dataset}).save(tmp_path)
    assert Results.load(tmp_path / "results.json").datasets["clothes"] == dataset


def broken(**changes: object) -> dict[str, object]:
    content = Results({"ECSSD": DatasetScores(2, SCORES)}, versions={"python": "3.12.1"}).to_dict()
    entry = content["datasets"]["ECSSD"]
    for name, value in changes.items():
        (content if name in content else entry)[name] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "results have the fields list"),
        ({"datasets": {}}, r"results have the fields \['datasets'\], expected"),
        (broken(datasets=[]), r"datasets is \[\], expected an object"),
        (broken(datasets={"ECSSD": 3}), "ECSSD is 3, expected an object"),
        (broken(n=-1), "n is -1, expected the number of pictures"),
        (broken(n=True), "n is True"),
        (broken(measured="yes"), "measured is 'yes', expected true or false"),
        (broken(mae=1.5), "mae is 1.5, expected a number from 0 to 1"),
        (broken(mae=-0.1), "mae is -0.1"),
        (broken(mae=float("nan")), "mae is nan"),
        (broken(mae="low"), "mae is 'low'"),
        (broken(hce=-1), "hce is -1"),
        (broken(accuracy=0.9), r"unknown scores \['accuracy'\], expected some of \['max_f'"),
        (broken(iou=0.5), "iou is 0.5, expected an object"),
        (broken(iou={"hat": 2}), "iou of hat is 2"),
    ],
)
def test_results_of_another_form_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        Results.from_dict(content)


def test_a_file_that_is_no_results_is_named(tmp_path):
    path = tmp_path / "results.json"
    for text in ("{", "[]", '"x"', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"results\.json holds no results"):
            Results.load(path)
    with pytest.raises(FileNotFoundError):
        Results.load(tmp_path / "other.json")


def test_damaged_curves_are_named(results, tmp_path):
    results.save(tmp_path)
    (tmp_path / "curves.npz").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"curves\.npz holds no curves"):
        Results.load(tmp_path / "results.json")


@pytest.mark.parametrize("name", ["ECSSD", "ecssd", "ECSSD-100", "ecssd_100", "ECSSD 2"])
def test_the_rows_of_the_paper_are_known_by_the_name_of_the_set(name):
    small, large = (row.scores for row in reversed(published_scores(name).values()))
    paper = ("max_f", "mae", "weighted_f", "s_measure", "relaxed_boundary_f")
    assert [small[key] for key in paper] == [0.943, 0.041, 0.885, 0.918, 0.808]
    assert [large[key] for key in paper] == [0.951, 0.033, 0.910, 0.928, 0.836]


@pytest.mark.parametrize("name", ["DUT-OMRON", "DUTS-TE", "HKU-IS", "PASCAL-S", "SOD"])
def test_each_set_of_the_paper_has_two_rows(name):
    assert [row.measured for row in published_scores(name).values()] == [False, False]


def test_dis_has_its_row():
    (row,) = published_scores("DIS-TE4").values()
    assert row.scores == {"max_f": 0.795, "weighted_f": 0.705, "mae": 0.087, "s_measure": 0.807, "hce": 3653}


@pytest.mark.parametrize("name", ["mine", "ECSSDX", "SODA", "DUTS-TR", "DIS-TE12", "DIS"])
def test_other_sets_have_no_rows(name):
    assert published_scores(name) == {}


def test_the_table_puts_models_beside_the_paper(results):
    lines = score_table({"mine": results}).splitlines()
    assert lines[0] == "ECSSD, 2 pictures"
    assert lines[1].split()[:4] == ["maxF", "meanF", "adpF", "MAE"]
    assert lines[2].split()[:5] == ["mine", ".9340", ".8922", ".8900", ".0517"]
    assert lines[3].startswith("paper, U²-Net (ECSSD, 1,000)")
    assert lines[4].split(")")[1].split() == [".943", "–", "–", ".041", ".885", ".918", "–", "–", "–", ".808"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_table_gives_a_perfect_score_and_the_iou_of_classes():
    perfect = Results({"set": DatasetScores(1, {"mean_iou": 1.0}, iou={"hat": 1.0, "glove": None})})
    assert score_table({"mine": perfect}).splitlines()[2:] == [
        "mine  1.0000",
        "mine, IoU per class: hat 1.0000, glove –",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ECSSD", "ECSSD"),
        ("org/name@main", "org_name@main"),
        ("../x", "x"),
        ("a b", "a_b"),
        ("..", "unnamed"),
    ],
)
def test_names_become_file_names(name, expected):
    assert file_name(name) == expected
