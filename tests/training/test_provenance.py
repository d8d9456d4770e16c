"""What the records of a run tell about how it began."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from u2net_hub import TrainConfig
from u2net_hub.training.config import RECIPES
from u2net_hub.training.provenance import (
    command_without_folders,
    first_command,
    public_settings,
    python_call,
    resume_command,
    with_absolute_paths,
    without_folders,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/secret project/u2net.onnx", "u2net.onnx"),
        ("/home/me/runs/a/", "a"),
        ("~/pairs", "pairs"),
        ("../../customer/pairs", "pairs"),
        (r"C:\Users\me\pairs", "pairs"),
        ("customer/data/pairs", "pairs"),
        ("/data/DUTS-TR:0.2", "DUTS-TR:0.2"),
        ("u2netp", "u2netp"),
        ("org/name", "org/name"),
        ("org/name@main", "org/name@main"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("0.01", "0.01"),
    ],
)
def test_a_path_is_reduced_to_its_last_name(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_a_folder_that_is_named_like_a_hub_model_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "customer" / "pairs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert without_folders("customer/pairs") == "pairs"


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_folders(".") == tmp_path.name


def test_a_command_line_keeps_its_options_without_folders() -> None:
    command = "u2net train --data '/home/me/my pairs' --out=/tmp/run --init org/name --lr 0.01"
    assert command_without_folders(command) == (
        "u2net train --data 'my pairs' --out=run --init org/name --lr 0.01"
    )


def test_a_call_from_python_is_told_by_what_differs_from_the_defaults() -> None:
    config = TrainConfig(
        data="/home/me/pairs", out="runs/1/a", init="u2netp", overrides={"lr": 0.5, "iou": 1.0}
    )
    # iou is 1 in the fast recipe
    assert python_call(config) == (
        "train(TrainConfig(data='pairs', out='a', init='u2netp', overrides={'lr': 0.5}))"
    )
    assert RECIPES["fast"].iou == 1


def test_a_resumed_run_tells_how_it_began(tmp_path: Path) -> None:
    config = TrainConfig(data="pairs", out=str(tmp_path))
    begun = first_command(config, "u2net train --data pairs --lr 0.1")
    config.save(tmp_path / "train.json", command=begun)
    record = tmp_path / "train.json"
    assert first_command(config, "u2net train --out run --resume", record=record) == begun


def test_a_run_of_an_older_version_tells_its_settings_when_resumed(tmp_path: Path) -> None:
    config = TrainConfig(data="pairs", out=str(tmp_path))
    config.save(tmp_path / "train.json")
    content = json.loads((tmp_path / "train.json").read_text())
    del content["command"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    loaded = TrainConfig.load(tmp_path / "train.json")
    told = first_command(loaded, "u2net train --resume", record=tmp_path / "train.json")
    assert told == f"train(TrainConfig(data='pairs', out={tmp_path.name!r}))"


def test_paths_are_kept_absolute_and_other_sources_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pairs/photos", "elsewhere", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    config = TrainConfig(
        data="pairs", out="run", images="photos", masks="elsewhere", init="mine", evaluate=("test",)
    )
    kept = with_absolute_paths(config)
    assert (kept.data, kept.out) == (str(tmp_path / "pairs"), str(tmp_path / "run"))
    assert (kept.images, kept.masks) == ("photos", str(tmp_path / "elsewhere"))
    assert (kept.init, kept.evaluate) == (str(tmp_path / "mine"), (str(tmp_path / "test"),))
    for source in ("u2netp", "org/name"):
        assert with_absolute_paths(replace(config, init=source)).init == source


def test_the_command_that_goes_on_names_the_run() -> None:
    assert resume_command("my run") == "u2net train --out 'my run' --resume"
    assert resume_command("run", 2) == "accelerate launch -m u2net_hub train --out run --resume"


def test_the_command_that_goes_on_in_two_processes_on_cpus_starts_two() -> None:
    expected = "torchrun --nproc-per-node 2 -m u2net_hub train --out run --resume"
    assert resume_command("run", 2, cpu=True) == expected


def test_trackers_see_no_folders_and_all_of_the_recipe() -> None:
    config = TrainConfig(
        data="/home/me/secret/pairs", out="/home/me/run", evaluate=("/srv/ECSSD",), overrides={"lr": 0.5}
    )
    settings = public_settings(config, "u2net train --data pairs")
    assert not any("/" in str(value) for value in settings.values())
    assert settings["data"] == "pairs"
    assert settings["evaluate"] == "('ECSSD',)"
    assert settings["recipe"] == "fast"
    assert settings["lr"] == 0.5
    assert settings["batch_size"] == 16
    assert all(value is None or isinstance(value, bool | int | float | str) for value in settings.values())


def test_the_paths_of_several_sets_become_absolute_and_keep_their_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/photos").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    config = TrainConfig(data=("mine", "DUTS-TR:0.2"), out="run", images="photos")
    absolute = with_absolute_paths(config)
    assert absolute.data == (str(tmp_path / "mine"), str(tmp_path / "DUTS-TR:0.2"))
    assert absolute.images == "photos"
    assert "data=('mine', 'DUTS-TR:0.2')" in python_call(absolute)
