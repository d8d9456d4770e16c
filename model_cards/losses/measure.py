"""Measure what each loss and augmentation does: same start, same pairs and steps, scores of unseen pairs.

    python model_cards/losses/measure.py DUTS-TR --start FOLDER
    python model_cards/losses/measure.py --table

The start is the network of model_cards/u2netp-168-from-scratch, which never saw the pairs that
`SaliencyDataset.split` holds out of DUTS-TR; the rows are scored on some of those. Each row is the recipe
"finetune" with the fields that `ROWS` names, without interpolation, so that the whole effect is seen. Rows
that losses.json has already are not measured again, and rows with fields that the recipe does not know are
left out. The whole table takes about 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import u2net_hub
from u2net_hub import SaliencyDataset, TrainConfig, U2Net
from u2net_hub.evaluation.metrics import score_image, summarise
from u2net_hub.training.batches import Pictures
from u2net_hub.training.config import Phase, Recipe
from u2net_hub.training.trainer import Trainer
from u2net_hub.training.validation import predict

STEPS, BATCH, LOAD, CROP, UNSEEN = 64, 8, 160, 144, 200
SCORES = {
    "max_f": "maxF",
    "mae": "MAE",
    "weighted_f": "weighted F",
    "s_measure": "S-measure",
    "relaxed_boundary_f": "boundary F",
}
START = "start"
NO_LOSS = {"bce": 0.0, "iou": 0.0, "l1": 0.0}
ROWS: Mapping[str, Mapping[str, object]] = {
    "IoU + L1 (as in `finetune`)": {},
    "BCE": {**NO_LOSS, "bce": 1.0},
    "BCE + IoU": {**NO_LOSS, "bce": 1.0, "iou": 1.0},
    "structure (F³Net)": {**NO_LOSS, "structure": 1.0},
    "BCE + IoU + SSIM (BASNet)": {**NO_LOSS, "bce": 1.0, "iou": 1.0, "ssim": 1.0},
    "boundary + IoU": {**NO_LOSS, "boundary": 1.0, "iou": 1.0},
    "IoU + L1, scales 0.75, 1, 1.25": {"scales": (0.75, 1.0, 1.25)},
    "IoU + L1, area 0.5 and rotation 10°": {"area": 0.5, "rotation": 10.0},
    "IoU + L1, hue 0.05, blur 1 px, JPEG 50": {"hue": 0.05, "blur": 1.0, "jpeg": 50},
    "IoU + L1, background 0.3": {"background": 0.3},
}


def train(start: str, pairs: Path, changes: Mapping[str, object], folder: str) -> U2Net:
    """Fine-tune the start with a changed recipe."""
    shared = {
        "interpolate": None, "batch_size": BATCH, "phases": (Phase(1.0, LOAD, CROP),),
        "least_steps": STEPS, "most_steps": STEPS,
    }  # fmt: skip
    config = TrainConfig(
        data=str(pairs), out=folder, init=start, recipe="finetune", device="cpu", validation=1,
        overrides={**shared, **changes},
    )  # fmt: skip
    trainer = Trainer(config, resume=False)
    trainer.pictures = trainer.decode(trainer.training, (LOAD, LOAD), "training set")
    trainer.set_train_mode()
    stream = trainer.stream(0)
    for _ in range(STEPS):
        trainer.step(stream)
        trainer.progress.step += 1
    stream.close()
    return trainer.averaged()


def score(network: U2Net, unseen: SaliencyDataset) -> dict[str, Any]:
    """Scores at the size of the ground truth, and the weighted F of each pair."""
    shown, gts = Pictures.read(unseen, network.config.input_size), [sample.gt for sample in unseen]
    scores = []
    for saliency, gt in zip(predict(network, shown, precision="bf16"), gts, strict=True):
        size = (gt.shape[1], gt.shape[0])
        resized = Image.fromarray(saliency).resize(size, Image.Resampling.BILINEAR)
        scores.append(score_image(np.asarray(resized), gt))
    summary, _ = summarise(scores)
    return {name: round(summary[name], 5) for name in SCORES} | {
        "each_weighted_f": [round(image.weighted_f, 4) for image in scores]
    }


def lists(data: str, folder: Path) -> tuple[Path, SaliencyDataset]:
    """A list file of the pairs that every row learns from, and the unseen pairs."""
    rest, held = SaliencyDataset(data).split(300, seed=0)
    rng = random.Random(0)
    chosen = sorted(rng.sample(range(len(rest)), STEPS * BATCH + 1))  # the trainer holds one of them out
    path = folder / "pairs.txt"
    learned = rest.subset(chosen).pairs
    lines = [f"{pair.image.resolve()}\t{pair.mask.resolve()}" for pair in learned if pair.mask]
    path.write_text("\n".join(lines) + "\n")
    return path, held.subset(sorted(rng.sample(range(len(held)), UNSEEN)))


def measure(data: str, start: str, out: Path, only: str) -> None:
    """Measure missing rows with `only` in their name, adding each to the file as it comes."""
    known = {field.name for field in fields(Recipe)}
    table = json.loads(out.read_text()) if out.exists() else {"rows": []}
    done = {row["name"] for row in table["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        pairs, unseen = lists(data, Path(folder))
        for number, (name, changes) in enumerate({START: {}, **ROWS}.items()):
            if only not in name:
                continue
            if name in done or not set(changes) <= known:
                print(f"{name}: {'measured already' if name in done else 'no such fields'}", flush=True)
                continue
            began = time.process_time()
            network = (
                U2Net.from_pretrained(start)
                if name == START
                else train(start, pairs, changes, f"{folder}/{number}")
            )
            row = {"name": name, "changes": changes, **score(network, unseen)}
            row["cpu_seconds"] = round(time.process_time() - began)
            table["rows"].append({**row, "machine": machine()})
            out.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
            print(f"{name}: {', '.join(f'{key} {row[key]}' for key in SCORES)}", flush=True)


def machine() -> dict[str, object]:
    """The processor, and versions of what calculates."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return {
        "processor": names[0].split(": ", 1)[1] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "u2net_hub": u2net_hub.__version__,
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the guide, with the standard error over the unseen pairs of weighted F's change."""
    order = [START, *ROWS]
    start, *_ = rows = sorted(rows, key=lambda row: order.index(row["name"]))
    lines = [
        f"| loss, augmentation | {' | '.join(SCORES.values())} | change of weighted F |",
        f"| --- |{' --- |' * (len(SCORES) + 1)}",
    ]
    for row in rows:
        change = np.array(row["each_weighted_f"]) - np.array(start["each_weighted_f"])
        error = change.std(ddof=1) / len(change) ** 0.5
        told = "" if row is start else f"{change.mean():+.4f} (± {error:.4f})"
        values = " | ".join(f"{row[key]:.4f}".lstrip("0") for key in SCORES)
        lines.append(f"| {row['name']} | {values} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="DUTS-TR")
    parser.add_argument("--start", help="the network of model_cards/u2netp-168-from-scratch")
    parser.add_argument("--only", default="", help="measure only rows with this in their name")
    parser.add_argument("--table", action="store_true", help="print the table of what is measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("losses.json"))
    options = parser.parse_args()
    if options.table:
        print(markdown(json.loads(options.out.read_text())["rows"]))
    elif options.data is None or options.start is None:
        parser.error("give the data and --start, or --table")
    else:
        measure(options.data, options.start, options.out, options.only)


if __name__ == "__main__":
    main()
