"""Training runs of a small network, whole, killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hub_server import READER, WRITER, HubServer
from huggingface_hub import HfApi
from PIL import Image
from tqdm import tqdm

from u2net_hub import TrainConfig, U2Net, U2NetConfig, train
from u2net_hub.checkpoints import is_folded
from u2net_hub.config import Stage
from u2net_hub.datasets.dataset import SaliencyDataset
from u2net_hub.training import run as run_module
from u2net_hub.training.batches import Pictures
from u2net_hub.training.checkpointing import newest_checkpoint
from u2net_hub.training.config import Phase
from u2net_hub.training.log import read_metrics
from u2net_hub.training.network import build_network, freeze
from u2net_hub.training.run import Run
from u2net_hub.training.scales import rescale
from u2net_hub.training.signals import stop_gently
from u2net_hub.training.trainer import Trainer, TrainingDiverged, number_of_steps, phase_at

HERE = Path(__file__).parents[1]
TINY = (Stage("stage1", 3, 4, 6), Stage("stage2", 2, 4, 6, dilated=True), Stage("stage1d", 3, 4, 6))
FAST = {
    "epochs": 4, "batch_size": 4, "phases": ((0.5, 36, 32), (1.0, 48, 40)), "jitter": 0.2,
    "precision": "float32", "optimizer": "adamw", "lr": 0.01, "ema": 0.9,
}  # fmt: skip


def settings(pairs: Path, source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": str(pairs), "out": str(out), "init": str(source), "validation": 4, "recipe": "fast",
        "overrides": dict(FAST),
        "accumulate": 2, "validate_every": 4, "save_every": 2, "keep": 2, "device": "cpu", **changes,
    }  # fmt: skip


def config(pairs: Path, source: Path, out: Path, **changes: Any) -> TrainConfig:
    fields = settings(pairs, source, out, **changes)
    fields["overrides"]["phases"] = tuple(Phase(*phase) for phase in fields["overrides"]["phases"])
    return TrainConfig(**fields)


class Done(NamedTuple):
    """How a training in a process of its own ended."""

    returncode: int
    stderr: str


Start = Callable[[dict[str, Any]], Done]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Trains in a process of its own, which a test may kill; the imports are shared."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "training_process.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as server:  # fmt: skip

        def run(arguments: dict[str, Any]) -> Done:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(arguments) + "\n")
            server.stdin.flush()
            return Done(**json.loads(server.stdout.readline()))

        yield run


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no plots, which take most of so small a run; `whole` and others draw them."""
    monkeypatch.setattr(run_module, "plot_run", lambda folder: None)


def sha256(run: Path) -> str:
    return hashlib.sha256((run / "final" / "model.safetensors").read_bytes()).hexdigest()


def rows(run: Path) -> list[tuple[str, ...]]:
    columns = ("step", "epoch", "crop", "lr", "loss", "val_mae", "val_max_f")
    return [tuple(row[column] for column in columns) for row in read_metrics(run / "metrics.csv")]


