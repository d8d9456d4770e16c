"""Run a training: resume, loop, validate, save, finish."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic import content_hash, write_file
from ..datasets import IGNORED
from ..evaluation import Training, evaluate
from ..hub import CARD_NAME, folder_contents
from ..inference import SaliencyPipeline
from ..model import U2Net
from .accelerator import keep_freed_memory
from .background_push import BackgroundPusher
from .checkpointing import checkpoint_name, newest_checkpoint, tell_how_to_go_on, write_checkpoint
from .config import TrainConfig
from .data import open_evaluated
from .log import RunLog, history
from .plots import draw_validation, plot_run
from .progress import Progress, phase_at
from .provenance import (
    first_command,
    public_settings,
    resume_command,
    with_absolute_paths,
    without_folders,
)
from .signals import stop_gently
from .trackers import start_trackers
from .trainer import Trainer, TrainingDiverged
from .validation import predict, score

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig, *, resume: bool = False, workers: int | None = 0, command: str | None = None
) -> Path:
    """Train a network and keep the best weights by their score on held-out pairs.

    The run leaves these in `config.out`: train.json (the configuration), split.json (the held-out pairs),
    metrics.csv, loss.png, learning.png, batch.png (photos and masks as the network sees them), validation.png
    (photo, ground truth and map), tensorboard/,
    checkpoints/ (everything that `resume` needs), best/ (the best weights, each laid out as a Hub repo) and
    final/ (the best of them, with results.json and its plots).

    Args:
        config: The data, the network and the recipe. To resume, load it from train.json of the run.
        resume: Whether to continue from the newest checkpoint. On a CPU the result is then, bit for bit, that
            of a run without interruption.
        workers: The number of processes that score the result, as in `evaluate`. 0 scores in this process;
            None uses one per core, and then a script needs `if __name__ == "__main__":`.
        command: The command line that started the run, for its records and card. None records the call of
            `train` that makes such a run. Paths are reduced to their last name.

    Returns:
        The folder of the result, which `U2Net.from_pretrained` loads.

    Raises:
        FileExistsError: `config.out` holds a run and `resume` is false.
        FileNotFoundError: There is nothing to resume, or data is missing.
        ValueError: The configuration does not fit the data, the weights, the machine or the checkpoint.
        TrainingDiverged: The loss became NaN or grew. The last good checkpoint is kept.
        OSError: A checkpoint could not be written. The one before it is intact.
        ImportError: accelerate or timm is missing.
        KeyboardInterrupt: Ctrl-C or SIGTERM stopped the run, after a checkpoint was written.
    """
    return Run(Trainer(config, resume=resume), workers=workers, command=command)()


class Run:
    """Drives a trainer: resume, loop, validate, save, finish.

    Args:
        trainer: The data, the network and the optimizer.
        workers: As for `train`.
        command: As for `train`.
    """

    def __init__(self, trainer: Trainer, *, workers: int | None = 0, command: str | None = None) -> None:
        self.trainer = trainer
        self.config, self.recipe, self.out = trainer.config, trainer.recipe, trainer.out
        self.total_steps, self.is_main = trainer.total_steps, trainer.is_main
        self.accelerator = trainer.accelerator
        record = None if trainer.resumed_from is None else self.out / "train.json"
        self.command = first_command(self.config, command, record=record)
        self.workers = workers
        self.evaluated = open_evaluated(self.config) if self.is_main else []
        self.pusher: BackgroundPusher | None = None

    @property
    def progress(self) -> Progress:
        """The state of the run besides tensors."""
        return self.trainer.progress

    def __call__(self) -> Path:
        trainer = self.trainer
        if trainer.resumed_from is not None:
            self._resume(trainer.resumed_from)
        elif self.is_main:
            self._record_start()
        if self.config.push_to is not None and self.is_main:
            self.pusher = BackgroundPusher(self.config.push_to, branch="training")
        go_on = resume_command(
            self.config.out, self.accelerator.num_processes, cpu=self.accelerator.device.type == "cpu"
        )
        with self._open_log() as log, tell_how_to_go_on(self.out, go_on):
            self._decode()
            with keep_freed_memory(), stop_gently(go_on if self.is_main else None) as self.stopping:
                self._loop(log)
        if self.stopping:
            message = f"stopped at step {self.progress.step} of {self.total_steps}; go on with: {go_on}"
            if self.is_main:
                logger.warning("The run %s", message)
            raise KeyboardInterrupt(message)
        return self._finish()

    def _record_start(self) -> None:
        """Write train.json and split.json."""
        with_absolute_paths(self.config).save(self.out / "train.json", command=self.command)
        split: dict[str, object] = {
            "training_sha256": self.trainer.fingerprint,
            "held_out": [pair.name for pair in self.trainer.held_out.pairs],
        }
        if len(self.trainer.training.sources) > 1:
            split["sets"] = self.trainer.training.contents()
        write_file(self.out / "split.json", (json.dumps(split, indent=1) + "\n").encode())

    def _resume(self, checkpoint: Path) -> None:
        saved = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
        begun_with = saved.pop("training_sha256"), saved.pop("total")
        if begun_with != (self.trainer.fingerprint, self.total_steps):
            raise ValueError(
                f"{' + '.join(self.config.data_sets)} holds other pairs, or the recipe has another length, "
                f"than when {checkpoint} was written; a run resumes on the data and settings it was started "
                "with"
            )
        self.accelerator.load_state(str(checkpoint))
        self.trainer.progress = Progress(**saved)
        logger.info("The run continues from %s.", checkpoint)

    def _open_log(self) -> AbstractContextManager[RunLog | None]:
        """Open the log and start the trackers, in the main process."""
        if not self.is_main:
            return nullcontext()
        settings = public_settings(self.config, self.command)
        start_trackers(self.accelerator, self.config.track, self.out, self.progress.step, settings)
        return RunLog(self.out, self.progress.step, self.accelerator)

    def _decode(self) -> None:
        """Decode the pictures as the memory plan says. The main process alone validates."""
        trainer = self.trainer
        plan = trainer.make_plan()
        if self.is_main:
            plan.log()
        trainer.pictures = trainer.open_pictures()
        if self.is_main:
            size = trainer.network.config.input_size
            self.validation = trainer.decode(trainer.held_out, size, "held-out set")
            if self.config.classes and not (self.validation.masks != IGNORED).any():
                raise ValueError(
                    f"no pixel of the {len(self.validation)} held-out masks has a label, so nothing can be "
                    "scored; hold out more or other pairs (--validation, --seed)"
                )

    def _loop(self, log: RunLog | None) -> None:
        trainer, progress = self.trainer, self.progress
        bar: tqdm[NoReturn] = tqdm(
            total=self.total_steps,
            initial=progress.step,
            unit="step",
            disable=trainer.hide_bars,
            dynamic_ncols=True,
        )
        pending: list[tuple[int, float, Tensor]] = []
        # To read a loss, the CPU has to wait for the GPU, so with a GPU it is read only now and then.
        every = 1 if self.accelerator.device.type == "cpu" else 20
        stream = trainer.stream(progress.step)
        clock = told = time.perf_counter()
        stop = False
        try:
            if self.config.init is not None and progress.step == 0:
                self._validate(log)  # the start is a candidate for the best weights
            trainer.set_train_mode()
            while progress.step < self.total_steps and not stop:
                loss, lr = trainer.step(stream)
                progress.step += 1
                pending.append((progress.step, lr, loss))
                step, done = progress.step, progress.step == self.total_steps
                stop = trainer.any_process(bool(self.stopping))
                due = step % trainer.validate_every == 0 or done
                save = step % trainer.save_every == 0 or due or stop
                if len(pending) >= every or due or save:
                    now = time.perf_counter()
                    rate = len(pending) * self.recipe.batch_size / (now - clock)
                    progress.seconds += now - clock
                    self._record(pending, rate, trainer.data_wait / (now - clock), log, bar)
                    trainer.data_wait = 0.0
                    if bar.disable and self.is_main and now - told > 60:
                        told = now
                        left = (self.total_steps - step) * self.recipe.batch_size / rate / 60
                        logger.info(
                            "step %d of %d, loss %.3f, lr %.2g, %.1f images/s, %.0f min left",
                            *(step, self.total_steps, progress.smooth or 0, lr, rate, left),
                        )
                    pending.clear()
                    clock = now
                if due:
                    self._validate(log)
                    trainer.set_train_mode()
                if save:
                    self._save()
                if due or save:
                    progress.seconds += time.perf_counter() - clock
                    clock = time.perf_counter()
        finally:
            bar.close()
            stream.close()

    def _record(
        self,
        pending: list[tuple[int, float, Tensor]],
        rate: float,
        data_wait: float,
        log: RunLog | None,
        bar: tqdm[NoReturn],
    ) -> None:
        """Log the steps since the last call, and stop the run if the loss diverges."""
        progress = self.progress
        losses = self.accelerator.reduce(
            torch.stack([loss for _, _, loss in pending]), reduction="mean"
        ).tolist()
        for (step, lr, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                self._diverged(f"the loss is {loss} at step {step}")
            progress.follow(loss)
            # trained weights begin with a low loss, which single batches may exceed several times
            usual = progress.first if self.config.init is not None else progress.lowest
            if progress.smooth is not None and usual is not None and progress.smooth > 3 * usual:
                self._diverged(f"the loss, {progress.smooth:.3f} at step {step}, is three times {usual:.3f}")
            if log is not None:
                row = {
                    "seconds": progress.seconds,
                    "epoch": step * self.recipe.batch_size / len(self.trainer.training.samples),
                    "crop": phase_at(self.recipe, step - 1, self.total_steps).crop,
                    "lr": lr,
                    "loss": loss,
                    "images_per_second": rate,
                    "data_wait": data_wait,
                }
                log.add(step, row)
        bar.update(len(pending))
        bar.set_postfix_str(f"loss {progress.smooth or 0:.3f}, lr {pending[-1][1]:.2g}, {rate:.1f} images/s")

    def _diverged(self, what: str) -> None:
        kept = newest_checkpoint(self.out)
        where = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"{what}; {where}. A lower learning rate (--lr), a longer warm-up or --clip-norm 1 may help; "
            "u2net check-data and --overfit-one tell whether the data or the network is at fault"
        )

    def _validate(self, log: RunLog | None) -> None:
        """Score the held-out pairs, and keep the weights if they are among the best."""
        if not self.is_main:
            return
        progress, pictures, classes = self.progress, self.validation, self.config.classes
        network = self.trainer.averaged()
        maps = predict(network, pictures, precision=self.recipe.precision)
        scores = score(maps, pictures, classes=classes, weighted=self.recipe.interpolate is not None)
        logger.info("step %d: %s", progress.step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        if log is not None:
            log.add(progress.step, {"seconds": progress.seconds} | {f"val_{k}": v for k, v in scores.items()})
            plot_run(self.out)
        brightness = np.uint8(255 // (classes - 1) if classes else 1)  # makes class numbers visible
        shown = np.linspace(0, len(pictures) - 1, min(8, len(pictures))).astype(int)
        rows = [
            (pictures.images[i].numpy(), pictures.masks[i].numpy() * brightness, maps[i] * brightness)
            for i in shown
        ]
        draw_validation(self.out / "validation.png", rows)
        self._keep_best(network, scores)

    def _keep_best(self, network: U2Net, scores: dict[str, float]) -> None:
        step, folder = self.progress.step, self.out / "best"
        best = sorted([*self.progress.best, {"step": step, **scores}], key=_rank)[: self.config.keep]
        names = {checkpoint_name(int(entry["step"])) for entry in best}
        if checkpoint_name(step) in names:
            kept = network.save_pretrained(folder / checkpoint_name(step))
            if self.pusher is not None and best[0]["step"] == step:
                told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                self.pusher.push(kept, f"Step {step} of {self.total_steps}: {told}")
        self.progress.best = best
        for old in folder.glob("step-*"):
            if old.name not in names:
                shutil.rmtree(old)

    def _save(self) -> None:
        progress = {
            **vars(self.progress),
            "training_sha256": self.trainer.fingerprint,
            "total": self.total_steps,
        }
        write_checkpoint(self.out, self.progress.step, self.accelerator, progress)

    def _finish(self) -> Path:
        """Copy the best weights to final/, score them, and push them."""
        final = self.out / "final"
        if self.is_main:
            step = int(self.progress.best[0]["step"])
            if step == 0:
                logger.warning(
                    "The run was not better than its start on the held-out pairs: the result is the start."
                )
            best = self.out / "best" / checkpoint_name(step)
            U2Net.from_pretrained(best).save_pretrained(final)
            self._score(final)
            card = folder_contents(final, self.out.name)[CARD_NAME]
            assert isinstance(card, bytes)
            write_file(final / CARD_NAME, card)
            if self.pusher is not None:
                self.pusher.finish(final, f"Train {self.total_steps} steps with u2net-hub")
        self.accelerator.wait_for_everyone()
        return final

    def _score(self, final: Path) -> None:
        """Score the result on the held-out pairs and on `config.evaluate`; write results.json and plots."""
        config, recipe, held_out = self.config, self.recipe, self.trainer.held_out
        device = self.accelerator.device.type
        if not config.validation_data:
            held_out.name = f"{held_out.name} held out"
        results = evaluate(
            SaliencyPipeline(U2Net.from_pretrained(final), device=device),
            [held_out, *self.evaluated],
            workers=self.workers,
            weights_sha256=content_hash(final / "model.safetensors"),
            command=self.command,
        )
        crops = " → ".join(str(phase.crop) for phase in recipe.phases)
        training = Training(
            data=self.trainer.training.sources,
            start=None if config.init is None else without_folders(config.init),
            recipe=f"{config.recipe_name}: {recipe.optimizer}, learning rate {recipe.lr:g}, batches of "
            f"{recipe.batch_size}, {self.total_steps} steps, crops of {crops} px",
            duration=f"{self.progress.seconds / 3600:.1f} hours",
            machine=device,
            command=self.command,
            history=tuple(history(self.out)),
        )
        replace(results, training=training).save(final)


def _rank(entry: dict[str, float]) -> float:
    """The sort key of a validation: lower is better."""
    for best_high in ("miou", "weighted_f"):
        if best_high in entry:
            return -entry[best_high]
    return entry["mae"]
