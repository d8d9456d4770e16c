"""Two processes learn what one learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from u2net_hub.training.accelerator import _share_cores, _tell_processes

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


def test_the_main_process_tells_how_many_there_are_and_what_each_takes(
    frozen: list[dict[str, Any]],
) -> None:
    one, first, second = (answer["told"] for answer in frozen)
    assert one[0] == "Training on cpu with float32 in one process."
    assert first[0].startswith("Training on cpu with float32 in 2 processes, 2 on this machine, ")
    assert first[1] == "Each of the 2 processes takes 2 of the 4 pairs of a batch."
    assert not [line for line in second if "process" in line]


def test_the_memory_plan_counts_both_processes_in_each(frozen: list[dict[str, Any]]) -> None:
    one, first, second = (answer["plan"] for answer in frozen)
    assert "processes" not in one
    assert all("available, for 2 processes" in plan for plan in (first, second))


def test_a_launcher_that_starts_one_process_of_several_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # what `accelerate launch --cpu --num_processes 2` sets for the one process that it starts
    for name in ("ACCELERATE_MIXED_PRECISION", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    with caplog.at_level("WARNING"):
        _tell_processes(alone, "float32")
    assert "started one" in caplog.text
    assert "torchrun --nproc-per-node 2 -m u2net_hub train" in caplog.text


@pytest.mark.parametrize(("variable", "threads"), [(None, [4]), ("1", [4]), ("3", [])])
def test_processes_on_cpus_share_the_cores_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: list[int]
) -> None:
    given: list[int] = []
    monkeypatch.setattr("u2net_hub.training.accelerator.usable_cores", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    _share_cores(SimpleNamespace(device=torch.device("cpu"), num_processes=2))
    assert given == threads


def test_with_live_batch_norm_the_processes_stay_equal(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    first, second = launch(2, tmp_path, pairs, tiny_source, [])
    for key in first.keys() - {"told", "plan"}:
        assert torch.equal(first[key], second[key]), key
    assert first["stage1.rebnconvin.bn_s1.num_batches_tracked"] == 3
