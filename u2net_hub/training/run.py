"""Run a training: resume, loop, validate, save, finish."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic import content_hash
from ..datasets import SaliencyDataset
from ..evaluation import Training, evaluate
from ..inference import SaliencyPipeline
from ..model import U2Net
from .background_push import BackgroundPusher
from .checkpointing import checkpoint_name, newest_checkpoint, write_checkpoint
from .config import TrainConfig
from .log import RunLog, history
from .plots import draw_validation, plot_run
from .signals import stop_gently
from .trainer import Progress, Trainer, TrainingDiverged, phase_at
from .validation import predict, score

logger = logging.getLogger(__name__)


def train(config: TrainConfig, *, resume: bool = False, workers: int | None = 0) -> Path:
    """Train a network and keep the best weights by their score on held-out pairs.

    Leaves in `config.out`: train.json (the configuration), split.json (which pairs were held out),
    metrics.csv, loss.png, learning.png, validation.png (photo, ground truth, map), tensorboard/,
    checkpoints/ (everything that `resume` needs), best/ (the best weights, each laid out as a Hub repo)
    and final/ (the best of them, with results.json and its plots).

    Args:
        config: data, network, recipe. On resume, as saved in the run's train.json.
        resume: go on from the newest checkpoint. On a CPU the result is, bit for bit, that of a run that was
            never interrupted.
        workers: processes that score the result beside the network, as in `evaluate`; 0 for none, None for
            one per core, which takes a script with `if __name__ == "__main__":`.

    Returns:
        The folder of the result, which `U2Net.from_pretrained` loads.

    Raises:
        FileExistsError: `config.out` holds a run and `resume` is false.
        FileNotFoundError: there is nothing to resume, or data is missing.
        ValueError: the configuration does not fit the data, the weights, the machine or the checkpoint.
        TrainingDiverged: the loss became NaN or grew; the last good checkpoint is kept.
        OSError: a checkpoint could not be written; the one before is intact.
        ImportError: accelerate or timm is missing.
    """
    return Run(Trainer(config, resume=resume), workers=workers)()


class Run:
    """One run of a trainer: resume, loop, validate, save, finish.

    Args:
        trainer: what learns.
        workers: as for `train`.
    """

    def __init__(self, trainer: Trainer, *, workers: int | None = 0) -> None:
        self.trainer = trainer
        self.workers = workers
        self.pusher: BackgroundPusher | None = None

    def __call__(self) -> Path:
        if self.trainer.newest is not None:
            self._resume(self.trainer.newest)
        elif self.trainer.main:
            self.trainer.config.save(self.trainer.out / "train.json")
            held_out = [pair.name for pair in self.trainer.held_out.pairs]
            split = {"training_sha256": self.trainer.fingerprint, "held_out": held_out}
            (self.trainer.out / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
        if self.trainer.config.push_to is not None and self.trainer.main:
            self.pusher = BackgroundPusher(self.trainer.config.push_to, branch="training")
        largest = max(phase.load for phase in self.trainer.recipe.phases)
        self.trainer.source = self.trainer.store(self.trainer.training, (largest, largest), "training set")
        size = self.trainer.network.config.input_size
        self.validation = self.trainer.store(self.trainer.held_out, size, "held-out set")
        with stop_gently() as self.stopping:
            self._loop()
        if self.stopping:
            raise KeyboardInterrupt(
                f"stopped at step {self.trainer.progress.step} of {self.trainer.total}; go on with --resume"
            )
        return self._finish()

    def _loop(self) -> None:
        progress, accelerator = self.trainer.progress, self.trainer.accelerator
        log = RunLog(self.trainer.out, progress.step) if self.trainer.main else None
        bar: tqdm[NoReturn] = tqdm(
            total=self.trainer.total,
            initial=progress.step,
            unit="step",
            disable=self.trainer.silent,
            dynamic_ncols=True,
        )
        pending: list[tuple[int, float, Tensor]] = []
        # reading a loss makes the CPU wait for the GPU, so there it is done now and then
        every = 1 if accelerator.device.type == "cpu" else 20
        stream = self.trainer.stream(progress.step)
        clock = told = time.perf_counter()
        stop = False
        try:
            self.trainer.set_train_mode()
            while progress.step < self.trainer.total and not stop:
                loss, lr = self.trainer.step(stream)
                progress.step += 1
                pending.append((progress.step, lr, loss))
                step, done = progress.step, progress.step == self.trainer.total
                stop = self.trainer.anyone(bool(self.stopping))
                due = step % self.trainer.validate_every == 0 or done
                save = step % self.trainer.save_every == 0 or due or stop
                if len(pending) >= every or due or save:
                    now = time.perf_counter()
                    rate = len(pending) * self.trainer.recipe.batch_size / (now - clock)
                    progress.seconds += now - clock
                    self._record(pending, rate, self.trainer.waited / (now - clock), log, bar)
                    self.trainer.waited = 0.0
                    if bar.disable and self.trainer.main and now - told > 60:
                        told = now
                        left = (self.trainer.total - step) * self.trainer.recipe.batch_size / rate / 60
                        logger.info(
                            "step %d of %d, loss %.3f, lr %.2g, %.1f images/s, %.0f min left",
                            *(step, self.trainer.total, progress.smooth or 0, lr, rate, left),
                        )
                    pending.clear()
                    clock = now
                if due:
                    self._validate(log)
                    self.trainer.set_train_mode()
                if save:
                    self._save()
                if due or save:
                    progress.seconds += time.perf_counter() - clock
                    clock = time.perf_counter()
        finally:
            bar.close()
            stream.close()
            if log is not None:
                log.close()

    def _record(
        self,
        pending: list[tuple[int, float, Tensor]],
        rate: float,
        waited: float,
        log: RunLog | None,
        bar: tqdm[NoReturn],
    ) -> None:
        progress = self.trainer.progress
        losses = self.trainer.accelerator.reduce(
            torch.stack([loss for _, _, loss in pending]), reduction="mean"
        ).tolist()
        for (step, lr, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                self._diverged(f"the loss is {loss} at step {step}")
            progress.smooth = loss if progress.smooth is None else 0.98 * progress.smooth + 0.02 * loss
            progress.lowest = min(progress.lowest, progress.smooth)
            if progress.smooth > 3 * progress.lowest:
                self._diverged(f"the loss, {progress.smooth:.3f} at step {step}, is three times its lowest")
            if log is not None:
                phase = phase_at(self.trainer.recipe, step - 1, self.trainer.total)
                epoch = step * self.trainer.recipe.batch_size / len(self.trainer.training)
                row = {
                    "seconds": progress.seconds,
                    "epoch": epoch,
                    "crop": phase.crop,
                    "lr": lr,
                    "loss": loss,
                }
                row |= {"images_per_second": rate, "data_wait": waited}
                log.add(step, row)
        bar.update(len(pending))
        bar.set_postfix_str(f"loss {progress.smooth:.3f}, lr {pending[-1][1]:.2g}, {rate:.1f} images/s")

    def _diverged(self, what: str) -> None:
        kept = newest_checkpoint(self.trainer.out)
        where = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"{what}; {where}. A lower learning rate (--lr), a longer warm-up or --clip-norm 1 may help; "
            "u2net check-data and --overfit-one tell whether data or network are at fault"
        )

    def _validate(self, log: RunLog | None) -> None:
        if not self.trainer.main:
            return
        maps = predict(self.trainer.averaged, self.validation, precision=self.trainer.recipe.precision)
        scores = score(maps, self.validation, classes=self.trainer.config.classes)
        step = self.trainer.progress.step
        logger.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        if log is not None:
            log.add(
                step, {"seconds": self.trainer.progress.seconds} | {f"val_{k}": v for k, v in scores.items()}
            )
            plot_run(self.trainer.out)
        some = np.linspace(0, len(self.validation) - 1, min(8, len(self.validation))).astype(int)
        stretch = 255 // (self.trainer.config.classes - 1) if self.trainer.config.classes else 1
        pictures = self.validation
        rows = [
            (
                pictures.images[i].numpy(),
                pictures.masks[i].numpy() * np.uint8(stretch),
                maps[i] * np.uint8(stretch),
            )
            for i in some
        ]
        draw_validation(self.trainer.out / "validation.png", rows)

        best = sorted([*self.trainer.progress.best, {"step": step, **scores}], key=_rank)[
            : self.trainer.config.keep
        ]
        if any(entry["step"] == step for entry in best):
            folder = self.trainer.averaged.save_pretrained(self.trainer.out / "best" / checkpoint_name(step))
            if self.pusher is not None and best[0]["step"] == step:
                shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                self.pusher.push(folder, f"Step {step} of {self.trainer.total}: {shown}")
        self.trainer.progress.best = best
        for folder in (self.trainer.out / "best").glob("step-*"):
            if folder.name not in {checkpoint_name(int(entry["step"])) for entry in best}:
                shutil.rmtree(folder)

    def _save(self) -> None:
        progress = {
            **vars(self.trainer.progress),
            "training_sha256": self.trainer.fingerprint,
            "total": self.trainer.total,
        }
        write_checkpoint(self.trainer.out, self.trainer.progress.step, self.trainer.accelerator, progress)

    def _resume(self, checkpoint: Path) -> None:
        saved = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
        if (
            saved.pop("training_sha256") != self.trainer.fingerprint
            or saved.pop("total") != self.trainer.total
        ):
            raise ValueError(
                f"{self.trainer.config.data} holds other pairs, or the recipe has another length, than when "
                f"{checkpoint} was written; a run resumes on the data and settings it was started with"
            )
        self.trainer.accelerator.load_state(str(checkpoint))
        self.trainer.progress = Progress(**saved)
        logger.info("going on from %s", checkpoint)

    def _finish(self) -> Path:
        final = self.trainer.out / "final"
        if self.trainer.main:
            best = self.trainer.out / "best" / checkpoint_name(int(self.trainer.progress.best[0]["step"]))
            U2Net.from_pretrained(best).save_pretrained(final)
            self._score(final)
            if self.pusher is not None:
                self.pusher.finish(final, f"Train {self.trainer.total} steps with u2net-hub")
        self.trainer.accelerator.wait_for_everyone()
        return final

    def _score(self, final: Path) -> None:
        """Score the result on the held-out pairs and on `config.evaluate`: results.json and its plots."""
        config, classes = self.trainer.config, self.trainer.config.classes
        self.trainer.held_out.name = (
            f"{self.trainer.held_out.name} held out"
            if not config.validation_data
            else self.trainer.held_out.name
        )
        sets = [self.trainer.held_out, *[SaliencyDataset(path, classes=classes) for path in config.evaluate]]
        device = self.trainer.accelerator.device.type
        results = evaluate(
            SaliencyPipeline(U2Net.from_pretrained(final), device=device),
            sets,
            workers=self.workers,
            weights_sha256=content_hash(final / "model.safetensors"),
            command=" ".join(["u2net", *sys.argv[1:]]),
        )
        recipe = self.trainer.recipe
        crops = " → ".join(str(phase.crop) for phase in recipe.phases)
        made = Training(
            data=(self.trainer.training.name,),
            start=config.init,
            recipe=f"{config.recipe}: {recipe.optimizer}, learning rate {recipe.lr:g}, batches of "
            f"{recipe.batch_size}, {recipe.epochs:g} epochs, crops of {crops} px",
            duration=f"{self.trainer.progress.seconds / 3600:.1f} hours",
            machine=device,
            command=" ".join(["u2net", *sys.argv[1:]]),
            history=tuple(history(self.trainer.out)),
        )
        replace(results, training=made).save(final)


def _rank(entry: dict[str, float]) -> float:
    return -entry["miou"] if "miou" in entry else entry["mae"]