@pytest.fixture(scope="module")
def whole(start: Start, pairs: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    command = f"u2net train --data {pairs} --out {run} --init {tiny_source}"
    done = start({"config": settings(pairs, tiny_source, run), "command": command})
    assert done.returncode == 0, done.stderr
    return run


def test_a_run_killed_at_five_points_and_out_of_room_ends_as_if_nothing_had_been(
    start: Start, whole: Path, pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = {"config": settings(pairs, tiny_source, run), "plots": False}
    for where, step, saved in (
        ("step", 3, 2),
        ("checkpoint", 6, 4),
        ("epoch", 8, 6),
        ("validation", 8, 6),
        ("saved", 12, 12),
    ):
        killed = start({**arguments, "kill": where, "step": step})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        newest = newest_checkpoint(run)
        assert newest is not None
        assert newest.name == f"step-{saved:08d}"
        arguments["resume"] = True

    full = start({**arguments, "kill": "full disk", "step": 14})
    assert full.returncode == 1
    assert "could not write the checkpoint" in full.stderr
    assert f"{newest_checkpoint(run)} is intact: make room and go on with --resume" in full.stderr

    done = start({**arguments, "plots": True})
    assert done.returncode == 0, done.stderr
    assert rows(run) == rows(whole)
    assert sha256(run) == sha256(whole)


def test_a_run_leaves_what_its_docstring_says(whole: Path) -> None:
    for name in ("train.json", "split.json", "metrics.csv", "loss.png", "learning.png", "validation.png"):
        assert (whole / name).stat().st_size > 0
    assert len(json.loads((whole / "split.json").read_text())["held_out"]) == 4
    assert list((whole / "tensorboard").glob("events.*"))
    assert len(list((whole / "best").iterdir())) == 2
    assert U2Net.from_pretrained(whole / "final").config.variant == "custom"


def test_the_best_validation_is_what_is_kept(whole: Path) -> None:
    scores = {row[0]: float(row[5]) for row in rows(whole) if row[5]}
    best = min(scores, key=scores.__getitem__)
    kept = U2Net.from_pretrained(whole / "best" / f"step-{int(best):08d}").state_dict()
    final = U2Net.from_pretrained(whole / "final").state_dict()
    assert all(torch.equal(kept[key], final[key]) for key in final)


def test_the_result_comes_with_its_scores_and_how_it_was_made(whole: Path, tiny_source: Path) -> None:
    results = json.loads((whole / "final" / "results.json").read_text())
    assert results["weights_sha256"] == sha256(whole)
    (scores,) = results["datasets"].values()
    assert scores["n"] == 4
    assert 0 <= scores["mae"] <= 1
    assert results["training"]["start"] == tiny_source.name
    history = results["training"]["history"]
    assert [entry["mae"] for entry in history] == pytest.approx(
        [float(row[5]) for row in rows(whole) if row[5]], abs=1e-6
    )
    hours = [entry["hours"] for entry in history]
    assert hours == sorted(hours)


def test_no_record_that_is_published_holds_a_folder_of_the_machine(
    whole: Path, pairs: Path, tiny_source: Path
) -> None:
    results = json.loads((whole / "final" / "results.json").read_text())
    command = f"u2net train --data {pairs.name} --out run --init {tiny_source.name}"
    assert results["command"] == results["training"]["command"] == command
    for path in (whole / "final").rglob("*"):
        if path.suffix in (".json", ".md", ".csv"):
            assert str(whole.parent) not in path.read_text()


def test_the_arguments_of_the_program_that_trains_are_not_recorded(
    pairs: Path, tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--db-password", "secret"])
    final = train(config(pairs, tiny_source, tmp_path / "run", overrides={**FAST, "epochs": 1}))
    results = json.loads((final / "results.json").read_text())
    assert results["command"].startswith(f"train(TrainConfig(data={pairs.name!r}, out='run'")
    for path in (tmp_path / "run").rglob("*.json"):
        assert "secret" not in path.read_text()


def test_a_run_that_was_moved_resumes_where_it_is_now_from_any_folder(
    start: Start, whole: Path, pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    (tmp_path / "before" / "pairs").symlink_to(pairs)
    arguments = {"config": settings(Path("pairs"), tiny_source, Path("run")), "plots": False}
    begun = {**arguments, "folder": str(tmp_path / "before"), "kill": "saved", "step": 8}
    killed = start({**begun, "command": "u2net train --data pairs"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "before" / "run").rename(tmp_path / "after" / "moved")
    arguments["config"]["out"] = "moved"
    resumed = {**arguments, "folder": str(tmp_path / "after"), "resume": True}
    done = start({**resumed, "command": "u2net train --resume"})
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "before" / "run").exists()
    moved = tmp_path / "after" / "moved"
    assert sha256(moved) == sha256(whole)
    results = json.loads((moved / "final" / "results.json").read_text())
    assert results["training"]["command"] == "u2net train --data pairs"


def test_pictures_on_disk_train_the_same_and_leave_nothing(
    start: Start, whole: Path, pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = start({"config": settings(pairs, tiny_source, run, cache="disk"), "plots": False})
    assert done.returncode == 0, done.stderr
    assert sha256(run) == sha256(whole)
    plots = {"loss.png", "learning.png"}
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()} - plots


def test_a_streamed_run_that_is_killed_and_resumed_ends_as_one_from_memory(
    start: Start, whole: Path, pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = {"config": settings(pairs, tiny_source, run, cache="stream")}
    killed = start({**arguments, "kill": "saved", "step": 10})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = start({**arguments, "resume": True})
    assert done.returncode == 0, done.stderr
    assert sha256(run) == sha256(whole)


def test_a_photo_that_is_damaged_in_the_middle_of_a_run_is_named_and_the_checkpoint_stays(
    pairs: Path,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(pairs, tmp_path / "data")
    save = Run._save

    def save_and_damage(self: Run) -> None:
        save(self)
        for photo in (tmp_path / "data" / "images").iterdir():
            photo.write_bytes(photo.read_bytes()[:200])

    monkeypatch.setattr(Run, "_save", save_and_damage)
    run = tmp_path / "run"
    told = r"images.\d\d\.png.* cannot be read.*step-00000002 is intact: .*go on with: u2net train --out "
    with caplog.at_level("INFO"), pytest.raises(ValueError, match=told):
        train(config(tmp_path / "data", tiny_source, run, cache="stream"))
    assert newest_checkpoint(run) == run / "checkpoints" / "step-00000002"
    assert "training pictures are decoded when they are needed; memory: 0." in caplog.text


def test_a_dozen_pairs_train_with_the_settings_as_they_come(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        for i in range(12):
            (data / kind / f"{i:02}.png").symlink_to(pairs / kind / f"{i:02}.png")
    new = TrainConfig(data=str(data), out=str(tmp_path / "run"), init=str(tiny_source), device="cpu")
    trainer = Trainer(new, resume=False)
    assert (len(trainer.training), len(trainer.held_out), trainer.recipe.batch_size) == (9, 3, 8)


def fine_tuned(pairs: Path, source: Path, out: Path, **overrides: Any) -> TrainConfig:
    """The recipe for trained weights, on small pictures and for few steps."""
    small = {"phases": (Phase(1.0, 36, 32),), "precision": "float32", "least_steps": 4, "most_steps": 4}
    return TrainConfig(
        data=str(pairs), out=str(out), init=str(source), device="cpu", overrides={**small, **overrides}
    )


def test_fine_tuning_compares_its_start_with_its_end_and_keeps_the_better(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    final = train(fine_tuned(pairs, tiny_source, tmp_path / "run"))
    validated = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if row["val_weighted_f"]]
    assert [row["step"] for row in validated] == ["0", "4"]
    start, end = (float(row["val_weighted_f"]) for row in validated)
    kept = {path.name: path for path in (tmp_path / "run" / "best").iterdir()}
    best = "step-00000004" if end > start else "step-00000000"
    wanted = U2Net.from_pretrained(kept[best]).state_dict()
    for key, value in U2Net.from_pretrained(final).state_dict().items():
        assert torch.equal(value, wanted[key]), key


def test_fine_tuning_that_only_hurts_gives_the_start_back(
    pairs: Path, tiny_source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # learns nothing, and its scores are said to fall with each step
    wrong = fine_tuned(pairs, tiny_source, tmp_path / "run", lr=1e-12)
    run = Run(Trainer(wrong, resume=False))
    run._validate = lambda log: run._keep_best(
        run.trainer.averaged(), {"mae": 0.5, "weighted_f": 1.0 - run.progress.step}
    )
    with caplog.at_level("WARNING"):
        final = run()
    assert "not better than its start" in caplog.text
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # batch norm was unfolded, so that the maps are equal and the weights are not
        before, after = (U2Net.from_pretrained(place)(x)[0].sigmoid() for place in (tiny_source, final))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_a_run_with_several_sizes_resizes_each_batch_by_its_number(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    new = fine_tuned(pairs, tiny_source, tmp_path)
    sizes = []
    for scales in (None, (1.0, 1.25, 1.5)):
        trainer = Trainer(replace(new, overrides={**(new.overrides or {}), "scales": scales}), resume=False)
        trainer.pictures = Pictures.read(trainer.training, (36, 36))
        sizes.append([(x, target) for x, target in trainer.stream(1)])
    for number, (plain, resized) in enumerate(zip(*sizes, strict=True), start=1):
        expected = rescale(*plain, (1.0, 1.25, 1.5), seed=0, number=number)
        assert all(torch.equal(a, b) for a, b in zip(expected, resized, strict=True))
    assert any(x.shape[-1] != 32 for x, _ in sizes[1])


def test_what_is_kept_of_fine_tuning_lies_half_way(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    trainer = Trainer(fine_tuned(pairs, tiny_source, tmp_path), resume=False)
    key = "outconv.weight"
    before = trainer.network.state_dict()[key].clone()
    take_steps(trainer, 3)
    now = trainer.network.state_dict()[key]
    assert not torch.equal(before, now)
    torch.testing.assert_close(trainer.averaged().state_dict()[key], (before + now) / 2)


def test_folded_batch_norm_is_unfolded_before_training(pairs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folded = U2Net(U2NetConfig(variant="custom", stages=TINY, input_size=(32, 32))).eval()
    assert is_folded(folded.state_dict())
    trainer = Trainer(fine_tuned(pairs, folded.save_pretrained(tmp_path / "a"), tmp_path / "b"), resume=False)
    assert not is_folded(trainer.network.state_dict())
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = folded(x)[0].sigmoid() - trainer.network.eval()(x)[0].sigmoid()
    assert difference.abs().mean() <= 1e-5


@pytest.mark.parametrize(("pairs", "steps"), [(9, 16), (48, 16), (200, 50), (1700, 120)])
def test_the_number_of_steps_of_fine_tuning_has_limits(pairs: int, steps: int) -> None:
    recipe = TrainConfig(data="", out="", init="u2netp").settings
    assert number_of_steps(recipe, pairs, recipe.batch_size) == steps


def test_a_run_that_validates_at_its_end_alone_saves_twenty_times(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    new = fine_tuned(pairs, tiny_source, tmp_path, least_steps=100, most_steps=100)
    trainer = Trainer(new, resume=False)
    assert (trainer.validate_every, trainer.save_every) == (100, 5)
    said = Trainer(replace(new, validate_every=10), resume=False)
    assert (said.validate_every, said.save_every) == (10, 10)


def test_a_run_with_a_moving_average_validates_and_saves_twenty_times(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    new = fine_tuned(pairs, tiny_source, tmp_path, least_steps=100, most_steps=100, ema=0.9)
    trainer = Trainer(new, resume=False)
    assert (trainer.validate_every, trainer.save_every) == (5, 5)


def test_fine_tuning_that_was_stopped_ends_as_if_nothing_had_been(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    folded = U2Net(U2NetConfig(variant="custom", stages=TINY, input_size=(32, 32)))
    source = folded.save_pretrained(tmp_path / "source")  # the resumed run must not unfold it again
    whole = train(fine_tuned(pairs, source, tmp_path / "whole"))
    stopping: list[int] = []

    @contextmanager
    def stop(_: str | None) -> Iterator[list[int]]:
        yield stopping

    original = Trainer.step

    def step(trainer: Trainer, stream: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[Any, float]:
        if trainer.progress.step == 2:
            stopping.append(signal.SIGINT)
        return original(trainer, stream)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "stop_gently", stop)
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 3 of 4"):
            train(fine_tuned(pairs, source, run))
    resumed = train(TrainConfig.load(run / "train.json"), resume=True)
    assert sha256(run) == sha256(tmp_path / "whole")
    assert rows(run) == rows(tmp_path / "whole")
    assert (resumed, whole) == (run / "final", tmp_path / "whole" / "final")


def test_fine_tuning_diverges_by_its_first_loss_and_not_by_its_lowest(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    trainer = Trainer(fine_tuned(pairs, tiny_source, tmp_path), resume=False)
    run = Run(trainer)
    trainer.progress.first, trainer.progress.lowest = 1.0, 0.1
    with tqdm(disable=True) as bar:
        for smooth, ends in ((2.9, False), (3.1, True)):
            trainer.progress.smooth = smooth
            with pytest.raises(TrainingDiverged, match=r"is three times 1\.000") if ends else nullcontext():
                run._record([(1, 0.1, torch.tensor(smooth))], 1.0, 0.0, None, bar)


def test_a_batch_without_labels_says_nothing_of_divergence(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    run = Run(Trainer(fine_tuned(pairs, tiny_source, tmp_path), resume=False))
    with tqdm(disable=True) as bar:
        for step, loss in enumerate((0.0, 1.0, 0.0, 1.0), start=1):
            run._record([(step, 0.1, torch.tensor(loss))], 1.0, 0.0, None, bar)
    assert run.progress.lowest == run.progress.first == pytest.approx(1.0)


def test_a_run_of_one_step_has_no_warm_up(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    one = {"least_steps": 1, "most_steps": 1, "warmup": 0.9}
    trainer = Trainer(fine_tuned(pairs, tiny_source, tmp_path, **one), resume=False)
    assert trainer.schedule is not None
    trainer.schedule.step_update(0)
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.recipe.lr


def test_held_out_masks_without_a_label_are_refused(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    for part, value in (("train", 1), ("held", 255)):
        shutil.copytree(pairs / "images", tmp_path / part / "images")
        (tmp_path / part / "masks").mkdir()
        for i, path in enumerate(sorted((pairs / "images").iterdir())):
            if (part == "held") != (i < 4):  # other photos
                path = tmp_path / part / "images" / path.name
                path.unlink()
                continue
            with Image.open(path) as photo:
                Image.new("L", photo.size, value).save(tmp_path / part / "masks" / f"{path.stem}.png")
    fields = {"data": str(tmp_path / "train"), "validation_data": str(tmp_path / "held"), "classes": 2}
    made = replace(fine_tuned(pairs, tiny_source, tmp_path / "run"), recipe="finetune", **fields)
    with pytest.raises(ValueError, match="no pixel of the 4 held-out masks has a label"):
        train(made)


def test_epochs_that_are_asked_for_are_not_limited() -> None:
    recipe = TrainConfig(data="", out="", init="u2netp", overrides={"epochs": 1}).settings
    assert number_of_steps(recipe, 16, 8) == 2


def test_the_first_signal_tells_at_once_how_to_go_on(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_gently("u2net train --out run --resume") as asked:
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)  # as the signal does, without the danger of ending the tests
        assert asked == [signal.SIGTERM]
        assert "To go on later: u2net train --out run --resume" in caplog.text
        assert signal.getsignal(signal.SIGTERM) == before  # the second signal acts as usual
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stopped_run_names_the_command_that_goes_on(
    pairs: Path, tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped(_: str | None) -> Iterator[list[int]]:
        yield [signal.SIGINT]

    monkeypatch.setattr(run_module, "stop_gently", stopped)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=f"stopped at step 1 of 16; go on with: u2net .*{run}"):
        train(config(pairs, tiny_source, run))
    assert newest_checkpoint(run) == run / "checkpoints" / "step-00000001"


def test_a_thread_can_train_because_only_the_main_thread_handles_signals() -> None:
    with ThreadPoolExecutor(1) as pool:

        def listen() -> list[int]:
            with stop_gently("go on") as asked:
                return asked

        assert pool.submit(listen).result() == []


def test_the_loss_falls(whole: Path) -> None:
    losses = [float(row[4]) for row in rows(whole) if row[4]]
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_the_time_spent_on_getting_batches_is_a_part_of_the_whole(whole: Path) -> None:
    shares = [float(row["data_wait"]) for row in read_metrics(whole / "metrics.csv") if row["loss"]]
    assert len(shares) == 16
    assert all(0 < share < 1 for share in shares)


def test_learning_rate_and_crop_follow_the_recipe(whole: Path) -> None:
    steps = [row for row in rows(whole) if row[4]]
    assert [int(row[2]) for row in steps] == [32] * 8 + [40] * 8
    rates = [float(row[3]) for row in steps]
    # two warm-up steps of sixteen, then half a cosine from 0.01 to 0.0001
    assert rates[0] == pytest.approx(1e-5)
    assert rates[2] == pytest.approx(0.01)
    assert rates[9] == pytest.approx((0.01 + 1e-4) / 2)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_run_is_not_overwritten(whole: Path, pairs: Path, tiny_source: Path) -> None:
    with pytest.raises(FileExistsError, match="add --resume to go on"):
        train(config(pairs, tiny_source, whole))


def test_nothing_to_resume_is_said(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume"):
        train(config(pairs, tiny_source, tmp_path), resume=True)


def test_a_run_resumes_on_its_own_data_only(
    whole: Path, pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="holds other pairs"):
        train(config(pairs, tiny_source, whole, validation=5), resume=True)


def test_a_loss_that_explodes_stops_the_run(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    wild = {**FAST, "optimizer": "sgd", "lr": 1e6, "schedule": "constant"}
    with pytest.raises(TrainingDiverged, match=r"the last good checkpoint is|there is no checkpoint yet"):
        train(config(pairs, tiny_source, tmp_path / "run", overrides=wild))
    newest = newest_checkpoint(tmp_path / "run")
    if newest is not None:
        weights = U2Net.from_pretrained(tiny_source)
        from safetensors.torch import load_file

        assert load_file(newest / "model.safetensors").keys() == weights.state_dict().keys()


def test_too_few_pairs_for_batch_norm_are_refused(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 pairs for training, but a step needs at least 4"):
        train(config(pairs, tiny_source, tmp_path, validation=18))


def test_a_gpu_that_is_not_there_is_an_error(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' was asked for"):
        train(config(pairs, tiny_source, tmp_path, device="cuda"))


def test_a_frozen_encoder_keeps_its_weights_and_statistics(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    trainer = Trainer(config(pairs, tiny_source, tmp_path, freeze=("encoder",)), resume=False)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    take_steps(trainer, 2)
    for key, value in trainer.network.state_dict().items():
        if key.startswith(("stage1.", "stage2.")):
            assert torch.equal(value, before[key]), key
        elif key.endswith("conv_s1.weight") or key.startswith("side"):
            assert not torch.equal(value, before[key]), key


def test_frozen_batch_norm_keeps_statistics_and_affine_while_convolutions_learn(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    trainer = Trainer(config(pairs, tiny_source, tmp_path, freeze=("bn",)), resume=False)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    take_steps(trainer, 2)
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[key]) == (".bn_s1." in key), key


def test_accumulated_gradients_are_those_of_the_whole_batch(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    plain = {**FAST, "jitter": 0.0, "optimizer": "sgd", "schedule": "constant", "flip": False,
             "phases": ((1.0, 40, 40),)}  # fmt: skip
    weights = []
    for parts in (1, 2):
        run = config(
            pairs, tiny_source, tmp_path / str(parts), accumulate=parts, freeze=("bn",), overrides=plain
        )
        trainer = Trainer(run, resume=False)
        take_steps(trainer, 1)
        weights.append(trainer.network.state_dict())
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-6, rtol=1e-5)


def test_the_moving_average_is_that_of_the_weights(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    trainer = Trainer(config(pairs, tiny_source, tmp_path), resume=False)
    key = "side1.weight"
    history = [trainer.network.state_dict()[key].clone()]
    for _ in range(3):
        take_steps(trainer, 1)
        history.append(trainer.network.state_dict()[key].clone())
    # with warm-up the decay of update t is 1 - t ** (-2/3), and 0 for the first two
    average = history[2]
    average = average + (history[3] - average) * 2 ** (-2 / 3)
    torch.testing.assert_close(trainer.averaged().state_dict()[key], average)


def test_other_classes_start_new_heads_and_keep_the_rest(
    tiny_source: Path, pairs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build_network(config(pairs, tiny_source, tmp_path, classes=3))
    source = U2Net.from_pretrained(tiny_source).state_dict()
    assert network.config.out_channels == 3
    assert network.config.activation == "softmax"
    assert "side1 … side2 and outconv start anew" in caplog.text
    for key, value in network.state_dict().items():
        if key.startswith(("side", "outconv")):
            assert value.shape != source[key].shape, key
        else:
            assert torch.equal(value, source[key]), key


def test_classes_are_learned_from_masks_of_numbers(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "masks").mkdir(parents=True)
    (data / "images").symlink_to(pairs / "images")
    for mask in (pairs / "masks").iterdir():
        disc = np.asarray(Image.open(mask)) // 255
        disc[:4] = 2
        Image.fromarray(disc).save(data / "masks" / mask.name)
    run = config(data, tiny_source, tmp_path / "run", classes=3)
    final = U2Net.from_pretrained(train(run))
    assert final.config.out_channels == 3
    scores = [float(row["val_miou"]) for row in read_metrics(tmp_path / "run/metrics.csv") if row["val_miou"]]
    assert scores[-1] > scores[0]


def test_a_new_network_is_used_at_the_size_it_was_trained_at(pairs: Path, tmp_path: Path) -> None:
    phases = {"phases": (Phase(0.5, 36, 32), Phase(1.0, 48, 40))}
    new = TrainConfig(data=str(pairs), out=str(tmp_path), overrides=phases)
    assert build_network(new).config.input_size == (48, 48)
    assert build_network(replace(new, input_size=(40, 56))).config.input_size == (40, 56)
    assert build_network(TrainConfig(data="", out="", recipe="paper")).config.input_size == (320, 320)


def test_weights_to_start_from_keep_the_size_they_are_used_at(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    start = config(pairs, tiny_source, tmp_path)
    assert build_network(start).config.input_size == U2Net.from_pretrained(tiny_source).config.input_size


def test_each_phase_lasts_as_long_as_it_says() -> None:
    recipe = replace(
        TrainConfig(data="", out="").settings,
        phases=(Phase(0.25, 40, 40), Phase(0.5, 50, 50), Phase(1, 60, 60)),
    )
    assert [phase_at(recipe, step, 8).crop for step in range(8)] == [40, 40, 50, 50, 60, 60, 60, 60]


def test_freezing_is_undone_by_nobody_else(tiny_source: Path) -> None:
    network = U2Net.from_pretrained(tiny_source)
    freeze(network, ("encoder",))
    assert not any(p.requires_grad for p in network.get_submodule("stage1").parameters())
    assert all(p.requires_grad for p in network.get_submodule("stage1d").parameters())


def test_copies_of_a_photo_stay_on_one_side(pairs: Path, tiny_source: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        for picture in (pairs / kind).iterdir():
            for copy in "ab":
                (data / kind / f"{picture.stem}{copy}.png").symlink_to(picture)
    trainer = Trainer(config(data, tiny_source, tmp_path / "run", validation=8), resume=False)
    sides = [{pair.name[:-1] for pair in side.pairs} for side in (trainer.training, trainer.held_out)]
    assert len(SaliencyDataset(data)) == 40
    assert not sides[0] & sides[1]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx
def test_kept_weights_go_to_a_branch_and_the_result_to_main(
    hub: HubServer, pairs: Path, tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITER)
    final = train(config(pairs, tiny_source, tmp_path / "run", push_to="org/discs"))
    api = HfApi(token=WRITER)
    assert {branch.name for branch in api.list_repo_refs("org/discs").branches} == {"main", "training"}
    assert {"model.safetensors", "config.json", "README.md", "results.json"} <= set(
        api.list_repo_files("org/discs")
    )
    pushed = U2Net.from_pretrained("org/discs", token=WRITER).state_dict()
    kept = U2Net.from_pretrained(final).state_dict()
    assert all(torch.equal(pushed[key], kept[key]) for key in kept)


def test_a_hub_that_is_down_does_not_stop_training(
    hub: HubServer,
    pairs: Path,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)  # it may not write: as good as down, and at once
    final = train(config(pairs, tiny_source, tmp_path / "run", push_to="org/discs"))
    assert (final / "model.safetensors").is_file()
    assert "u2net push" in caplog.text


def take_steps(trainer: Trainer, number: int) -> None:
    """Steps of a run from where it is, without its log and checkpoints."""
    trainer.pictures = Pictures.read(trainer.training, (48, 48))
    trainer.set_train_mode()
    stream = trainer.stream(trainer.progress.step)
    for _ in range(number):
        trainer.step(stream)
        trainer.progress.step += 1
    stream.close()


def test_a_run_on_several_sets_with_every_augmentation_resumes_exactly(
    pairs: Path, tiny_source: Path, tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "other" / kind).mkdir(parents=True)
        for i in range(4):
            picture = Image.open(pairs / kind / f"{i:02}.png")
            picture.transpose(Image.Transpose.TRANSPOSE).save(tmp_path / "other" / kind / f"{i:02}.png")
    every = {"area": 0.5, "rotation": 20.0, "background": 0.5, "hue": 0.1, "blur": 1.0, "jpeg": 40}
    overrides = {**FAST, **every, "epochs": 0.7}
    run = tmp_path / "run"
    train(
        config(
            pairs, tiny_source, run, data=(str(pairs), f"{tmp_path / 'other'}:1.5"), overrides=overrides
        )
    )  # fmt: skip
    whole = sha256(run)
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step-00000002", "step-00000004"]
    shutil.rmtree(checkpoints[1])
    shutil.rmtree(run / "final")
    train(TrainConfig.load(run / "train.json"), resume=True)
    assert sha256(run) == whole
    split = json.loads((run / "split.json").read_text())
    assert split["sets"] == {pairs.name: {"pairs": 16, "samples": 16}, "other": {"pairs": 4, "samples": 6}}
    assert {name.split("/")[0] for name in split["held_out"]} == {pairs.name}
    results = json.loads((run / "final" / "results.json").read_text())
    assert results["training"]["data"] == [pairs.name, "other"]
    assert (run / "batch.png").stat().st_size > 0
