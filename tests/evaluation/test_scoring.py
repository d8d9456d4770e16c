"""Scores of networks and of maps, on data sets."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import SaliencyDataset, SaliencyPipeline, U2Net, U2NetConfig, evaluate
from u2net_hub.cli import app
from u2net_hub.evaluation.metrics import score_image, summarise
from u2net_hub.evaluation.plots import plot_curves
from u2net_hub.evaluation.results import Results
from u2net_hub.evaluation.scoring import evaluate_maps

# Of shared/README.md: pysodmetrics, and the paper's maxF and relaxed boundary F.
ECSSD_100 = {
    "max_f": 0.9340,
    "mae": 0.0517,
    "weighted_f": 0.8679,
    "s_measure": 0.9025,
    "max_e": 0.9329,
    "relaxed_boundary_f": 0.7973,
}


class FakePipeline:
    """Gives for each photo what a function of its path says; counts what it was given."""

    weights_sha256: str | None = "cd" * 32

    def __init__(self, answer, classes: int = 1, labels: tuple[str, ...] | None = None) -> None:
        activation = "sigmoid" if classes == 1 else "softmax"
        self.config = U2NetConfig(out_channels=classes, activation=activation, labels=labels)
        self.answer = answer
        self.seen: list[str] = []

    def __call__(self, photos: Iterable[Path]) -> Iterator[SimpleNamespace]:
        for path in photos:
            self.seen.append(path.stem)
            answer = self.answer(path)
            if self.config.out_channels == 1:
                yield SimpleNamespace(probability=answer, labels=None)
            else:
                yield SimpleNamespace(probability=None, labels=answer)


def gt_of(image: Path) -> np.ndarray:
    return np.asarray(Image.open(image.parent.parent / "masks" / f"{image.stem}.png"))


def perfect(image: Path) -> np.ndarray:
    return (gt_of(image) / 255).astype(np.float32)


def rough(image: Path) -> np.ndarray:
    """A third of the size, and far from 0 and 1: stretching and resizing have to happen."""
    small = Image.fromarray(gt_of(image)).resize((16, 16), Image.Resampling.BOX)
    return (np.asarray(small) / 255 * 0.3 + 0.2).astype(np.float32)


@pytest.fixture
def maps(pairs, tmp_path) -> Path:
    """Maps of the discs, blurred."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for path in (pairs / "masks").iterdir():
        with Image.open(path) as mask:
            mask.resize((12, 12), Image.Resampling.BOX).resize((48, 48)).save(folder / path.name)
    return folder


@pytest.fixture(scope="module")
def of_their_maps(shared):
    """The scores of the authors' maps on ecssd-100."""
    folder = shared / "data/ecssd-100"
    return evaluate_maps(folder / "maps_u2netp_author", folder, workers=0).datasets["ecssd-100"]


def test_the_maps_of_the_authors_give_their_row_on_ecssd_100(of_their_maps):
    assert of_their_maps.n == 100
    assert {name: of_their_maps.scores[name] for name in ECSSD_100} == pytest.approx(ECSSD_100, abs=0.001)


def test_the_authors_weights_score_as_their_maps_do(shared, remembering, of_their_maps):
    """On each fifth photo; results.json beside the bundled weights is the record of all.

    That the maps of all 100 photos are the authors' is tested where the pipeline is.
    """
    pipeline = remembering(shared / "reference/u2netp_author.safetensors")
    chosen = range(0, 100, 5)
    dataset = SaliencyDataset(shared / "data/ecssd-100").subset(chosen)
    (found,) = evaluate(pipeline, dataset).datasets.values()
    expected = [of_their_maps.pictures[i] for i in chosen]
    assert [name for name, _ in found.pictures] == [name for name, _ in expected]
    measures = ("mae", "weighted_f", "s_measure")
    for (name, scores), (_, theirs) in zip(found.pictures, expected, strict=True):
        assert [scores[m] for m in measures] == pytest.approx([theirs[m] for m in measures], abs=0.005), name
    for measure in measures:
        mean = np.mean([theirs[measure] for _, theirs in expected])
        assert found.scores[measure] == pytest.approx(mean, abs=0.001)


