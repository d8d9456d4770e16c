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
from two_processes import take_three_steps

from u2net_hub.training.accelerator import _share_cores, _tell_processes

HERE = Path(__file__).parents[1]


Answer = dict[str, Any]


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


def test_the_main_process_tells_how_many_there_are_and_what_each_takes(
    of_one: Answer, of_two: dict[str, list[Answer]]
) -> None:
    one, first, second = (answer["told"] for answer in (of_one, *of_two["frozen"]))
    assert one[0] == "Training on cpu with float32 in one process."
    assert first[0].startswith("Training on cpu with float32 in 2 processes, 2 on this machine, ")
    assert first[1] == "Each of the 2 processes takes 2 of the 4 pairs of a batch."
    assert not [line for line in second if "process" in line]


def test_the_memory_plan_counts_both_processes_in_each(
    of_one: Answer, of_two: dict[str, list[Answer]]
) -> None:
    one, first, second = (answer["plan"] for answer in (of_one, *of_two["frozen"]))
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


def test_with_live_batch_norm_the_processes_stay_equal(of_two: dict[str, list[Answer]]) -> None:
    first, second = of_two["live"]
    for key in first.keys() - {"told", "plan"}:
        assert torch.equal(first[key], second[key]), key
    assert first["stage1.rebnconvin.bn_s1.num_batches_tracked"] == 3
