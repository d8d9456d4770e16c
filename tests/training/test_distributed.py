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

HERE = Path(__file__).parents[1]


def launch(
    processes: int, answers: Path, pairs: Path, source: Path, freeze: list[str]
) -> list[dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    recipe = {
        "batch_size": 4, "epochs": 3, "phases": ((1.0, 48, 40),), "precision": "float32",
        "optimizer": "sgd", "lr": 0.01, "jitter": 0.2, "iou": 1.0,
    }  # fmt: skip
    fields = {
        "data": str(pairs), "out": str(answers / f"run{processes}"), "init": str(source), "validation": 4,
        "recipe": "fast", "overrides": recipe, "freeze": freeze, "device": "cpu",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1",
         # the launcher has no word for several processes on one CPU; each takes its configuration's device
         "--num_processes", str(processes), *(["--multi_gpu"] if processes > 1 else ["--cpu"]),
         "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port,
         str(HERE / "two_processes.py"), str(answers), json.dumps(fields)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [torch.load(answers / f"{processes}-{rank}.pt") for rank in range(processes)]


@pytest.fixture(scope="module")
def frozen(
    pairs: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, torch.Tensor]]:
    """Answers of one process, then of two, with frozen batch norm."""
    answers = tmp_path_factory.mktemp("frozen")
    return [a for n in (1, 2) for a in launch(n, answers, pairs, tiny_source, ["bn"])]


@pytest.mark.parametrize("what", ["losses", "gradients"])
def test_two_processes_with_frozen_batch_norm_give_what_one_gives(
    frozen: list[dict[str, torch.Tensor]], what: str
) -> None:
    one, first, second = frozen
    assert one[what].abs().max() > 1e-3
    for rank in (first, second):
        torch.testing.assert_close(rank[what], one[what], atol=1e-5, rtol=0)


def test_processes_wait_for_days_because_the_main_process_scores_alone(
    frozen: list[dict[str, torch.Tensor]],
) -> None:
    for rank in frozen[1:]:
        assert rank["patience"] >= 24 * 3600


def test_with_live_batch_norm_the_processes_stay_equal(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    first, second = launch(2, tmp_path, pairs, tiny_source, [])
    for key in first:
        assert torch.equal(first[key], second[key]), key
    assert first["stage1.rebnconvin.bn_s1.num_batches_tracked"] == 3
