"""Training: data -> checkpoints -> validation -> the best weights, laid out as a Hub repo."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..datasets import SaliencyDataset
from ..model import U2Net
from .accelerator import free_memory, make_accelerator
from .batches import Batches, Pictures
from .checkpointing import newest_checkpoint
from .config import Phase, Recipe, TrainConfig
from .loss import deep_supervision
from .network import build_network, criterion_of, freeze

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


class Trainer:
    """What a run learns from, what learns, and one optimizer step; `run.Run` drives it."""

    source: Pictures
    """The decoded training set, at the largest size of the recipe; set before `stream` is asked for."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.config, self.recipe = config, config.settings
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
        self.accelerator = make_accelerator(config)
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

    def store(self, dataset: SaliencyDataset, size: tuple[int, int], name: str) -> Pictures:
        need = len(dataset) * size[0] * size[1] * 4
        where = self.config.cache
        if where == "auto":
            where = "memory" if need < 0.6 * free_memory() else "disk"
        file = None
        if where == "disk":
            file = self.out / "cache" / f"{name}-{self.accelerator.process_index}"
        with tqdm(total=len(dataset), desc=f"reading {name}", unit="pair", disable=self.silent) as bar:
            return Pictures.read(dataset, size, threads=os.cpu_count() or 1, file=file, progress=bar.update)

    @property
    def silent(self) -> bool | None:
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

    def set_train_mode(self) -> None:
        """Training mode, but for what is frozen."""
        self.network.train()
        freeze(self.network, self.config.freeze)

    def anyone(self, asked: bool) -> bool:
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

    @property
    def averaged(self) -> U2Net:
        """The network that is validated and kept: the moving average where there is one."""
        network = self.network if self.ema is None else self.ema.module
        assert isinstance(network, U2Net)
        return network


def phase_at(recipe: Recipe, step: int, total: int) -> Phase:
    """The phase of the optimizer step that comes after `step` of `total`."""
    return next((phase for phase in recipe.phases if step < round(phase.until * total)), recipe.phases[-1])


def open_data(config: TrainConfig) -> SaliencyDataset:
    """The pairs of the run, those to be held out included."""
    return SaliencyDataset(config.data, images=config.images, masks=config.masks, classes=config.classes)
