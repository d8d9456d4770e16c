"""The plots of a run and the contact sheet of its validation pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..config import U2NetConfig
from ..evaluation import draw_plots
from ..imaging import Entry, draw_sheet, palette
from .log import read_metrics


def plot_run(folder: Path) -> None:
    """Draw `folder`/loss.png and `folder`/learning.png from its metrics.csv."""
    rows = read_metrics(folder / "metrics.csv")

    def column(name: str) -> tuple[list[int], list[float]]:
        chosen = [row for row in rows if row[name]]
        return [int(row["step"]) for row in chosen], [float(row[name]) for row in chosen]

    def draw(name: str, file: str, columns: Sequence[tuple[str, str]]) -> None:
        drawn = [(column(c), label) for c, label in columns if column(c)[0]]
        if not drawn:
            return
        figure, axes = draw_plots(7, 2.5 * len(drawn), rows=len(drawn))
        for ax, ((steps, values), label) in zip(axes, drawn, strict=True):
            ax.plot(steps, values, linewidth=0.8, marker="." if len(steps) < 50 else None)
            ax.set_ylabel(label)
        axes[0].set_title(name)
        axes[-1].set_xlabel("step")
        figure.savefig(folder / file)

    draw("training loss and learning rate", "loss.png", [("loss", "loss"), ("lr", "learning rate")])
    names = {"mae": "MAE", "max_f": "max F", "weighted_f": "weighted F", "miou": "mean IoU"}
    draw("scores on held-out pairs", "learning.png", [(f"val_{key}", name) for key, name in names.items()])


def draw_validation(
    path: Path, rows: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> None:
    """Write a contact sheet with a row for each sample: photo (H, W, 3), ground truth (H, W), map (H, W)."""
    entries = [Entry([Image.fromarray(array) for array in row], "") for row in rows]
    draw_sheet(entries, columns=1, tile=160, title="photo, ground truth, map").save(path)


def draw_batch(path: Path, x: Tensor, target: Tensor, config: U2NetConfig) -> None:
    """Write a contact sheet of a batch as the network sees it: each photo beside its mask.

    Args:
        path: The file to write.
        x: Normalised photos, float32 (B, 3, H, W).
        target: Masks in [0, 1], (B, 1, H, W), or class numbers, (B, H, W).
        config: The preprocessing.
    """
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.mean, config.std))
    photos = ((x * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    if target.ndim == 4:
        masks = [Image.fromarray((each * 255).round().byte().numpy()) for each in target[:, 0]]
    else:
        masks = [Image.fromarray(each.byte().numpy()).convert("P") for each in target]
        for mask in masks:
            mask.putpalette(palette())
    entries = [Entry([Image.fromarray(photo), mask], "") for photo, mask in zip(photos, masks, strict=True)]
    title = f"a batch at {x.shape[3]} px: photo and mask"
    draw_sheet(entries[:24], columns=4, tile=128, title=title).save(path)
