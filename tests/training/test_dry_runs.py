"""What is tried before a long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2net_hub import TrainConfig
from u2net_hub.training.config import Phase
from u2net_hub.training.dry_runs import dry_run, overfit_one


def config(pairs: Path, source: Path, out: Path, **overrides: object) -> TrainConfig:
    recipe = {
        "batch_size": 4,
        "epochs": 3,
        "precision": "float32",
        "optimizer": "adamw",
        "lr": 0.02,
    } | overrides
    return TrainConfig(
        data=str(pairs),
        out=str(out),
        init=str(source),
        recipe="fast",
        validation=4,
        device="cpu",
        overrides=recipe,
    )


def test_one_pair_is_learned_by_heart(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    run = config(pairs, tiny_source, tmp_path / "run")
    error = overfit_one(run, goal=0.01, on_step=lambda step, error: told.append((step, error)))
    assert error < 0.01
    assert told[-1][1] == error
    assert told[0][1] > 0.05
    assert not (tmp_path / "run").exists()


def test_a_pair_that_cannot_be_learned_is_told(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    assert overfit_one(config(pairs, tiny_source, tmp_path, lr=1e-9), steps=10) > 0.05


def test_one_pair_is_learned_by_heart_with_the_recipe_for_trained_weights(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    # tiny weights need a higher learning rate than trained ones, or many more steps
    new = TrainConfig(
        data=str(pairs), out=str(tmp_path), init=str(tiny_source), device="cpu", overrides={"lr": 0.02}
    )
    assert overfit_one(new) < 0.01


def test_a_dry_run_counts_what_the_run_would_do_and_keeps_nothing(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    phases = (Phase(0.5, 36, 32), Phase(1.0, 48, 40))
    estimate = dry_run(config(pairs, tiny_source, tmp_path / "run", phases=phases), seconds=0)
    assert estimate.device == "cpu"
    assert estimate.pairs == 16
    assert estimate.steps == 12
    assert set(estimate.images_per_second) == {32, 40}
    by_hand = sum(24 / rate for rate in estimate.images_per_second.values())
    assert estimate.seconds == pytest.approx(by_hand)
    assert set(estimate.data_wait) == {32, 40}
    assert all(0 < share < 1 for share in estimate.data_wait.values())
    assert estimate.trained == estimate.parameters > 0
    assert estimate.memory > 16 * 48 * 48 * 4
    assert estimate.plan.cache == "memory"
    assert estimate.plan.needs["training pictures"] == 16 * 48 * 48 * 4
    assert estimate.plan.needs["their copies at a smaller size"] == 16 * 36 * 36 * 4
    assert not (tmp_path / "run").exists()
