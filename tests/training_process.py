"""A process that trains in children, for the tests to kill.

It imports everything once. Each line on its standard input holds settings as JSON. A fork of the process
trains with them; a line of JSON on the standard output then tells its exit status and its standard error.

Settings: config (fields of TrainConfig), resume, command, folder (to work in), kill (where to die, see
`arm`), step (when to die) and plots (false to draw none).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure  # noqa: F401
import timm.optim
import timm.scheduler
import timm.utils  # noqa: F401
import torch
import torch.utils.tensorboard
from accelerate import Accelerator

from u2net_hub import training
from u2net_hub.training import run as run_module, trainer as trainer_module
from u2net_hub.training.config import Phase, TrainConfig


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str, step: int) -> None:
    """Die in a step, after it, in a validation, in a checkpoint or after it; or fill the disk."""
    trainer = trainer_module.Trainer
    save_state, save, take_step = Accelerator.save_state, run_module.Run._save, trainer.step

    if where == "step":

        def die_between_its_parts(self: trainer_module.Trainer, stream: Iterator[object]) -> object:
            if self.progress.step + 1 == step:
                backward = self.accelerator.backward
                self.accelerator.backward = lambda loss: (backward(loss), die())
            return take_step(self, stream)

        trainer.step = die_between_its_parts
    elif where == "epoch":

        def die_after_it(self: trainer_module.Trainer, stream: Iterator[object]) -> object:
            done = take_step(self, stream)
            return die() if self.progress.step + 1 == step else done

        trainer.step = die_after_it
    elif where == "validation":
        run_module.score = die
    elif where == "checkpoint":

        def save_half(self: Accelerator, folder: str) -> None:
            save_state(self, folder)
            if folder.endswith(f"{step:08d}"):
                weights = Path(folder, "model.safetensors")
                weights.write_bytes(weights.read_bytes()[:1000])
                die()

        Accelerator.save_state = save_half
    elif where == "saved":

        def save_and_die(self: run_module.Run) -> None:
            save(self)
            if self.trainer.progress.step == step:
                die()

        run_module.Run._save = save_and_die
    elif where == "full disk":

        def save_without_room(self: Accelerator, folder: str) -> None:
            if folder.endswith(f"{step:08d}"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
            save_state(self, folder)

        Accelerator.save_state = save_without_room
    else:
        raise ValueError(f"no such place: {where}")


def main(settings: dict[str, object]) -> None:
    torch.set_num_threads(1)
    if settings.get("folder"):
        os.chdir(settings["folder"])
    if not settings.get("plots", True):
        run_module.plot_run = lambda folder: None
    if settings.get("kill"):
        arm(settings["kill"], settings["step"])
    if settings.get("resume"):
        config = TrainConfig.load(Path(settings["config"]["out"]) / "train.json")
    else:
        fields = settings["config"]
        fields["overrides"]["phases"] = tuple(Phase(*phase) for phase in fields["overrides"]["phases"])
        fields["freeze"] = tuple(fields.get("freeze", ()))
        config = TrainConfig(**fields)
    training.train(config, resume=bool(settings.get("resume")), command=settings.get("command"))


def in_child(settings: dict[str, object]) -> tuple[int, str]:
    """The exit status, negative for a signal, and the standard error of `main` in a fork of this process."""
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            status = 1
            try:
                main(settings)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read()


if __name__ == "__main__":
    for line in sys.stdin:
        code, text = in_child(json.loads(line))
        print(json.dumps({"returncode": code, "stderr": text}), flush=True)
