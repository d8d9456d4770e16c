"""Measure the recipe "finetune": scores of unseen pairs before and after fine-tuning on few or many pairs.

    python model_cards/finetune/measure.py folds OWN --start u2netp_author.safetensors --pairs 12 60 120
    python model_cards/finetune/measure.py content DUTS-TR --start u2netp --pairs 2000 --side 168

`folds` takes a set of somebody's own: it is cut into five folds, each in turn is unseen, and the network
learns from the first so many of the other pairs, shuffled. `content` takes a large set: the pairs held out by
`SaliencyDataset.split` are cut at the median of a principal component of their colours on an 8 × 8 grid, one
side is unseen, and the network learns from pairs of the same side that were not held out. If the start was
trained on the same set with the same pairs held out, it has seen the training pairs, but never an unseen one.

Each row of the result holds the scores of the start, of the tuned weights, and of the weights half way
between (Wortsman et al. 2022, arXiv 2109.01903), all at the network's input size and at the size of the
ground truth.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import u2net_hub
from u2net_hub import SaliencyDataset, U2Net
from u2net_hub.checkpoints import is_folded
from u2net_hub.evaluation.metrics import UInt8, score_image, summarise
from u2net_hub.training.batches import Batches, Pictures
from u2net_hub.training.config import Phase
from u2net_hub.training.loss import deep_supervision, soft_iou
from u2net_hub.training.network import freeze
from u2net_hub.training.unfolding import unfold_batch_norms
from u2net_hub.training.validation import predict

FOLDS = 5
SCORES = ("weighted_f", "s_measure", "mae", "max_f", "max_e", "relaxed_boundary_f")


@dataclass(frozen=True)
class Split:
    """Which pairs of a data set are learned from and which are unseen."""

    name: str
    seed: int
    training: list[int]
    unseen: list[int]


@dataclass(frozen=True)
class Settings:
    """The recipe in figures; sizes in pixels."""

    steps: int
    batch_size: int = 8
    load: int = 288
    crop: int = 256
    lr: float = 1e-4
    warmup: float = 0.1
    final_lr: float = 0.05
    jitter: float = 0.1


def steps_for(pairs: int) -> int:
    """Two passes in batches of 8, but at least 16 and at most 120 steps."""
    return min(max(math.ceil(2 * pairs / 8), 16), 120)


def folds(dataset: SaliencyDataset, pairs: int, seeds: int) -> Iterator[Split]:
    """Folds of somebody's own pairs."""
    order = list(range(len(dataset)))
    random.Random(7).shuffle(order)
    for fold in range(seeds):
        unseen = sorted(order[fold::FOLDS])
        rest = [i for i in order if i not in set(unseen)]
        random.Random(1000 + fold).shuffle(rest)
        yield Split(f"fold {fold}", fold, rest[:pairs], unseen)


def content(dataset: SaliencyDataset, pairs: int, seeds: int, held_out: int) -> Iterator[Split]:
    """Sides of the first principal components of a coarse colour layout, each cut at its median."""
    _, held = dataset.split(held_out, seed=0)
    names = {pair.name for pair in held.pairs}
    layout = np.stack([_colour_layout(pair.image) for pair in dataset.pairs])
    layout -= layout.mean(0)
    _, _, components = np.linalg.svd(layout[::5], full_matrices=False)
    held_places = [i for i, pair in enumerate(dataset.pairs) if pair.name in names]
    for seed in range(seeds):
        component, upper = seed // 2, seed % 2 == 0
        axis = components[component] * np.sign(components[component][np.abs(components[component]).argmax()])
        along = layout @ axis
        middle = np.median(along[held_places])
        side = along > middle if upper else along <= middle
        pool = [i for i, pair in enumerate(dataset.pairs) if side[i] and pair.name not in names]
        random.Random(50 + seed).shuffle(pool)
        name = f"component {component + 1}, {'upper' if upper else 'lower'} half"
        yield Split(name, seed, pool[:pairs], [i for i in held_places if side[i]])


def _colour_layout(path: Path) -> npt.NDArray[np.float32]:
    with Image.open(path) as photo:
        grid = np.asarray(photo.convert("RGB").resize((16, 16), Image.Resampling.BOX), np.float32)
    return grid.reshape(8, 2, 8, 2, 3).mean((1, 3)).ravel()


def criterion(logits: Tensor, target: Tensor) -> Tensor:
    """Soft IoU loss + mean absolute error: (B, 1, H, W) each -> scalar."""
    return soft_iou(logits, target) + F.l1_loss(logits.sigmoid(), target)