def test_a_perfect_network_scores_one(pairs):
    (dataset,) = evaluate(FakePipeline(perfect), pairs, workers=0).datasets.values()
    assert dataset.n == 20
    for name in ("max_f", "weighted_f", "s_measure", "max_e", "relaxed_boundary_f"):
        assert dataset.scores[name] == pytest.approx(1)
    assert dataset.scores["mae"] == 0


def test_maps_are_stretched_and_brought_to_the_size_of_the_ground_truth(pairs):
    (dataset,) = evaluate(FakePipeline(rough), pairs, workers=0).datasets.values()
    expected = []
    for path in sorted((pairs / "images").iterdir()):
        low = rough(path)
        stretched = Image.fromarray((low - low.min()) / np.ptp(low)).resize(
            (48, 48), Image.Resampling.BILINEAR
        )
        expected.append(score_image(np.rint(np.asarray(stretched) * 255).astype(np.uint8), gt_of(path)))
    assert dataset.scores == pytest.approx(summarise(expected)[0], abs=1e-6)


def test_processes_beside_the_network_change_nothing(pairs):
    alone = evaluate(FakePipeline(rough), pairs, workers=0)
    beside = evaluate(FakePipeline(rough), pairs, workers=2)
    assert beside.datasets == alone.datasets
    assert beside.datasets[pairs.name].pictures == alone.datasets[pairs.name].pictures


def test_maps_do_not_pile_up_before_they_are_scored(pairs, monkeypatch):
    # a thread takes the place of the process, which takes seconds to start
    monkeypatch.setattr(
        "u2net_hub.evaluation.workers.ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers)
    )
    pipeline = FakePipeline(rough)
    ahead = []
    evaluate(pipeline, pairs, workers=1, progress=lambda step: ahead.append(len(pipeline.seen) - len(ahead)))
    assert len(ahead) == 20
    assert max(ahead) <= 6


def test_given_maps_of_another_size_are_resized(pairs, maps):
    for path in maps.iterdir():
        with Image.open(path) as saliency:
            smaller = saliency.resize((24, 24))
        smaller.save(path)
    (dataset,) = evaluate_maps(maps, pairs, workers=0).datasets.values()
    assert dataset.scores["max_f"] > 0.9


def test_a_missing_map_is_named(pairs, maps):
    (maps / "07.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no map for 07 in .*maps \(looked for 07\.png"):
        evaluate_maps(maps, pairs)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        evaluate_maps(maps / "nowhere", pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_mask_is_named_from_whichever_process(pairs, maps, tmp_path, workers):
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / "00.png").write_bytes((pairs / kind / "00.png").read_bytes())
    (tmp_path / "set/masks/00.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"masks/00\.png cannot be read as a mask"):
        evaluate_maps(maps, tmp_path / "set", workers=workers)


def test_several_sets_are_scored_together_under_their_names(pairs, maps):
    first = SaliencyDataset(pairs, name="first").subset(range(3))
    second = SaliencyDataset(pairs, name="second").subset(range(3, 8))
    results = evaluate_maps(maps, [first, second], workers=0)
    assert {name: dataset.n for name, dataset in results.datasets.items()} == {"first": 3, "second": 5}
    with pytest.raises(ValueError, match="a name of its own for each"):
        evaluate_maps(maps, [first, first])
    with pytest.raises(ValueError, match="expected at least one"):
        evaluate_maps(maps, [])


def test_hce_is_counted_on_request(pairs, maps):
    subset = SaliencyDataset(pairs).subset(range(2))
    assert "hce" not in evaluate_maps(maps, subset, workers=0).datasets[pairs.name].scores
    (dataset,) = evaluate_maps(pairs / "masks", subset, workers=0, hce=True).datasets.values()
    assert dataset.scores["hce"] == 0


def test_results_say_what_they_are_of(pairs, maps):
    results = evaluate(
        FakePipeline(perfect),
        SaliencyDataset(pairs).subset([0]),
        workers=0,
        weights_sha256="ab" * 32,
        command="u2net eval",
    )
    assert (results.weights_sha256, results.command) == ("ab" * 32, "u2net eval")
    results = evaluate(FakePipeline(perfect), SaliencyDataset(pairs).subset([0]))
    assert results.weights_sha256 == "cd" * 32
    assert {"python", "u2net-hub", "pysodmetrics", "numpy", "pillow"} <= set(results.versions)
    assert results.date.endswith("+00:00")


def test_by_default_no_process_is_started(pairs, maps, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr("u2net_hub.evaluation.workers.ProcessPoolExecutor", refuse)
    subset = SaliencyDataset(pairs).subset([0])
    assert evaluate(FakePipeline(perfect), subset).datasets[pairs.name].n == 1
    assert evaluate_maps(maps, subset).datasets[pairs.name].n == 1


def test_a_pipeline_knows_the_hash_of_its_file_of_weights(tiny_source):
    expected = hashlib.sha256((tiny_source / "model.safetensors").read_bytes()).hexdigest()
    pipeline = SaliencyPipeline.from_pretrained(tiny_source, device="cpu", engine="torch")
    assert pipeline.weights_sha256 == expected
    assert SaliencyPipeline(tiny_source, device="cpu", engine="torch").weights_sha256 == expected


def test_a_network_in_memory_has_no_file_to_hash(tiny_source):
    network = U2Net.from_pretrained(tiny_source)
    assert SaliencyPipeline(network, device="cpu", engine="torch").weights_sha256 is None


# Several classes


@pytest.fixture
def parts(tmp_path, rng) -> Path:
    """Two pairs with the classes 0, 1, 2; one pixel is to be ignored."""
    for kind in ("images", "masks"):
        (tmp_path / "parts" / kind).mkdir(parents=True)
    for i in range(2):
        gt = np.zeros((10, 10), np.uint8)
        gt[:5], gt[5:, 5:], gt[9, 9] = 1, 2, 255
        Image.fromarray(gt).save(tmp_path / f"parts/masks/{i}.png")
        Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8)).save(tmp_path / f"parts/images/{i}.png")
    return tmp_path / "parts"


