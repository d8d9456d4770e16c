"""The data and the network of a training run, and one optimizer step."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints import is_folded
from ..datasets import SaliencyDataset
from ..model import U2Net
from .accelerator import local_processes, make_accelerator, usable_cores
from .batches import Batches, Pictures, Source
from .checkpointing import newest_checkpoint
from .config import Phase, TrainConfig, phases_near
from .data import class_weights, divide, fit_batch
from .finetuning import StartWeights
from .loss import deep_supervision
from .memory import MemoryPlan, plan_run
from .network import (
    build_network,
    check_side_weights,
    criterion_of,
    freeze,
    parts_to_freeze,
    warn_of_other_size,
)
from .plots import draw_batch
from .progress import Progress, number_of_steps, phase_at
from .scales import rescale
from .streaming import StreamedPictures
from .unfolding import PHOTOS, unfold_batch_norms

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite, or grew to several times its lowest value."""


class Trainer:
    """The data, the network and the optimizer of a run. `run.Run` calls its steps.

    Args:
        config: The configuration of the run.
        resume: Whether to continue the run that `config.out` holds.

    Raises:
        FileExistsError: `config.out` holds a run and `resume` is false.
        FileNotFoundError: There is nothing to resume, or data is missing.
        ValueError: The configuration does not fit the data, the weights or the machine.
    """

    pictures: Pictures | StreamedPictures
    """The training set at the largest size of the recipe. Set it before calling `stream`."""
    plan: MemoryPlan | None = None
    """Where decoded pictures are kept. Until `make_plan` sets it, they are kept in memory."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.config, self.recipe = config, config.settings
        self.out = Path(config.out)
        self.accelerator = make_accelerator(config)
        self.is_main = self.accelerator.is_main_process
        self.threads = max(1, usable_cores() // local_processes(self.accelerator))  # that decode
        self.progress = Progress()
        self.data_wait = 0.0  # seconds that steps waited for batches; a caller may reset it
        self.resumed_from = newest_checkpoint(self.out)
        if self.resumed_from is not None and not resume:
            raise FileExistsError(
                f"{self.out} holds a run ({self.resumed_from.name}); add --resume to go on, or choose "
                "another --out"
            )
        if resume and self.resumed_from is None:
            raise FileNotFoundError(
                f"{self.out / 'checkpoints'} holds no checkpoint to resume; start without --resume"
            )
        self._divide_data()
        if self.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
        self._build()

    # data

    def _divide_data(self) -> None:
        config = self.config
        self.training, self.held_out = divide(config)
        processes = self.accelerator.num_processes
        parts = config.accumulate * processes
        batch_size = fit_batch(
            self.recipe.batch_size,
            len(self.training.samples),
            parts=parts,
            live_norm="bn" not in parts_to_freeze(config),
        )
        self.recipe = replace(self.recipe, batch_size=batch_size)
        if batch_size % parts:
            raise ValueError(
                f"batch_size {batch_size} does not divide among {processes} processes with "
                f"{config.accumulate} accumulation steps, expected a multiple"
            )
        if processes > 1 and self.is_main:
            logger.info(
                "Each of the %d processes takes %d of the %d pairs of a batch.",
                *(processes, batch_size // processes, batch_size),
            )
        names = [self.training.pairs[i].name for i in self.training.samples]
        self.fingerprint = hashlib.sha256("\n".join(names).encode()).hexdigest()
        self.total_steps = number_of_steps(self.recipe, len(names), batch_size)
        part = max(1, self.total_steps // 20)
        # interpolated weights are compared with the start alone: few pairs cannot judge more
        self.validate_every = config.validate_every or (self.total_steps if self.recipe.interpolate else part)
        self.save_every = config.save_every or config.validate_every or part

    def make_plan(self, out: Path | None = None) -> MemoryPlan:
        """Count the memory that the run needs, and choose where decoded pictures are kept.

        All processes choose the same. Nothing may be decoded before.

        Args:
            out: The folder for temporary files. By default that of the run.
        """
        self.plan = plan_run(
            self.accelerator,
            self.network,
            self.recipe,
            cache=self.config.cache,
            out=self.out if out is None else out,
            training=self.training,
            held_out=len(self.held_out),
            share=self.recipe.batch_size // self.config.accumulate // self.accelerator.num_processes,
            copies=sum((self.ema is not None, 2 * (self.start is not None))),
            threads=self.threads,
        )
        return self.plan

    def open_pictures(self) -> Pictures | StreamedPictures:
        """Open the training set as planned: decoded, or ready to be decoded."""
        side = max(phase.load for phase in self.recipe.phases)
        if self.plan is not None and self.plan.cache == "stream":
            return StreamedPictures(self.training, (side, side), threads=self.threads)
        return self.decode(self.training, (side, side), "training set")

    def decode(self, dataset: SaliencyDataset, size: tuple[int, int], name: str) -> Pictures:
        """Decode a data set into memory, or, as planned, into temporary files in the folder of the run."""
        with tqdm(total=len(dataset), desc=f"reading {name}", unit="pair", disable=self.hide_bars) as bar:
            return Pictures.read(
                dataset, size, threads=self.threads, folder=self._cache_folder, progress=bar.update
            )

    @property
    def _cache_folder(self) -> Path | None:
        return None if self.plan is None or self.plan.cache == "memory" else self.out

    @property
    def hide_bars(self) -> bool | None:
        """The argument `disable` for tqdm's progress bars.

        It is None in the main process, which shows bars if stderr is a terminal, and True in the others.
        """
        return None if self.is_main else True

    def _on_device(self, pictures: Pictures) -> Pictures:
        """Move pictures to the GPU if they take less than half of its free memory."""
        device = self.accelerator.device
        if device.type == "cuda" and pictures.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            return pictures.to(device)
        return pictures

    # network

    def _build(self) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        config, recipe, accelerator = self.config, self.recipe, self.accelerator
        torch.manual_seed(config.seed)
        self.network = build_network(config)
        check_side_weights(self.network, recipe.side_weights)
        if not recipe.phases:
            self.recipe = recipe = replace(recipe, phases=phases_near(max(self.network.config.input_size)))
        if self.is_main:
            warn_of_other_size(self.network.config.input_size, recipe.phases[-1])
        self.network.to(accelerator.device)
        self._unfold()
        freeze(self.network, parts_to_freeze(config))
        self.live_norm = "bn" not in parts_to_freeze(config)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda" and self.live_norm:
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        if recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.start = StartWeights(self.network) if recipe.interpolate is not None else None
        self.ema = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        optimizer = create_optimizer_v2(
            self.network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.schedule = None
        if recipe.schedule == "cosine":
            warmup = min(round(recipe.warmup * self.total_steps), self.total_steps - 1)
            self.schedule, _ = create_scheduler_v2(
                optimizer,
                "cosine",
                num_epochs=self.total_steps - warmup,
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
        for extra in (self.ema, self.schedule, self.start):
            if extra is not None:
                accelerator.register_for_checkpointing(extra)
        weights = class_weights(self.training, recipe)
        self.criterion = criterion_of(config, None if weights is None else weights.to(accelerator.device))

    def _unfold(self) -> None:
        """Give folded batch norms statistics of the training photos; a resumed run has them already."""
        if self.config.init is None or self.resumed_from is not None:
            return
        if not is_folded(self.network.state_dict()):
            return
        phase = self.recipe.phases[0]
        chosen = np.linspace(0, len(self.training) - 1, min(PHOTOS, len(self.training))).round().astype(int)
        photos = Pictures.read(self.training.subset(sorted(set(chosen.tolist()))), (phase.load, phase.load))
        unfold_batch_norms(self.network, photos, phase)

    def stream(self, step: int) -> Generator[tuple[Tensor, Tensor]]:
        """Yield micro-batches from a step on. With a GPU, a thread makes the next one meanwhile."""
        recipe, accumulate = self.recipe, self.config.accumulate
        device = self.accelerator.device
        batches: Batches | None = None
        phase: Phase | None = None
        ahead: Future[tuple[Tensor, Tensor]] | None = None
        try:
            with ThreadPoolExecutor(1) as pool:
                for number in range(step * accumulate, self.total_steps * accumulate):
                    wanted = phase_at(recipe, number // accumulate, self.total_steps)
                    if batches is None or wanted != phase:
                        if batches is not None:
                            batches.pictures.close()
                        batches = ahead = None  # frees the pictures of the phase before
                        batches, phase = self._enter(wanted), wanted
                    batch = ahead.result() if ahead is not None else batches[number]
                    following = number + 1
                    same = phase_at(recipe, following // accumulate, self.total_steps) == phase
                    # A batch from pictures on the GPU takes little time; others are made ahead.
                    worth = device.type == "cuda" and batches.pictures.device.type == "cpu"
                    ahead = pool.submit(batches.__getitem__, following) if worth and same else None
                    x, target = (t.to(device, non_blocking=True) for t in batch)
                    yield self.rescaled(x, target, number)
        finally:
            if batches is not None:
                batches.pictures.close()

    def _enter(self, phase: Phase) -> Batches:
        if self.is_main:
            logger.info(
                "From step %d on, crops of %d px are cut from pictures of %d px.",
                *(self.progress.step, phase.crop, phase.load),
            )
        size = (phase.load, phase.load)
        pictures: Source
        if isinstance(self.pictures, StreamedPictures):
            pictures = self.pictures.resized(size)
        else:
            smaller = self.pictures.resized(
                size, classes=bool(self.config.classes), threads=self.threads, folder=self._cache_folder
            )
            pictures = self._on_device(smaller)
        made = self.batches(pictures, phase, self.training.samples)
        if self.is_main:
            x, target = made[self.progress.step * self.config.accumulate]
            draw_batch(self.out / "batch.png", x.cpu(), target.cpu(), self.network.config)
        return made

    def batches(self, pictures: Source, phase: Phase, samples: Sequence[int] | None = None) -> Batches:
        """Make the micro-batches of this run at one resolution.

        Args:
            pictures: The pictures at the size that `phase` loads.
            phase: The resolution.
            samples: The indices of the pictures of one epoch. By default each picture comes once.
        """
        return Batches(
            pictures,
            self.network.config,
            phase,
            batch_size=self.recipe.batch_size // self.config.accumulate,
            seed=self.config.seed,
            augmentation=self.recipe,
            samples=samples,
            classes=bool(self.config.classes),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def rescaled(self, x: Tensor, target: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Resize a micro-batch, by its number, if the recipe asks for several scales."""
        scales = self.recipe.scales
        return rescale(x, target, scales, seed=self.config.seed, number=number) if scales else (x, target)

    def step(self, stream: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
        """Do one optimizer step. Return its loss (the mean over accumulation steps) and its learning rate."""
        recipe, accelerator = self.recipe, self.accelerator
        if self.schedule is not None:
            self.schedule.step_update(self.progress.step)
        lr: float = self.optimizer.param_groups[0]["lr"]
        losses = []
        for _ in range(self.config.accumulate):
            asked = time.perf_counter()
            x, target = next(stream)
            self.data_wait += time.perf_counter() - asked
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
        """Put the network into training mode, except its frozen parts."""
        self.network.train()
        freeze(self.network, parts_to_freeze(self.config))

    def any_process(self, asked: bool) -> bool:
        """Tell whether `asked` is true in any process. A signal reaches the processes at different steps."""
        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _average_statistics(self) -> None:
        """Set the running statistics of every process to their mean. Gradients are averaged already."""
        if self.accelerator.num_processes == 1 or not self.live_norm:
            return
        buffers = [b for b in self.network.buffers() if b.is_floating_point()]
        flat = self.accelerator.reduce(torch.cat([b.flatten() for b in buffers]), reduction="mean")
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def averaged(self) -> U2Net:
        """Return the network that is validated and kept.

        It has the moving average of the weights, or weights between the start and the current ones, if the
        recipe asks for one of them. Weights between the two are a new network at each call.
        """
        if self.start is not None and self.recipe.interpolate is not None:
            return self.start.towards(self.network, self.recipe.interpolate)
        network = self.network if self.ema is None else self.ema.module
        assert isinstance(network, U2Net)
        return network