def tune(network: U2Net, pictures: Pictures, settings: Settings, *, seed: int) -> None:
    """Fine-tune in place, with frozen batch norm; bfloat16 autocast, float32 losses."""
    network.to(memory_format=torch.channels_last).train()
    freeze(network, ("bn",))
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=settings.lr, weight_decay=0.0)
    batches = Batches(
        pictures,
        network.config,
        Phase(1.0, settings.load, settings.crop),
        batch_size=settings.batch_size,
        seed=seed,
        jitter=settings.jitter,
    )
    warmup = max(1, round(settings.warmup * settings.steps))
    for step in range(settings.steps):
        part = (step - warmup) / max(1, settings.steps - warmup)
        cosine = settings.final_lr + (1 - settings.final_lr) * (1 + math.cos(math.pi * part)) / 2
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * ((step + 1) / warmup if step < warmup else cosine)
        x, target = batches[step]
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(x.contiguous(memory_format=torch.channels_last))
        deep_supervision(outputs, target, criterion).backward()
        optimizer.step()
        optimizer.zero_grad()
    network.eval()


def between(start: dict[str, Tensor], tuned: dict[str, Tensor], part: float) -> dict[str, Tensor]:
    """Weights on the line from the start (0) to the tuned ones (1)."""
    return {
        key: value.lerp(tuned[key], part) if value.is_floating_point() else value
        for key, value in start.items()
    }


def score(network: U2Net, pictures: Pictures, gts: list[UInt8]) -> dict[str, Any]:
    """Scores of unseen pairs, and weighted F and MAE of each."""
    scores = []
    for saliency, gt in zip(predict(network, pictures, precision="bf16"), gts, strict=True):
        size = (gt.shape[1], gt.shape[0])
        shown = Image.fromarray(saliency).resize(size, Image.Resampling.BILINEAR)
        scores.append(score_image(np.asarray(shown), gt))
    summary, _ = summarise(scores)
    return {name: round(summary[name], 5) for name in SCORES} | {
        "each_weighted_f": [round(image.weighted_f, 4) for image in scores],
        "each_mae": [round(image.mae, 4) for image in scores],
    }


def measure(dataset: SaliencyDataset, split: Split, source: str, settings: Settings) -> dict[str, Any]:
    """One row of the table."""
    network = U2Net.from_pretrained(source)
    unseen = dataset.subset(split.unseen)
    shown, gts = Pictures.read(unseen, network.config.input_size), [sample.gt for sample in unseen]
    row: dict[str, Any] = {
        "data": dataset.name,
        "start": Path(source).name,
        "split": split.name,
        "seed": split.seed,
        "pairs": len(split.training),
        "unseen": len(split.unseen),
        "settings": asdict(settings),
        "step_0": score(network, shown, gts),
    }
    pictures = Pictures.read(dataset.subset(split.training), (settings.load, settings.load))
    if is_folded(network.state_dict()):
        unfold_batch_norms(network, pictures, Phase(1.0, settings.load, settings.crop), photos=16)
    start = deepcopy(network.state_dict())
    tune(network, pictures, settings, seed=split.seed)
    tuned = deepcopy(network.state_dict())
    row["tuned"] = score(network, shown, gts)
    network.load_state_dict(between(start, tuned, 0.5))
    row["half_way"] = score(network, shown, gts)
    return row


def machine() -> dict[str, str]:
    """The processor, and versions of what calculates."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].split(": ", 1)[1] if names else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "u2net_hub": u2net_hub.__version__,
    }


def main() -> None:
    """Measure, adding each row to the file as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("folds", "content"))
    parser.add_argument("data")
    parser.add_argument("--start", required=True)
    parser.add_argument("--pairs", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="size of crops in pixels")
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("finetune.json"))
    options = parser.parse_args()
    dataset = SaliencyDataset(options.data)
    for pairs in options.pairs:
        splits = (
            folds(dataset, pairs, options.seeds)
            if options.kind == "folds"
            else content(dataset, pairs, options.seeds, options.held_out)
        )
        crop = options.side
        settings = Settings(options.steps or steps_for(pairs), load=crop * 9 // 8 // 8 * 8, crop=crop)
        for split in splits:
            row = measure(dataset, split, options.start, settings)
            table = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
            table["rows"].append({**row, "machine": machine()})
            options.out.write_text(json.dumps(table, indent=1) + "\n")
            print(
                f"{split.name}, {pairs} pairs: weighted F {row['step_0']['weighted_f']:.4f} -> "
                f"{row['tuned']['weighted_f']:.4f}, half way {row['half_way']['weighted_f']:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
