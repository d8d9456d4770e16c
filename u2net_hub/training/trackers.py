"""Experiment trackers, through accelerate: TensorBoard, Trackio and Weights & Biases."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from ..atomic import write_file

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker


TRACKERS: Mapping[str, str] = {
    "tensorboard": "'u2net-hub[train]'",
    "trackio": "trackio",
    "wandb": "'wandb>=0.19'",
}
"""The trackers by name, and what pip installs for each."""

_PROJECT = "u2net-hub"
_ID_FILE = "tracking.json"
# wandb would store the command line, the user's name, the machine and the output of the program
_PRIVATE = {"x_disable_meta": True, "disable_git": True, "save_code": False, "console": "off"}


def check_names(names: Iterable[str]) -> None:
    """Check the names of trackers.

    Raises:
        ValueError: A name is unknown.
    """
    unknown = sorted(set(names) - TRACKERS.keys())
    if unknown:
        raise ValueError(f"unknown trackers {unknown}, expected some of {list(TRACKERS)}")


def check_trackers(names: Iterable[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        ImportError: A package is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"--track {name} needs {name}; install it with: pip install {TRACKERS[name]}")


def start_trackers(
    accelerator: Accelerator, names: Iterable[str], folder: Path, step: int, settings: Mapping[str, object]
) -> None:
    """Start trackers, or continue those of a run that is resumed. Only the main process may call this.

    TensorBoard writes into `folder`/tensorboard. Trackio and wandb get an id, which is kept in
    `folder`/tracking.json, so that a resumed run goes on with the same charts.

    Args:
        accelerator: What logs to the trackers.
        names: Names of `TRACKERS`.
        folder: The folder of the run.
        step: The step that the run continues from; 0 for a new run.
        settings: The settings of the run, which the trackers show.

    Raises:
        RuntimeError: A tracker cannot start.
    """
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    wanted = dict.fromkeys(names)
    project, title = os.environ.get("WANDB_PROJECT") or _PROJECT, folder.absolute().name
    identity = _identity(folder, new=step == 0) if {"trackio", "wandb"} & wanted.keys() else ""
    trackers: list[GeneralTracker] = []
    if "tensorboard" in wanted:
        # hides events of later steps, which a resumed run repeats, and all events of a former run
        trackers.append(TensorBoardTracker("tensorboard", folder, purge_step=step and step + 1))
    shared = {"resume": "allow", "config": dict(settings)}
    if "trackio" in wanted:  # it knows runs by their names
        trackers.append(TrackioTracker(project, name=f"{title}-{identity}", embed=False, **shared))
    if "wandb" in wanted:
        trackers.append(
            WandBTracker(project, name=title, id=identity, dir=str(folder), settings=dict(_PRIVATE), **shared)
        )
    accelerator.log_with = trackers
    try:
        with redirect_stdout(sys.stderr):  # the standard output holds the result alone
            accelerator.init_trackers(project)
    except _errors(wanted) as e:
        accelerator.trackers.clear()
        raise RuntimeError(
            f"the trackers {list(wanted)} cannot start: {e}; log in to the service, or keep the charts on "
            "this machine (WANDB_MODE=offline for wandb, no TRACKIO_SPACE_ID for trackio)"
        ) from e


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the trackers. Other than after `end_training`, the processes can still talk to each other."""
    with redirect_stdout(sys.stderr):
        for tracker in accelerator.trackers:
            if tracker.name == "trackio":  # its own function also spares it a second end at exit
                import trackio

                trackio.finish()
            else:
                tracker.finish()
    accelerator.trackers.clear()


def _identity(folder: Path, *, new: bool) -> str:
    """The id of a run: a new one, or the one that was written when the run began."""
    path = folder / _ID_FILE
    if not new and path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    identity = secrets.token_hex(4)
    write_file(path, (json.dumps({"id": identity}) + "\n").encode())
    return identity


def _errors(names: Iterable[str]) -> tuple[type[Exception], ...]:
    """The errors of trackers that cannot start."""
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    if "wandb" in names:
        import wandb

        kinds += (wandb.Error,)
    return kinds
