"""Training: data -> checkpoints -> validation -> the best weights, laid out as a Hub repo."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .batches import Batches, Pictures
from .building import build_network, criterion_of, freeze
from .checkpoints import checkpoint_name, newest_checkpoint, write_checkpoint
from .data import SaliencyDataset
from .evaluation import evaluate
from .loss import deep_supervision
from .model import U2Net
from .pipeline import SaliencyPipeline
from .process import free_memory, start, stop_gently
from .publishing import BackgroundPusher
from .recipes import Phase, Recipe, TrainConfig
from .record import RunLog, history, plot, sheet
from .remote import content_hash
from .results import Training
from .validation import predict, score

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss became NaN, infinite, or several times what it had been."""


@dataclass
class Progress:
    """What a checkpoint holds beside tensors."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Time spent in training and validation, over all parts of the run."""
    smooth: float | None = None
    """Moving average of the loss."""
    lowest: float = math.inf
    """The lowest that average has been."""
    best: list[dict[str, float]] = field(default_factory=list)
    """The best validations, best first: step and scores."""


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
    return Trainer(config, resume=resume, workers=workers).run()


class Trainer:
    """One run: what it learns from, what learns, and where it stands. `train` drives it."""

    def __init__(self, config: TrainConfig, *, resume: bool, workers: int | None = 0) -> None:
        self.workers = workers
        self.config, self.recipe = config, config.settings
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
        self.accelerator = start(config)
        self.progress = Progress()
        self.waited = 0.0  # seconds spent on getting batches, since someone set it to 0
        self.main = self.accelerator.is_main_process
        newest = newest_checkpoint(self.out)
        if newest is not None and not resume:
            raise FileExistsError(
                f"{self.out} holds a run ({newest.name}); add --resume to go on, or choose another --out"
            )
        if resume and newest is None:
            raise FileNotFoundError(
                f"{self.checkpoints} holds no checkpoint to resume; start without --resume"
            )
        self.newest = newest
        if self.main:
            self.out.mkdir(parents=True, exist_ok=True)
        self._read_data()
        self._build()

    # what it learns from

    def _read_data(self) -> None:
        config = self.config
        whole = open_data(config)
        if config.validation_data is not None:
            training, held_out = whole, SaliencyDataset(config.validation_data, classes=config.classes)
        else:
            training, held_out = whole.split(config.validation, seed=config.seed)
        if len(training) < self.recipe.batch_size:
            raise ValueError(
                f"{config.data} leaves {len(training)} pairs for training, fewer than a batch of "
                f"{self.recipe.batch_size}; use --batch-size, or hold out fewer with --validation"
            )
        self.training, self.held_out = training, held_out
        names = [pair.name for pair in training.pairs]
        self.fingerprint = hashlib.sha256("\n".join(names).encode()).hexdigest()
        updates = self.recipe.epochs * len(training) / self.recipe.batch_size
        self.total = max(1, math.ceil(updates))
        every = max(1, self.total // 20)
        self.validate_every = config.validate_every or every
        self.save_every = config.save_every or self.validate_every

    def _store(self, dataset: SaliencyDataset, size: tuple[int, int], name: str) -> Pictures:
        need = len(dataset) * size[0] * size[1] * 4
        where = self.config.cache
        if where == "auto":
            where = "memory" if need < 0.6 * free_memory() else "disk"
        file = None
        if where == "disk":
            file = self.out / "cache" / f"{name}-{self.accelerator.process_index}"
        with tqdm(total=len(dataset), desc=f"reading {name}", unit="pair", disable=self._silent) as bar:
            return Pictures.read(dataset, size, threads=os.cpu_count() or 1, file=file, progress=bar.update)

    @property
    def _silent(self) -> bool | None:
        return None if self.main else True  # None: silent unless stderr is a terminal

    def _place(self, pictures: Pictures) -> Pictures:
        """On the GPU if they take less than half of what is free there."""
        device = self.accelerator.device
        if device.type == "cuda" and pictures.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            return pictures.to(device)
        return pictures

    # what learns

    def _build(self) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        config, recipe, accelerator = self.config, self.recipe, self.accelerator
        torch.manual_seed(config.seed)
        self.network = build_network(config)
        freeze(self.network, config.freeze)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda" and "bn" not in config.freeze:
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.network.to(accelerator.device)
        if recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.ema = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        optimizer = create_optimizer_v2(
            self.network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.schedule = None
        if recipe.schedule == "cosine":
            warmup = round(recipe.warmup * self.total)
            self.schedule, _ = create_scheduler_v2(
                optimizer,
                "cosine",
                num_epochs=self.total - warmup,
                warmup_epochs=warmup,
                warmup_prefix=True,
                warmup_lr=recipe.lr * 1e-3,
                min_lr=recipe.lr * recipe.final_lr,
                step_on_epochs=False,
                updates_per_epoch=1,
            )
        if config.compile:
            self.network.compile()
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        for extra in (self.ema, self.schedule):
            if extra is not None:
                accelerator.register_for_checkpointing(extra)
        self.criterion = criterion_of(config)

    # the run

    def run(self) -> Path:
        if self.newest is not None:
            self._resume(self.newest)
        elif self.main:
            self.config.save(self.out / "train.json")
            held_out = [pair.name for pair in self.held_out.pairs]
            split = {"training_sha256": self.fingerprint, "held_out": held_out}
            (self.out / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
        self.pusher: BackgroundPusher | None = None
        if self.config.push_to is not None and self.main:
            self.pusher = BackgroundPusher(self.config.push_to, branch="training")
        largest = max(phase.load for phase in self.recipe.phases)
        self.source = self._store(self.training, (largest, largest), "training set")
        size = self.network.config.input_size
        self.validation = self._store(self.held_out, size, "held-out set")
        with stop_gently() as self.stopping:
            self._loop()
        if self.stopping:
            raise KeyboardInterrupt(
                f"stopped at step {self.progress.step} of {self.total}; go on with --resume"
            )
        return self._finish()

    def _loop(self) -> None:
        progress, accelerator = self.progress, self.accelerator
        log = RunLog(self.out, progress.step) if self.main else None
        bar: tqdm[NoReturn] = tqdm(
            total=self.total, initial=progress.step, unit="step", disable=self._silent, dynamic_ncols=True
        )
        pending: list[tuple[int, float, Tensor]] = []
        # reading a loss makes the CPU wait for the GPU, so there it is done now and then
        every = 1 if accelerator.device.type == "cpu" else 20
        stream = self.stream(progress.step)
        clock = told = time.perf_counter()
        stop = False
        try:
            self.learn()
            while progress.step < self.total and not stop:
                loss, lr = self.step(stream)
                progress.step += 1
                pending.append((progress.step, lr, loss))
                step, done = progress.step, progress.step == self.total
                stop = self._anyone(bool(self.stopping))
                due = step % self.validate_every == 0 or done
                save = step % self.save_every == 0 or due or stop
                if len(pending) >= every or due or save:
                    now = time.perf_counter()
                    rate = len(pending) * self.recipe.batch_size / (now - clock)
                    progress.seconds += now - clock
                    self._record(pending, rate, self.waited / (now - clock), log, bar)
                    self.waited = 0.0
                    if bar.disable and self.main and now - told > 60:
                        told = now
                        left = (self.total - step) * self.recipe.batch_size / rate / 60
                        logger.info(
                            "step %d of %d, loss %.3f, lr %.2g, %.1f images/s, %.0f min left",
                            *(step, self.total, progress.smooth or 0, lr, rate, left),
                        )
                    pending.clear()
                    clock = now
                if due:
                    self._validate(log)
                    self.learn()
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

    def stream(self, step: int) -> Generator[tuple[Tensor, Tensor]]:
        """Micro batches from that step on, the next one made while the network works on this one."""
        recipe, accumulate = self.recipe, self.config.accumulate
        if recipe.batch_size % accumulate:
            raise ValueError(
                f"batch_size {recipe.batch_size} does not divide into {accumulate} accumulation steps"
            )
        device = self.accelerator.device
        batches: Batches | None = None
        phase: Phase | None = None
        ahead: Future[tuple[Tensor, Tensor]] | None = None
        with ThreadPoolExecutor(1) as pool:
            for number in range(step * accumulate, self.total * accumulate):
                wanted = phase_at(recipe, number // accumulate, self.total)
                if batches is None or wanted != phase:
                    batches, phase, ahead = self._enter(wanted), wanted, None
                batch = ahead.result() if ahead is not None else batches[number]
                following = number + 1
                same = phase_at(recipe, following // accumulate, self.total) == phase
                # from a GPU-resident set a batch costs nothing; from memory, make it while the GPU is busy
                worth = device.type == "cuda" and batches.pictures.images.device.type == "cpu"
                ahead = pool.submit(batches.__getitem__, following) if worth and same else None
                yield tuple(t.to(device, non_blocking=True) for t in batch)  # type: ignore[misc]

    def _enter(self, phase: Phase) -> Batches:
        if self.main:
            logger.info("crops of %d from %d px from step %d on", phase.crop, phase.load, self.progress.step)
        pictures = self.source.resized((phase.load, phase.load), classes=bool(self.config.classes))
        return self.batches(self._place(pictures), phase)

    def batches(self, pictures: Pictures, phase: Phase) -> Batches:
        """Micro batches of this run, at one resolution."""
        return Batches(
            pictures,
            self.network.config,
            phase,
            batch_size=self.recipe.batch_size // self.config.accumulate,
            seed=self.config.seed,
            flip=self.recipe.flip,
            jitter=self.recipe.jitter,
            classes=bool(self.config.classes),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def step(self, stream: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
        """One optimizer step: its loss, mean over accumulation, and the learning rate."""
        recipe, accelerator = self.recipe, self.accelerator
        if self.schedule is not None:
            self.schedule.step_update(self.progress.step)
        lr: float = self.optimizer.param_groups[0]["lr"]
        losses = []
        for _ in range(self.config.accumulate):
            asked = time.perf_counter()
            x, target = next(stream)
            self.waited += time.perf_counter() - asked
            if recipe.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            with accelerator.accumulate(self.model):
                with accelerator.autocast():
                    outputs = self.model(x)
                loss = deep_supervision(outputs, target, self.criterion, recipe.side_weights)
                accelerator.backward(loss)
                if accelerator.sync_gradients and recipe.clip_norm is not None:
                    accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        self._average_statistics()
        if self.ema is not None:
            self.ema.update(self.network, step=self.progress.step)
        return torch.stack(losses).mean(), lr

    def learn(self) -> None:
        """Training mode, but for what is frozen."""
        self.network.train()
        freeze(self.network, self.config.freeze)

    def _anyone(self, asked: bool) -> bool:
        """Whether any process says so: a signal reaches them at different steps."""
        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _average_statistics(self) -> None:
        """Give every process the mean of all running statistics; gradients were averaged already."""
        if self.accelerator.num_processes == 1:
            return
        buffers = [b for b in self.network.buffers() if b.is_floating_point()]
        flat = self.accelerator.reduce(torch.cat([b.flatten() for b in buffers]), reduction="mean")
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def _record(
        self,
        pending: list[tuple[int, float, Tensor]],
        rate: float,
        waited: float,
        log: RunLog | None,
        bar: tqdm[NoReturn],
    ) -> None:
        progress = self.progress
        losses = self.accelerator.reduce(
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
                phase = phase_at(self.recipe, step - 1, self.total)
                epoch = step * self.recipe.batch_size / len(self.training)
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
        kept = newest_checkpoint(self.out)
        where = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"{what}; {where}. A lower learning rate (--lr), a longer warm-up or --clip-norm 1 may help; "
            "u2net check-data and --overfit-one tell whether data or network are at fault"
        )

    # validation

    @property
    def averaged(self) -> U2Net:
        """The network that is validated and kept: the moving average where there is one."""
        network = self.network if self.ema is None else self.ema.module
        assert isinstance(network, U2Net)
        return network

    def _validate(self, log: RunLog | None) -> None:
        if not self.main:
            return
        maps = predict(self.averaged, self.validation, precision=self.recipe.precision)
        scores = score(maps, self.validation, classes=self.config.classes)
        step = self.progress.step
        logger.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        if log is not None:
            log.add(step, {"seconds": self.progress.seconds} | {f"val_{k}": v for k, v in scores.items()})
            plot(self.out)
        some = np.linspace(0, len(self.validation) - 1, min(8, len(self.validation))).astype(int)
        stretch = 255 // (self.config.classes - 1) if self.config.classes else 1
        pictures = self.validation
        rows = [
            (
                pictures.images[i].numpy(),
                pictures.masks[i].numpy() * np.uint8(stretch),
                maps[i] * np.uint8(stretch),
            )
            for i in some
        ]
        sheet(self.out / "validation.png", rows)

        best = sorted([*self.progress.best, {"step": step, **scores}], key=_rank)[: self.config.keep]
        if any(entry["step"] == step for entry in best):
            folder = self.averaged.save_pretrained(self.out / "best" / checkpoint_name(step))
            if self.pusher is not None and best[0]["step"] == step:
                shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                self.pusher.push(folder, f"Step {step} of {self.total}: {shown}")
        self.progress.best = best
        for folder in (self.out / "best").glob("step-*"):
            if folder.name not in {checkpoint_name(int(entry["step"])) for entry in best}:
                shutil.rmtree(folder)

    # checkpoints

    def _save(self) -> None:
        progress = {**vars(self.progress), "training_sha256": self.fingerprint, "total": self.total}
        write_checkpoint(self.out, self.progress.step, self.accelerator, progress)

    def _resume(self, checkpoint: Path) -> None:
        saved = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
        if saved.pop("training_sha256") != self.fingerprint or saved.pop("total") != self.total:
            raise ValueError(
                f"{self.config.data} holds other pairs, or the recipe has another length, than when "
                f"{checkpoint} was written; a run resumes on the data and settings it was started with"
            )
        self.accelerator.load_state(str(checkpoint))
        self.progress = Progress(**saved)
        logger.info("going on from %s", checkpoint)

    def _finish(self) -> Path:
        final = self.out / "final"
        if self.main:
            best = self.out / "best" / checkpoint_name(int(self.progress.best[0]["step"]))
            U2Net.from_pretrained(best).save_pretrained(final)
            self._score(final)
            if self.pusher is not None:
                self.pusher.finish(final, f"Train {self.total} steps with u2net-hub")
        self.accelerator.wait_for_everyone()
        return final

    def _score(self, final: Path) -> None:
        """Score the result on the held-out pairs and on `config.evaluate`: results.json and its plots."""
        config, classes = self.config, self.config.classes
        self.held_out.name = (
            f"{self.held_out.name} held out" if not config.validation_data else self.held_out.name
        )
        sets = [self.held_out, *[SaliencyDataset(path, classes=classes) for path in config.evaluate]]
        device = self.accelerator.device.type
        results = evaluate(
            SaliencyPipeline(U2Net.from_pretrained(final), device=device),
            sets,
            workers=self.workers,
            weights_sha256=content_hash(final / "model.safetensors"),
            command=" ".join(["u2net", *sys.argv[1:]]),
        )
        recipe = self.recipe
        crops = " → ".join(str(phase.crop) for phase in recipe.phases)
        made = Training(
            data=(self.training.name,),
            start=config.init,
            recipe=f"{config.recipe}: {recipe.optimizer}, learning rate {recipe.lr:g}, batches of "
            f"{recipe.batch_size}, {recipe.epochs:g} epochs, crops of {crops} px",
            duration=f"{self.progress.seconds / 3600:.1f} hours",
            machine=device,
            command=" ".join(["u2net", *sys.argv[1:]]),
            history=tuple(history(self.out)),
        )
        replace(results, training=made).save(final)


def _rank(entry: dict[str, float]) -> float:
    return -entry["miou"] if "miou" in entry else entry["mae"]


def phase_at(recipe: Recipe, step: int, total: int) -> Phase:
    """The phase of the optimizer step that comes after `step` of `total`."""
    return next((phase for phase in recipe.phases if step < round(phase.until * total)), recipe.phases[-1])


def open_data(config: TrainConfig) -> SaliencyDataset:
    """The pairs of the run, those to be held out included."""
    return SaliencyDataset(config.data, images=config.images, masks=config.masks, classes=config.classes)
