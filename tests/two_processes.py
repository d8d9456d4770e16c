"""`accelerate launch` runs this for the tests: three steps of each run, whose tensors each process writes.

Arguments: folder for the answers, and the configurations by their names, as `training_process.py` takes them.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch

from u2net_hub.training.batches import Pictures
from u2net_hub.training.config import Phase, TrainConfig
from u2net_hub.training.trainer import Trainer


class _Keep(logging.Handler):
    """Keeps the messages of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def take_three_steps(fields: dict[str, object], answers: Path, name: str) -> None:
    """Write what was said, losses, gradients and weights to <name>-<number of processes>-<rank>.pt."""
    told, logger = _Keep(), logging.getLogger("u2net_hub")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(told)
    try:
        _take_three_steps(fields, answers, name, told.messages)
    finally:
        logger.removeHandler(told)
        logger.setLevel(level)


def _take_three_steps(fields: dict[str, object], answers: Path, name: str, told: list[str]) -> None:
    fields["overrides"]["phases"] = tuple(Phase(*phase) for phase in fields["overrides"]["phases"])
    trainer = Trainer(TrainConfig(**{**fields, "freeze": tuple(fields["freeze"])}), resume=False)
    trainer.pictures = Pictures.read(trainer.training, (48, 48))
    trainer.set_train_mode()
    stream = trainer.stream(0)
    losses, gradients = [], []
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (
        gradients.append(
            torch.cat([p.grad.flatten() for p in trainer.network.parameters() if p.requires_grad])
        ),
        step(),
    )
    for _ in range(3):
        loss, _ = trainer.step(stream)
        losses.append(trainer.accelerator.reduce(loss, reduction="mean"))
        trainer.progress.step += 1
    stream.close()
    rank = trainer.accelerator.process_index
    patience = 0.0
    if trainer.accelerator.num_processes > 1:
        group = torch.distributed.distributed_c10d._get_default_group()
        patience = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    answer = {
        "told": told,
        "plan": trainer.make_plan().text(),
        "patience": torch.tensor(patience),
        "losses": torch.stack(losses),
        "gradients": torch.stack(gradients),
        **trainer.network.state_dict(),
    }
    torch.save(answer, answers / f"{name}-{trainer.accelerator.num_processes}-{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, fields in json.loads(sys.argv[2]).items():
        take_three_steps(fields, Path(sys.argv[1]), name)
