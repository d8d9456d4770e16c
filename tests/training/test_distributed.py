"""Two processes learn what one learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import take_three_steps

HERE = Path(__file__).parents[1]


Answer = dict[str, torch.Tensor]


def settings(pairs: Path, source: Path, out: Path, freeze: list[str]) -> dict[str, object]:
    recipe = {
        "batch_size": 4, "epochs": 3, "phases": ((1.0, 48, 40),), "precision": "float32",
        "optimizer": "sgd", "lr": 0.01, "jitter": 0.2, "iou": 1.0,
    }  # fmt: skip
    return {
        "data": str(pairs), "out": str(out), "init": str(source), "validation": 4,
        "recipe": "fast", "overrides": recipe, "freeze": freeze, "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def of_two(
    pairs: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Answer]]:
    """The answers of two processes, with frozen and with live batch norm. Both come from one launch."""
    answers = tmp_path_factory.mktemp("two")
    runs = {
        name: settings(pairs, tiny_source, answers / name, freeze)
        for name, freeze in (("frozen", ["bn"]), ("live", []))
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1",
         # the launcher has no word for several processes on one CPU; each takes its configuration's device
         "--num_processes", "2", "--multi_gpu",
         "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port,
         str(HERE / "two_processes.py"), str(answers), json.dumps(runs)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: [torch.load(answers / f"{name}-2-{rank}.pt") for rank in range(2)] for name in runs}


@pytest.fixture(scope="module")
def of_one(pairs: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """The answer of one process, this one, with frozen batch norm."""
    answers = tmp_path_factory.mktemp("one")
    take_three_steps(settings(pairs, tiny_source, answers / "run", ["bn"]), answers, "frozen")
    return torch.load(answers / "frozen-1-0.pt")


@pytest.mark.parametrize("what", ["losses", "gradients"])
def test_two_processes_with_frozen_batch_norm_give_what_one_gives(
    of_one: Answer, of_two: dict[str, list[Answer]], what: str
) -> None:
    assert of_one[what].abs().max() > 1e-3
    for rank in of_two["frozen"]:
        torch.testing.assert_close(rank[what], of_one[what], atol=1e-5, rtol=0)


def test_processes_wait_for_days_because_the_main_process_scores_alone(
    of_two: dict[str, list[Answer]],
) -> None:
    for rank in of_two["frozen"]:
        assert rank["patience"] >= 24 * 3600


def test_with_live_batch_norm_the_processes_stay_equal(of_two: dict[str, list[Answer]]) -> None:
    first, second = of_two["live"]
    for key in first:
        assert torch.equal(first[key], second[key]), key
    assert first["stage1.rebnconvin.bn_s1.num_batches_tracked"] == 3
