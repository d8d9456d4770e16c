"""`accelerate launch` runs this for the tests: three steps of each run, whose tensors each process writes.

Arguments: folder for the answers, and the configurations by their names, as `training_process.py` takes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from u2net_hub.training.batches import Pictures
from u2net_hub.training.config import Phase, TrainConfig
from u2net_hub.training.trainer import Trainer


def take_three_steps(fields: dict[str, object], answers: Path, name: str) -> None:
    """Write losses, gradients and weights to <name>-<number of processes>-<rank>.pt."""
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
