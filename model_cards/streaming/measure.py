"""Measure the memory of training on a large set that is streamed from disk.

    python model_cards/streaming/measure.py --pairs 20000 --distinct 200 --out model_cards/streaming

It makes a folder with so many pairs, hard links to a few distinct ones, and trains a small network on it with
each way of keeping decoded pictures that is asked for. Each run has a process of its own. The record,
streaming.json, holds what the memory plan said, and the resident memory that was measured while training: its
mean over the second and over the last fifth of the steps, and its peak.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_pairs(folder: Path, pairs: int, distinct: int, side: int) -> None:
    """Write distinct pairs, and hard links to them until there are enough.

    Args:
        folder: The folder of the data set.
        pairs: The number of pairs.
        distinct: The number of distinct ones.
        side: Their side in pixels.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(distinct):
        small = rng.integers(0, 255, (side // 16, side // 16, 3), np.uint8)
        disc = (x - rng.integers(side)) ** 2 + (y - rng.integers(side)) ** 2 < (side // 4) ** 2
        photo = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        photo.save(folder / "images" / f"{i:06}.jpg", quality=90)
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / "masks" / f"{i:06}.png")
    for i in range(distinct, pairs):
        for name, suffix in (("images", "jpg"), ("masks", "png")):
            source = folder / name / f"{i % distinct:06}.{suffix}"
            os.link(source, folder / name / f"{i:06}.{suffix}")


def train_steps(data: str, held_out: str, out: str, cache: str, steps: int, side: int, pipe: Any) -> None:
    """Train for some steps, and send what the plan said and what was measured."""
    import psutil
    import torch

    from u2net_hub import TrainConfig, U2Net, U2NetConfig
    from u2net_hub.config import Stage
    from u2net_hub.training.accelerator import keep_freed_memory
    from u2net_hub.training.config import Phase
    from u2net_hub.training.trainer import Trainer

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.manual_seed(0)
    stages = (Stage("stage1", 3, 4, 6), Stage("stage2", 2, 4, 6, dilated=True), Stage("stage1d", 3, 4, 6))
    size = (side, side)
    start = U2Net(U2NetConfig(variant="custom", stages=stages, input_size=size)).save_pretrained(
        Path(out) / "start"
    )
    config = TrainConfig(
        data=data, out=f"{out}/run", validation_data=held_out, init=str(start), recipe="fast", device="cpu",
        cache=cache,  # type: ignore[arg-type]
        overrides={"batch_size": 4, "phases": (Phase(1.0, side, side),), "precision": "float32",
                   "optimizer": "adamw", "lr": 1e-3, "epochs": 1},
    )  # fmt: skip
    trainer = Trainer(config, resume=False)
    process, samples, stop = psutil.Process(), [], threading.Event()
    before = process.memory_info().rss
    plan = trainer.make_plan()
    plan.log()

    def watch() -> None:
        while not stop.wait(0.05):
            samples.append(process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    trainer.pictures = trainer.open_pictures()
    trainer.set_train_mode()
    stream = trainer.stream(0)
    marks, trainer.data_wait = [], 0.0
    with keep_freed_memory():
        for _ in range(steps):
            trainer.step(stream)
            trainer.progress.step += 1
            marks.append(len(samples))
    stream.close()
    stop.set()
    seconds = time.perf_counter() - begin
    fifth = steps // 5
    early, late = samples[marks[fifth] : marks[2 * fifth]], samples[marks[-fifth] :]
    pipe.send(
        {
            "cache": plan.cache,
            "plan": plan.text(),
            "planned_mib": round(plan.memory / 2**20),
            "mib_before": round(before / 2**20),
            "mib_second_fifth": round(float(np.mean(early)) / 2**20),
            "mib_last_fifth": round(float(np.mean(late)) / 2**20),
            "mib_peak": round(max(samples) / 2**20),
            "steps": steps,
            "share_of_time_waiting_for_pictures": round(trainer.data_wait / seconds, 3),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20_000, help="number of pairs")
    parser.add_argument("--distinct", type=int, default=200, help="number of distinct pairs")
    parser.add_argument("--side", type=int, default=1024, help="side of photos, in pixels")
    parser.add_argument("--crop", type=int, default=256, help="side that the network is trained at")
    parser.add_argument("--steps", type=int, default=200, help="steps of each run")
    parser.add_argument("--caches", nargs="+", default=["stream"], help="stream, disk, memory or auto")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record")
    arguments = parser.parse_args()
    context, runs = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        data, held_out = Path(folder) / "data", Path(folder) / "held-out"
        make_pairs(data, arguments.pairs, arguments.distinct, arguments.side)
        make_pairs(held_out, 4, 4, 64)
        for cache in arguments.caches:
            receiver, sender = context.Pipe(duplex=False)
            out = tempfile.mkdtemp(dir=folder)
            settings = (str(data), str(held_out), out, cache, arguments.steps, arguments.crop, sender)
            process = context.Process(target=train_steps, args=settings)
            process.start()
            sender.close()
            runs.append(receiver.recv())
            process.join()
            print(json.dumps(runs[-1], indent=1))
    record = {
        "pairs": arguments.pairs, "distinct": arguments.distinct, "photo_side": arguments.side,
        "crop": arguments.crop, "cores": os.cpu_count(), "cpu": platform.processor() or platform.machine(),
        "runs": runs,
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "streaming.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
