"""Charts of a run in TensorBoard, and in Trackio and wandb as far as they can be stood in for."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from u2net_hub.training.log import RunLog
from u2net_hub.training.trackers import check_names, check_trackers, start_trackers


class Service(ModuleType):
    """Stands in for trackio or wandb: remembers how runs began and what they were told."""

    class Error(Exception):
        """An error of the service."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> SimpleNamespace:
        print("words on the standard output")
        self.begun.append(settings)
        return SimpleNamespace(
            log=lambda values, step=None: self.rows.append((step, values)), finish=self.finish
        )

    def finish(self) -> None:
        print("more words")
        self.finished += 1


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    made = Accelerator(cpu=True)
    yield made
    made.trackers.clear()


@pytest.fixture
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service(request.param)
    monkeypatch.setitem(sys.modules, request.param, made)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return made


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def log(accelerator: Accelerator, folder: Path, names: list[str], begin: int, end: int) -> None:
    """Log the steps from `begin` + 1 to `end`, as a run does that starts or resumes at `begin`."""
    start_trackers(accelerator, names, folder, begin, {"lr": 0.5})
    with RunLog(folder, begin, accelerator) as run:
        for step in range(begin + 1, end + 1):
            run.add(step, {"loss": step / 4, "val_mae": 0.25})


def test_events_go_to_tensorboard_and_those_of_repeated_steps_vanish(
    accelerator: Accelerator, tmp_path: Path
) -> None:
    log(accelerator, tmp_path, ["tensorboard"], 0, 3)
    log(accelerator, tmp_path, ["tensorboard"], 2, 4)
    assert scalars(tmp_path, "loss") == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert scalars(tmp_path, "validation/mae")[0] == (1, 0.25)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "tensorboard"}


@pytest.mark.parametrize("service", ["trackio", "wandb"], indirect=True)
def test_a_resumed_run_goes_on_in_the_same_charts(
    accelerator: Accelerator, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = service.__name__
    log(accelerator, tmp_path, [name], 0, 2)
    log(accelerator, tmp_path, [name, name], 2, 3)
    first, second = service.begun
    assert first == second
    assert first["resume"] == "allow"
    assert first["project"] == "u2net-hub"
    identity = json.loads((tmp_path / "tracking.json").read_text())["id"]
    assert identity in (first["id"] if name == "wandb" else first["name"])
    assert service.rows == [(step, {"loss": step / 4, "validation/mae": 0.25}) for step in (1, 2, 3)]
    assert service.finished == 2
    assert capsys.readouterr().out == ""  # it holds the result of the command alone


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_a_new_run_in_the_same_folder_has_charts_of_its_own(
    accelerator: Accelerator, service: Service, tmp_path: Path
) -> None:
    log(accelerator, tmp_path, ["wandb"], 0, 1)
    log(accelerator, tmp_path, ["wandb"], 0, 1)
    assert service.begun[0]["id"] != service.begun[1]["id"]


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_wandb_stores_settings_but_neither_command_line_nor_machine_nor_code(
    accelerator: Accelerator, service: Service, tmp_path: Path
) -> None:
    log(accelerator, tmp_path, ["wandb"], 0, 1)
    (begun,) = service.begun
    assert begun["config"] == {"lr": 0.5}
    assert begun["dir"] == str(tmp_path)
    assert begun["settings"]["x_disable_meta"]
    assert begun["settings"]["disable_git"]
    assert not begun["settings"]["save_code"]
    assert begun["settings"]["console"] == "off"


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_a_service_that_refuses_is_an_error_with_a_way_out(
    accelerator: Accelerator, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise service.Error("no API key")

    monkeypatch.setattr(service, "init", refuse)
    with pytest.raises(RuntimeError, match=r"cannot start: no API key; .*WANDB_MODE=offline"):
        log(accelerator, tmp_path, ["wandb"], 0, 1)
    assert not accelerator.trackers


def test_a_tracker_that_is_not_installed_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match="--track trackio needs trackio; install it with: pip install trackio"
    ):
        check_trackers(["trackio"])


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown trackers \['mlflow'\], expected some of \['tensorboard'"):
        check_names(["wandb", "mlflow"])
