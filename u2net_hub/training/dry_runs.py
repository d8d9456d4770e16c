"""Checks before a long run: whether the network can memorise one pair, and what the run will cost."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor

from ..checkpoints import is_folded
from ..datasets import IGNORED
from ..model import U2Net
from .accelerator import keep_freed_memory, make_accelerator
from .augmentation import Augmentation
from .batches import Batches, Pictures, Source
from .config import Phase, TrainConfig
from .data import open_data
from .loss import deep_supervision
from .memory import MemoryPlan
from .network import build_network, criterion_of, freeze, parts_to_freeze
from .streaming import StreamedPictures
from .trainer import Trainer
from .unfolding import unfold_batch_norms

# The smallest side for batch norm over one picture: at 32 px, the deepest stages have one value per channel.
_SIDE = 128


@dataclass(frozen=True)
class Estimate:
    """The measurements of `dry_run`."""

    device: str
    """The device that the run would use."""
    parameters: int
    """The number of parameters of the network."""
    trained: int
    """The number of parameters that learn. The others are frozen."""
    pairs: int
    """The number of training pairs, without those held out."""
    steps: int
    """The number of optimizer steps of the run."""
    images_per_second: dict[int, float]
    """The training speed, by the side of the crop in pixels."""
    data_wait: dict[int, float]
    """The fraction of time spent waiting for batches, 0 to 1, by the side of the crop."""
    memory: int
    """The bytes that a process takes on the GPU or else in main memory, measured, with decoded pictures."""
    plan: MemoryPlan
    """Where decoded pictures are kept, and the main memory that the run needs, counted."""
    seconds: float
    """The expected duration of all steps, without validation."""


def dry_run(config: TrainConfig, *, seconds: float = 10.0) -> Estimate:
    """Measure speed and memory on a few steps at each resolution of the recipe. Nothing is written.

    Args:
        config: The configuration, as for `train`. Nothing is written to its `out`.
        seconds: The time to measure at each resolution.

    Raises:
        FileNotFoundError: Data is missing.
        ValueError: The configuration does not fit the data, the weights or the machine.
        ImportError: accelerate or timm is missing.
    """
    rates: dict[int, float] = {}
    waits: dict[int, float] = {}
    with keep_freed_memory(), tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(replace(config, out=folder), resume=False)
        recipe, plan = trainer.recipe, trainer.make_plan(Path(config.out))
        few = trainer.training.subset(range(min(len(trainer.training), recipe.batch_size)))
        device = trainer.accelerator.device
        trainer.set_train_mode()
        for phase in recipe.phases:
            if phase.crop in rates:
                continue
            size = (phase.load, phase.load)
            pictures: Source = (
                StreamedPictures(trainer.training, size, threads=trainer.threads)
                if plan.cache == "stream"
                else Pictures.read(few, size).to(device)
            )
            stream = _repeat(trainer, trainer.batches(pictures, phase))
            trainer.step(stream)[0].item()  # the first step allocates memory and selects kernels
            begin, steps, trainer.data_wait = time.perf_counter(), 0, 0.0
            while not steps or time.perf_counter() - begin < seconds:
                trainer.step(stream)[0].item()
                steps += 1
            spent = time.perf_counter() - begin
            rates[phase.crop] = steps * recipe.batch_size / spent
            waits[phase.crop] = trainer.data_wait / spent
            pictures.close()
        memory = plan.pictures // plan.processes + (
            torch.cuda.max_memory_allocated(device)
            if device.type == "cuda"
            else psutil.Process().memory_info().rss
        )
        parameters = list(trainer.network.parameters())
        images = trainer.total_steps * recipe.batch_size
        begins = [0.0, *[phase.until for phase in recipe.phases[:-1]]]
        spans = [
            (phase.until - begin) * images / rates[phase.crop]
            for begin, phase in zip(begins, recipe.phases, strict=True)
        ]
        return Estimate(
            device=str(device),
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            pairs=len(trainer.training),
            steps=trainer.total_steps,
            images_per_second=rates,
            data_wait=waits,
            memory=memory,
            plan=plan,
            seconds=sum(spans),
        )


def overfit_one(
    config: TrainConfig,
    *,
    index: int = 0,
    goal: float = 0.01,
    steps: int = 400,
    on_step: Callable[[int, float], object] | None = None,
) -> float:
    """Train on a single pair, without augmentation, until the network has memorised it.

    If the network cannot memorise one pair, the data or the training code is broken.

    Args:
        config: The configuration, as for `train`. Its optimizer, learning rate and loss are used. Nothing is
            written.
        index: The number of the pair in the data set.
        goal: The mean absolute error to reach in evaluation mode, in [0, 1].
        steps: The number of steps after which to give up.
        on_step: Called with the step and the error at every tenth step.

    Returns:
        The last error; it is below `goal` if the pair was memorised.

    Raises:
        FileNotFoundError: Data is missing.
        ValueError: The configuration does not fit the data, the weights or the machine.
        ImportError: accelerate or timm is missing.
    """
    from timm.optim import create_optimizer_v2

    recipe, device = config.settings, make_accelerator(config).device
    network = build_network(config).to(device)
    pictures = Pictures.read(open_data(config)[0].subset([index]), (_SIDE, _SIDE)).to(device)
    still = Phase(1.0, _SIDE, _SIDE)
    x, target = Batches(
        pictures,
        network.config,
        still,
        batch_size=1,
        seed=0,
        augmentation=Augmentation(flip=False),
        classes=bool(config.classes),
    )[0]
    if is_folded(network.state_dict()):
        unfold_batch_norms(network, pictures, still)
    optimizer = create_optimizer_v2(
        network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    criterion, error = criterion_of(config), 1.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - (step - 1) / steps)
        network.train()
        freeze(network, parts_to_freeze(config))
        loss = deep_supervision(network(x), target, criterion, recipe.side_weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            error = _error(network, x, target)
            if on_step is not None:
                on_step(step, error)
            if error < goal:
                break
    return error


@torch.inference_mode()
def _error(network: U2Net, x: Tensor, target: Tensor) -> float:
    fused = network.eval()(x)[0]
    if target.ndim == 4:
        return float((fused.sigmoid() - target).abs().mean())
    wrong = (fused.argmax(1) != target)[target != IGNORED]
    return float(wrong.float().sum() / max(wrong.numel(), 1))


def _repeat(trainer: Trainer, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    return (trainer.rescaled(*batches[number], number) for number in itertools.count())
