"""Recipes and the configuration of a run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from u2net_hub import TrainConfig
from u2net_hub.training.config import RECIPES, Phase, Recipe, field_help


def test_the_paper_recipe_is_that_of_section_4_2() -> None:
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.lr, paper.batch_size, paper.weight_decay) == ("adam", 1e-3, 12, 0)
    assert paper.phases == (Phase(1.0, 320, 288),)
    assert paper.flip
    assert (paper.bce, paper.iou, paper.side_weights, paper.ema) == (1, 0, None, None)
    assert paper.epochs * 10553 / 12 == pytest.approx(600_000, rel=0.01)


def test_a_configuration_comes_back_from_its_file(tmp_path: Path) -> None:
    config = TrainConfig(
        data="d", out="o", init="u2netp", freeze=("bn",),
        overrides={"lr": 0.5, "side_weights": (1.0, 0.5), "scales": (0.75, 1.0)},
        input_size=(64, 32), evaluate=("a", "b"),
    )  # fmt: skip
    config.save(tmp_path / "train.json")
    loaded = TrainConfig.load(tmp_path / "train.json")
    assert loaded.settings == config.settings
    assert loaded.settings.lr == 0.5
    assert loaded.settings.scales == (0.75, 1.0)
    assert loaded.out == str(tmp_path)
    assert (loaded.freeze, loaded.input_size, loaded.evaluate) == (("bn",), (64, 32), ("a", "b"))


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        TrainConfig.load(tmp_path / "train.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"data": 1}'])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ValueError, match="is not the configuration of a run"):
        TrainConfig.load(tmp_path / "train.json")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": "slow"}, "unknown recipe 'slow', expected one of .*paper.*fast"),
        ({"model": "u2ne"}, "unknown model 'u2ne'.*--init"),
        ({"classes": 1}, "classes is 1"),
        ({"freeze": ("head",)}, "cannot freeze"),
        ({"freeze": ("encoder",)}, "needs trained weights"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"cache": "tape"}, "cache is 'tape'"),
        ({"track": ("mlflow",)}, "unknown trackers"),
        ({"keep": 0}, "keep is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": 3}, "batch_size 16 does not divide into 3 parts"),
        ({"overrides": {"speed": 1}}, r"a recipe has no \['speed'\]"),
        ({"overrides": {"epochs": 0}}, "expected values above 0"),
        ({"overrides": {"phases": (Phase(0.5, 320, 288),)}}, "phases end at"),
        ({"overrides": {"phases": (Phase(1, 200, 288),)}}, "crops 288 of 200"),
        ({"overrides": {"bce": 0.0, "iou": 0.0}}, "at least one above 0"),
        ({"overrides": {"ssim": -0.5}}, "ssim -0.5.*none below"),
        ({"overrides": {"structure": 1.0}, "classes": 3}, r"\['structure'\] are losses for saliency"),
        ({"overrides": {"scales": ()}}, r"scales are \(\), expected multiples of the crop"),
        ({"overrides": {"scales": (1.0, 5.0)}}, "scales are .*from 0.25 to 4"),
        ({"overrides": {"warmup": 1.0}}, "warmup is 1.0"),
        ({"overrides": {"ema": 1.5}}, "ema is 1.5"),
        ({"overrides": {"jitter": -0.1}}, "jitter is -0.1"),
        ({"overrides": {"precision": "int8"}}, "precision is 'int8'"),
        ({"overrides": {"schedule": "linear"}}, "schedule is 'linear'"),
        ({"overrides": {"lr": float("nan")}}, "lr nan.*expected values above 0"),
        ({"overrides": {"epochs": float("inf")}}, "epochs inf"),
        ({"overrides": {"bce": float("inf")}}, "bce inf"),
        ({"overrides": {"weight_decay": -0.1}}, "weight_decay is -0.1"),
        ({"overrides": {"final_lr": float("nan")}}, "final_lr is nan"),
        ({"overrides": {"clip_norm": -1.0}}, "clip_norm is -1.0"),
        ({"overrides": {"least_steps": -1}}, "least_steps is -1"),
        ({"overrides": {"most_steps": 0}}, "most_steps 0: expected at least 1"),
        ({"overrides": {"side_weights": (0.0,) * 7}}, "side_weights are .*at least one above 0"),
        ({"overrides": {"side_weights": (1.0, -1.0)}}, "side_weights are .*none below"),
        ({"validate_every": 0}, "validate_every is 0"),
        ({"save_every": -1}, "save_every is -1"),
        ({"labels": ("shirt", "shirt")}, "expected names that differ"),
        ({"labels": ("background", "")}, "none empty"),
        ({"data": ()}, "data is empty"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"data": "d", "out": "o", **fields})


@pytest.mark.parametrize("cls", [TrainConfig, Recipe])
def test_each_field_has_a_help_text_of_whole_sentences(cls: type) -> None:
    texts = field_help(cls)
    assert list(texts) == [field.name for field in fields(cls)]
    for text in texts.values():
        assert text[0].isupper()
        assert text.endswith(".")
        assert "\n" not in text


def test_a_help_text_is_the_docstring_below_the_field() -> None:
    assert field_help(Recipe)["lr"] == "Highest learning rate."


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": "paper"},
        {"classes": 2},
        {"classes": 255},
        {"overrides": {"bce": 0.0, "iou": 1.0}},
        {"overrides": {"bce": 1.0, "iou": 0.0}},
        {"overrides": {"warmup": 0.0}},
        {"overrides": {"jitter": 0.0}},
        {"overrides": {"phases": (Phase(1, 32, 32),)}},
    ],
)
def test_a_configuration_at_the_edge_of_what_can_work_is_taken(fields: dict[str, object]) -> None:
    assert TrainConfig(data="d", out="o", **fields).settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 256}, "classes is 256"),
        ({"overrides": {"bce": -0.5}}, "none below"),
        ({"overrides": {"iou": -0.5}}, "none below"),
        ({"overrides": {"warmup": -0.5}}, "warmup is -0.5"),
        ({"overrides": {"ema": 0.0}}, "ema is 0.0"),
        ({"overrides": {"ema": 1.0}}, "ema is 1.0"),
        ({"overrides": {"jitter": 1.0}}, "jitter is 1.0"),
        ({"overrides": {"phases": (Phase(0.0, 64, 64), Phase(1, 64, 64))}}, "phases end at"),
        ({"overrides": {"phases": (Phase(1, 31, 31),)}}, "crops 31 of 31"),
    ],
)
def test_a_configuration_just_beyond_the_edge_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(data="d", out="o", **fields)


def test_several_sets_and_weights_of_classes_come_back_from_a_file(tmp_path: Path) -> None:
    config = TrainConfig(
        data=["mine", "DUTS-TR:0.2"], out="o", labels=["background", "shirt"],
        overrides={"class_weights": (1.0, 2.0), "jpeg": 30, "area": 0.5},
    )  # fmt: skip
    config.save(tmp_path / "train.json")
    loaded = TrainConfig.load(tmp_path / "train.json")
    assert loaded.settings == config.settings
    assert loaded.data == loaded.data_sets == ("mine", "DUTS-TR:0.2")
    assert (loaded.classes, loaded.labels) == (2, ("background", "shirt"))


def test_one_set_is_written_as_text() -> None:
    config = TrainConfig(data=("mine",), out="o")
    assert config == TrainConfig(data="mine", out="o")
    assert config.data_sets == ("mine",)


def test_a_record_of_before_is_read(tmp_path: Path) -> None:
    TrainConfig(data="mine", out="o").save(tmp_path / "train.json")
    content = json.loads((tmp_path / "train.json").read_text())
    del content["labels"]
    for name in ("area", "rotation", "background", "hue", "blur", "jpeg", "class_weights"):
        del content["overrides"][name]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert TrainConfig.load(tmp_path / "train.json").settings == TrainConfig(data="mine", out="o").settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ("a", "b"), "classes": 3}, "got 2 labels for 3 classes"),
        ({"overrides": {"class_weights": "balanced"}}, "say how many with --classes N"),
        ({"classes": 2, "overrides": {"class_weights": (1.0,)}}, "expected 'balanced' or 2 numbers"),
        ({"classes": 2, "overrides": {"class_weights": (0.0, 0.0)}}, "at least one above 0"),
        ({"classes": 2, "overrides": {"class_weights": "even"}}, "class_weights is 'even'"),
        ({"overrides": {"hue": 0.6}}, "hue is 0.6, expected 0 to 0.5"),
        ({"overrides": {"area": 0.0}}, "area is 0.0"),
        ({"overrides": {"rotation": -1.0}}, "rotation is -1.0"),
        ({"overrides": {"jpeg": 0}}, "jpeg is 0, expected 1 to 100"),
        ({"overrides": {"blur": float("nan")}}, "blur is nan"),
        ({"overrides": {"background": 1.1}}, "background is 1.1"),
    ],
)
def test_settings_of_classes_and_augmentation_that_cannot_work_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(data="d", out="o", **fields)


def test_a_moving_average_and_interpolation_exclude_each_other_unless_one_is_asked_for() -> None:
    asked = TrainConfig(data="d", out="o", init="u2netp", overrides={"ema": 0.99}).settings
    assert (asked.ema, asked.interpolate) == (0.99, None)
    asked = TrainConfig(data="d", out="o", overrides={"interpolate": 0.5}).settings
    assert (asked.ema, asked.interpolate) == (None, 0.5)
    with pytest.raises(ValueError, match="exclude each other"):
        TrainConfig(data="d", out="o", overrides={"ema": 0.99, "interpolate": 0.5})
