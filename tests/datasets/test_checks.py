"""Every defect, planted in a folder and found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import SaliencyDataset, check_dataset
from u2net_hub.cli import app
from u2net_hub.datasets.report import DEFECTS, DataReport

DISC = np.zeros((48, 64), np.uint8)
DISC[12:36, 16:48] = 255


def photo(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)


def add(
    folder: Path, name: str, seed: int, mask: np.ndarray | Image.Image = DISC, suffix: str = ".png"
) -> None:
    """One pair; each seed is a photo of its own."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    photo(seed).save(folder / "images" / f"{name}.png")
    mask = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    mask.save(folder / "masks" / f"{name}{suffix}")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs without a defect: one mask of 0 and 255, one soft."""
    folder = tmp_path_factory.mktemp("clean")
    add(folder, "hard", 100)
    add(folder, "soft", 101, np.asarray(Image.fromarray(DISC).resize((32, 24)).resize((64, 48))))
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair for each defect, named after it."""
    folder = tmp_path_factory.mktemp("planted")
    add(folder, "fine", 0)
    add(folder, "no-mask", 1)
    (folder / "masks/no-mask.png").unlink()
    add(folder, "no-photo", 2)
    (folder / "images/no-photo.png").unlink()
    add(folder, "unreadable-photo", 3)
    (folder / "images/unreadable-photo.png").write_bytes(b"no picture")
    add(folder, "unreadable-mask", 4)
    whole = (folder / "masks/unreadable-mask.png").read_bytes()
    (folder / "masks/unreadable-mask.png").write_bytes(whole[: len(whole) // 2])
    add(folder, "size", 5, DISC[:, :-1])
    add(folder, "size-turned", 6, DISC.T)
    add(folder, "values-0-1", 7, DISC // 255)
    add(folder, "values-0-200", 8, (DISC > 0) * np.uint8(200))
    add(folder, "values-grey", 9, np.full_like(DISC, 100))
    add(folder, "colour", 10, Image.merge("RGB", [Image.fromarray(c) for c in (DISC, DISC, 0 * DISC)]))
    add(folder, "duplicate", 0)
    add(folder, "near-duplicate", 11)
    photo(0).resize((32, 24)).resize((64, 48)).save(folder / "images/near-duplicate.png")
    add(folder, "empty", 12, 0 * DISC)
    add(folder, "full", 13, 0 * DISC + 255)
    dim = np.asarray(Image.fromarray(DISC).resize((32, 24)).resize((64, 48))) // 4 * 3
    add(folder, "dim", 14, dim)
    add(folder, "jpeg", 15, suffix=".jpg")
    add(folder, "rgb", 16, Image.fromarray(DISC).convert("RGB"))
    add(folder, "rgb-rgba", 17, Image.fromarray(DISC).convert("RGBA"))
    return folder


@pytest.fixture(scope="module")
def report(planted: Path) -> DataReport:
    return check_dataset(planted)


def found(report: DataReport, defect: str) -> list[list[str]]:
    findings = [finding for finding in report.findings if finding.defect == defect]
    return [[f"{Path(file).parent.name}/{Path(file).name}" for file in finding.files] for finding in findings]


@pytest.mark.parametrize(
    ("defect", "files"),
    [
        ("no-mask", [["images/no-mask.png"]]),
        ("no-photo", [["masks/no-photo.png"]]),
        ("unreadable", [["images/unreadable-photo.png"], ["masks/unreadable-mask.png"]]),
        (
            "size",
            [["images/size-turned.png", "masks/size-turned.png"], ["images/size.png", "masks/size.png"]],
        ),
        ("values", [["masks/values-0-1.png"], ["masks/values-0-200.png"], ["masks/values-grey.png"]]),
        ("colour", [["masks/colour.png"]]),
        ("duplicate", [["images/duplicate.png", "images/fine.png"]]),
        ("near-duplicate", [["images/duplicate.png", "images/near-duplicate.png"]]),
        ("empty", [["masks/empty.png"]]),
        ("full", [["masks/full.png"]]),
        ("dim", [["masks/dim.png"]]),
        ("jpeg", [["masks/jpeg.jpg"]]),
        ("rgb", [["masks/rgb-rgba.png"], ["masks/rgb.png"]]),
        ("classes", []),
        ("class-numbers", []),
        ("leak", []),
        ("near-leak", []),
    ],
)
def test_each_planted_defect_is_found_and_no_other(report, defect, files):
    assert found(report, defect) == files


def test_every_defect_is_planted_somewhere(report, planted):
    elsewhere = {"classes", "class-numbers", "no-classes", "leak", "near-leak"}
    assert {finding.defect for finding in report.findings} | elsewhere == set(DEFECTS)


def test_errors_are_what_makes_training_fail_or_scores_wrong(report):
    serious = {"no-mask", "no-photo", "unreadable", "size", "values", "colour"}
    assert {finding.defect for finding in report.errors} == serious
    assert {finding.defect for finding in report.warnings}.isdisjoint(serious)
    assert len(report.errors) + len(report.warnings) == len(report.findings)


def test_details_say_what_is_wrong(report):
    details = {Path(finding.files[0]).stem: finding.detail for finding in report.findings}
    assert details["size"] == "64 × 48 and 63 × 48"
    assert details["size-turned"] == "64 × 48 and 48 × 64; turned by EXIF?"
    assert details["values-0-1"] == "values up to 1, foreground is from 128"
    assert details["values-0-200"] == "only [0, 200]"
    assert "unreadable-mask.png cannot be read as a mask" in details["unreadable-mask"]
    assert details["colour"] == "mode RGB"


def test_a_clean_set_has_no_findings(clean):
    assert check_dataset(clean).findings == []


def test_statistics_count_pairs_sizes_and_kinds(clean):
    (statistics,) = check_dataset(clean).statistics.values()
    assert statistics["pairs"] == 2
    assert statistics["width"] == dict.fromkeys(["least", "5 %", "median", "95 %", "most"], 64)
    assert statistics["height"]["median"] == 48
    assert statistics["foreground"]["least"] == pytest.approx(24 * 32 / (48 * 64), abs=0.01)
    assert statistics["photos"] == {".png": 2}
    assert statistics["masks"] == {"0 and 255": 1, "soft": 1}


def test_a_photo_in_two_sets_is_a_leak(clean, tmp_path):
    add(tmp_path, "copy", 100)
    add(tmp_path, "brighter", 101)
    photo(101).point(lambda value: value // 2 + 100).save(tmp_path / "images/brighter.png")
    report = check_dataset([clean, tmp_path])
    assert found(report, "leak") == [["images/hard.png", "images/copy.png"]]
    assert found(report, "near-leak") == [["images/soft.png", "images/brighter.png"]]
    assert [finding.defect for finding in report.errors] == ["leak"]
    assert report.errors[0].dataset == ", ".join(sorted([clean.name, tmp_path.name]))


def test_copies_whose_masks_differ_are_told(tmp_path):
    add(tmp_path, "a", 0)
    add(tmp_path, "b", 0, DISC[::-1] // 255 * np.uint8(255))
    add(tmp_path, "c", 0, np.roll(DISC, 16, axis=1))
    (finding,) = check_dataset(tmp_path).findings
    # 16 columns are new on one side and 16 gone on the other: 2 · 16 · 24 of 64 · 48 pixels
    assert finding.detail == "their masks differ, MAE 0.250"


def test_class_numbers_are_checked_against_their_number(tmp_path):
    add(tmp_path, "fine", 0, DISC // 255 * np.uint8(2))
    add(tmp_path, "ignored", 1, DISC)
    add(tmp_path, "five", 2, DISC // 255 * np.uint8(5))
    report = check_dataset(tmp_path, classes=3)
    assert found(report, "classes") == [["masks/five.png"]]
    assert found(report, "empty") == [["masks/ignored.png"]]
    assert len(report.findings) == 2


def test_what_passes_can_be_read_by_the_data_set(clean):
    assert [sample.name for sample in SaliencyDataset(clean)] == ["hard", "soft"]


def test_progress_is_told_of_every_pair(clean):
    steps = []
    check_dataset(clean, progress=steps.append)
    assert steps == [1, 1]


def test_the_report_and_sheets_are_written(planted, tmp_path):
    report = check_dataset(planted, out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(report.to_dict())
    )
    for file in (f"{planted.name}_sheet.png", "findings.png"):
        with Image.open(tmp_path / file) as sheet:
            assert np.asarray(sheet).std() > 20


def test_the_command_lists_findings_and_exits_with_1(planted):
    result = CliRunner().invoke(app, ["check-data", "--data", str(planted)])
    assert result.exit_code == 1
    assert "10 errors" in result.stdout
    assert "no-mask: 1 × photo without a mask" in result.stdout
    assert str(planted / "masks/values-0-200.png") + " (only [0, 200])" in result.stdout


def test_the_command_is_content_with_a_clean_set(clean):
    result = CliRunner().invoke(app, ["check-data", "--data", str(clean)])
    assert result.exit_code == 0
    assert "0 errors" in result.stdout


def test_warnings_alone_do_not_fail_the_command(tmp_path):
    add(tmp_path, "jpeg", 0, suffix=".jpg")
    result = CliRunner().invoke(app, ["check-data", "--data", str(tmp_path)])
    assert result.exit_code == 0
    assert "1 warning\n" in result.stdout


def test_the_command_gives_the_whole_report_as_json(planted, report):
    images, masks = str(planted / "images"), str(planted / "masks")
    result = CliRunner().invoke(app, ["check-data", "--images", images, "--masks", masks, "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == json.loads(json.dumps(report.to_dict()))


def test_soft_masks_are_said_to_train_as_they_are(clean: Path) -> None:
    report = check_dataset(clean)
    assert report.statistics[clean.name]["masks"] == {"0 and 255": 1, "soft": 1}
    assert "soft masks train with their values as they are; scores count values from 128" in report.text()


def test_the_share_of_each_class_and_of_ignored_pixels_is_said(tmp_path: Path) -> None:
    numbers = np.zeros((48, 64), np.uint8)
    numbers[:12] = 2
    numbers[12:24] = 255
    add(tmp_path / "set", "a", 0, numbers)
    (statistics,) = check_dataset(tmp_path / "set", classes=3).statistics.values()
    assert statistics["classes"] == {"0": 0.6667, "2": 0.3333, "255 (ignored)": 0.25}


def test_a_share_means_nothing_in_a_check(clean: Path) -> None:
    assert check_dataset([f"{clean}:0.5"]).statistics == check_dataset(clean).statistics


def test_the_check_takes_names_of_classes_as_training_does(tmp_path: Path) -> None:
    add(tmp_path / "set", "a", 0, np.repeat(np.array([0, 1], np.uint8), 48 * 32).reshape(48, 64))
    runner = CliRunner()
    words = ["check-data", "--data", str(tmp_path / "set"), "--classes"]
    assert runner.invoke(app, [*words, "background,shirt"]).exit_code == 0
    for wrong in ("shirt", "0", "1"):
        with pytest.raises(ValueError, match=f"--classes is '{wrong}', expected 2 to 255 of them"):
            runner.invoke(app, [*words, wrong], catch_exceptions=False)
