"""Before a long run: does the network learn one pair by heart, and what will the run cost?"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor

from ..model import U2Net
from .accelerator import make_accelerator
from .batches import Batches, Pictures
from .config import Phase, TrainConfig
from .loss import deep_supervision
from .network import build_network, criterion_of, freeze
from .trainer import Trainer, open_data

# large enough for batch norm over one picture: at 32 px the deepest stages have one value per channel
_SIDE = 128


@dataclass(frozen=True)
class Estimate:
    """What `dry_run` measured."""

    device: str
    parameters: int
    trained: int
    """Parameters that learn; the rest is frozen."""
    pairs: int
    steps: int
    images_per_second: dict[int, float]
    """By the side of the crop, in pixels."""
    data_wait: dict[int, float]
    """Part of the time that went into getting batches, 0 to 1, likewise."""
    memory: int
    """Bytes in use, of the GPU or else of the process, the stored pictures included."""
    seconds: float
    """Expected for all steps, without validation."""


def dry_run(config: TrainConfig, *, seconds: float = 10.0) -> Estimate:
    """Train a few steps at each resolution of the recipe, and keep nothing.

    Args:
        config: as for `train`; nothing is written to its `out`.
        seconds: time to measure for, at each resolution.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `train`.
    """
    recipe = config.settings
    rates: dict[int, float] = {}
    waits: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(replace(config, out=folder), resume=False)
        few = trainer.training.subset(range(min(len(trainer.training), recipe.batch_size)))
        device = trainer.accelerator.device
        for phase in recipe.phases:
            if phase.crop in rates:
                continue
            stream = _repeat(trainer.batches(Pictures.read(few, (phase.load, phase.load)).to(device), phase))
            trainer.step(stream)[0].item()  # the first one allocates and picks kernels
            begin, steps, trainer.waited = time.perf_counter(), 0, 0.0
            while not steps or time.perf_counter() - begin < seconds:
                trainer.step(stream)[0].item()
                steps += 1
            spent = time.perf_counter() - begin
            rates[phase.crop] = steps * recipe.batch_size / spent
            waits[phase.crop] = trainer.waited / spent
        largest = max(phase.load for phase in recipe.phases)
        stored = len(trainer.training) * largest * largest * 4
        memory = stored + (
            torch.cuda.max_memory_allocated(device)
            if device.type == "cuda"
            else psutil.Process().memory_info().rss
        )
        parameters = list(trainer.network.parameters())
        images = trainer.total * recipe.batch_size
        begins = [0.0, *[phase.until for phase in recipe.phases[:-1]]]
        spans = [
            (phase.until - begin) * images / rates[phase.crop]
            for begin, phase in zip(begins, recipe.phases, strict=True)
        ]
        return Estimate(
            device=str(trainer.accelerator.device),
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            pairs=len(trainer.training),
            steps=trainer.total,
            images_per_second=rates,
            data_wait=waits,
            memory=memory,
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
    """Learn one pair by heart, without augmentation: what can do that can learn, what cannot has a fault.

    Args:
        config: as for `train`; its optimizer, learning rate and loss are used, nothing is written.
        index: which pair of the data set.
        goal: mean absolute error to reach, in evaluation mode, in [0, 1].
        steps: after how many to give up.
        on_step: A function that is called with the step and the error, every tenth step.

    Returns:
        The error reached: below `goal`, or the last one.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `train`.
    """
    from timm.optim import create_optimizer_v2

    recipe, device = config.settings, make_accelerator(config).device
    network = build_network(config).to(device)
    pictures = Pictures.read(open_data(config).subset([index]), (_SIDE, _SIDE)).to(device)
    still = Phase(1.0, _SIDE, _SIDE)
    x, target = Batches(
        pictures, network.config, still, batch_size=1, seed=0, flip=False, classes=bool(config.classes)
    )[0]
    optimizer = create_optimizer_v2(
        network, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    criterion, error = criterion_of(config), 1.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 - (step - 1) / steps)
        network.train()
        freeze(network, config.freeze)
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
    wrong = fused.argmax(1) != target if target.ndim == 3 else (fused.sigmoid() - target).abs()
    return float(wrong.float().mean())


def _repeat(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    return (batches[number] for number in itertools.count())