def test_a_network_of_several_classes_is_scored_by_their_iou(parts, tmp_path):
    def answer(image: Path) -> np.ndarray:
        labels = np.where(gt_of(image) == 255, 0, gt_of(image)).astype(np.uint8)
        if image.stem == "1":
            labels[:5, :5] = 0  # half of class 1 is missed
        return labels

    pipeline = FakePipeline(answer, classes=4, labels=("ground", "hat", "coat", "shoe"))
    results = evaluate(pipeline, parts, workers=0, out=tmp_path / "out")
    dataset = results.datasets["parts"]
    # ground: 25 of each picture, and the 25 taken for it; hat: 75 of 100; coat: 24 of each
    assert dataset.iou == pytest.approx({"ground": 50 / 75, "hat": 75 / 100, "coat": 1, "shoe": None})
    assert dataset.scores == {"mean_iou": pytest.approx((50 / 75 + 0.75 + 1) / 3)}
    assert Results.load(tmp_path / "out/results.json").datasets["parts"].iou["shoe"] is None
    assert (tmp_path / "out/parts_best_worst.png").is_file()


def test_label_maps_are_scored_by_their_iou(parts):
    dataset = SaliencyDataset(parts, classes=3)
    labels = parts.parent / "labels"
    labels.mkdir()
    for i in range(2):
        Image.fromarray(np.where(gt_of(parts / f"images/{i}.png") == 255, 0, 1).astype(np.uint8)).save(
            labels / f"{i}.png"
        )
    iou = evaluate_maps(labels, dataset, workers=0).datasets["parts"].iou
    assert iou == pytest.approx({"0": 0, "1": 50 / 99, "2": 0})


def test_a_set_of_another_number_of_classes_is_refused(parts):
    pipeline = FakePipeline(None, classes=4)
    with pytest.raises(ValueError, match="parts has 3 classes, but the network makes 4"):
        evaluate(pipeline, SaliencyDataset(parts, classes=3))
    with pytest.raises(ValueError, match="parts has 3 classes, but the network makes 1"):
        evaluate(FakePipeline(None), SaliencyDataset(parts, classes=3))


# Files


@pytest.fixture(scope="module")
def written(pairs, tmp_path_factory) -> Path:
    """What `evaluate` leaves."""
    out = tmp_path_factory.mktemp("out")
    evaluate(FakePipeline(rough), SaliencyDataset(pairs, name="discs"), out=out, workers=0)
    return out


