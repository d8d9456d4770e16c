"""The verb `train`: an option for each field of the configuration, and what becomes of it."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from u2net_hub import Phase, Recipe, TrainConfig, cli, training
from u2net_hub.cli.options import command_line


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations that were to be trained."""
    configs: list[TrainConfig] = []

    def pretend(config: TrainConfig, **options: Any) -> Path:
        configs.append(config)
        return Path("final")

    monkeypatch.setattr(training, "train", pretend)
    return configs


def run(*words: str) -> None:
    CliRunner().invoke(cli.app, ["train", *words], catch_exceptions=False)


def test_there_is_an_option_for_each_field_of_configuration_and_recipe() -> None:
    verb = get_command(cli.app).commands["train"]  # type: ignore[attr-defined]
    names = {each.name for each in verb.params}
    expected = {each.name for cls in (TrainConfig, Recipe) for each in fields(cls)}
    assert names >= expected - {"overrides", "phases", "labels"}


def test_without_options_the_configuration_has_its_defaults(trained: list[TrainConfig]) -> None:
    run("--data", "pairs", "--out", "run")
    assert trained == [TrainConfig(data="pairs", out="run", overrides={})]


def test_options_reach_the_configuration(trained: list[TrainConfig]) -> None:
    run(
        *[
            "--data",
            "pairs",
            "--out",
            "run",
            "--recipe",
            "paper",
            "--freeze",
            "bn",
            "--evaluate",
            "A",
            "--evaluate",
            "B",
            "--compile",
        ],
        *[
            "--input-size",
            "96",
            "--crop",
            "288",
            "--lr",
            "0.5",
            "--no-flip",
            "--side-weights",
            "1",
            "--side-weights",
            "0.5",
        ],
    )
    assert trained == [
        TrainConfig(
            data="pairs",
            out="run",
            recipe="paper",
            freeze=("bn",),
            evaluate=("A", "B"),
            compile=True,
            input_size=(96, 96),
            overrides={
                "lr": 0.5,
                "flip": False,
                "side_weights": (1.0, 0.5),
                "phases": (Phase(1.0, 320, 288),),
            },
        )
    ]


def test_resume_takes_no_other_settings(trained: list[TrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"got \['lr'\] as well"):
        run("--out", "run", "--resume", "--lr", "1")
    assert trained == []


def test_training_needs_data() -> None:
    with pytest.raises(ValueError, match="got no --data"):
        run("--out", "run")


def test_the_recorded_command_names_no_folders_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["eval", "--model", "/home/me/net.pth", "--data=/srv/ECSSD", "--out", "scores/new"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/u2net", *words])
    assert command_line() == "u2net eval --model net.pth --data=ECSSD --out scores/new"


def test_several_sets_and_classes_reach_the_configuration(trained: list[TrainConfig]) -> None:
    run("--data", "mine", "--data", "DUTS-TR:0.2", "--out", "run", "--classes", "background, shirt",
        "--class-weights", "1,5", "--jpeg", "30", "--area", "0.5")  # fmt: skip
    run("--data", "mine", "--out", "run", "--classes", "3", "--class-weights", "balanced")
    assert trained == [
        TrainConfig(
            data=("mine", "DUTS-TR:0.2"),
            out="run",
            labels=("background", "shirt"),
            overrides={"class_weights": (1.0, 5.0), "jpeg": 30, "area": 0.5},
        ),
        TrainConfig(data="mine", out="run", classes=3, overrides={"class_weights": "balanced"}),
    ]


def test_weights_of_classes_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--class-weights is 'even', expected balanced, or numbers"):
        run("--data", "mine", "--out", "run", "--classes", "2", "--class-weights", "even")