def test_everything_is_written(written):
    assert {path.name for path in written.iterdir()} == {
        "results.json",
        "curves.npz",
        "discs.csv",
        "discs_precision_recall.png",
        "discs_f_threshold.png",
        "discs_best_worst.png",
    }


def test_the_mean_of_the_pictures_is_the_score_of_the_set(written):
    with (written / "discs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"{i:02}" for i in range(20)]
    scores = Results.load(written / "results.json").datasets["discs"].scores
    for name in ("mae", "s_measure", "weighted_f", "adaptive_f", "relaxed_boundary_f"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(scores[name], abs=2e-6)


def test_the_best_f_of_the_curves_is_max_f(written):
    dataset = Results.load(written / "results.json").datasets["discs"]
    precision, recall = dataset.curves["precision"], dataset.curves["recall"]
    f = 1.3 * precision * recall / (0.3 * precision + recall)
    assert f.max() == pytest.approx(dataset.scores["max_f"], abs=1e-6)


def test_plots_and_sheets_are_pictures_with_something_on_them(written):
    for path in written.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 400
            assert np.asarray(picture.convert("L")).std() > 10


def test_the_best_picture_is_on_the_left_and_the_worst_on_the_right(pairs, tmp_path):
    def answer(image: Path) -> np.ndarray:
        return 1 - perfect(image) if image.stem == "04" else perfect(image)

    evaluate(
        FakePipeline(answer), SaliencyDataset(pairs, name="discs").subset([3, 4]), out=tmp_path, workers=0
    )
    with Image.open(tmp_path / "discs_best_worst.png") as sheet:
        grey = np.asarray(sheet.convert("L"))
    tiles = [grey[40:170, left : left + 140] for left in np.arange(6) * 156 + (np.arange(6) >= 3) * 12 + 10]
    # gt and map agree on the left; on the right, the map is the inverse
    assert np.abs(tiles[1].astype(int) - tiles[2]).mean() < 5
    assert np.abs(tiles[4].astype(int) - tiles[5]).mean() > 150


def test_several_models_share_a_plot(written, tmp_path):
    results = Results.load(written / "results.json")
    files = plot_curves({"one": results, "two": results}, tmp_path)
    assert [path.name for path in files] == ["discs_precision_recall.png", "discs_f_threshold.png"]
    with Image.open(files[0]) as both, Image.open(written / files[0].name) as one:
        assert both.size == one.size
        assert np.asarray(both.convert("L")).tolist() != np.asarray(one.convert("L")).tolist()


# The command


def run(*arguments: object):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_the_command_scores_maps(pairs, maps, tmp_path):
    result = run("--maps", maps, "--data", pairs, "--out", tmp_path / "out", "--workers", 0)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"{pairs.name}, 20 pictures"
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert content["weights_sha256"] is None
    assert content["command"].startswith("u2net")


def test_the_command_scores_weights_and_names_their_hash(pairs, tiny_source, tmp_path):
    result = run(
        "--model", tiny_source, "--data", pairs, "--out", tmp_path, "--workers", 0, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "results.json").read_text())
    expected = hashlib.sha256((tiny_source / "model.safetensors").read_bytes()).hexdigest()
    assert content["weights_sha256"] == expected
    assert content["datasets"][pairs.name]["n"] == 20


def test_several_models_have_a_folder_each_and_a_plot_together(pairs, maps, tmp_path):
    result = run(
        *(
            "--maps",
            maps,
            "--maps",
            pairs / "masks",
            "--data",
            pairs,
            "--out",
            tmp_path / "out",
            "--workers",
            0,
        )
    )
    assert result.exit_code == 0, result.output
    rows = [line.split()[0] for line in result.stdout.splitlines()[2:]]
    assert rows == ["maps", "masks"]
    for name in rows:
        assert Results.load(tmp_path / "out" / name / "results.json").datasets[pairs.name].n == 20
    assert (tmp_path / "out" / f"{pairs.name}_precision_recall.png").is_file()
    assert not (tmp_path / "out/results.json").exists()


def test_the_command_says_what_it_needs(pairs):
    result = run("--data", pairs)
    assert isinstance(result.exception, ValueError)
    assert "got nothing to score" in str(result.exception)


def test_models_of_one_name_are_refused(pairs, maps, tmp_path):
    result = run("--maps", maps, "--maps", maps, "--data", pairs)
    assert "have the same name" in str(result.exception)
