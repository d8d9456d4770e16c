"""What a training run leaves to be read: metrics.csv, TensorBoard, curves, a sheet of validation pictures."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

COLUMNS = (
    "step",
    "seconds",  # since the run began, time between two parts of it left out
    *("epoch", "crop", "lr", "loss", "images_per_second"),
    "data_wait",  # part of the time that went into getting batches, 0 to 1
    *("val_mae", "val_max_f", "val_miou"),
)


class RunLog:
    """Rows of metrics.csv, and the same to TensorBoard; a resumed run goes on behind its last checkpoint.

    Args:
        folder: the run's folder.
        step: optimizer steps behind us; rows of later steps are cut off.
        tensorboard: also write event files into `folder`/tensorboard.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = True) -> None:
        self.path = folder / "metrics.csv"
        self.folder = folder
        rows = (
            [row for row in read_metrics(self.path) if int(row["step"]) <= step] if self.path.exists() else []
        )
        kept = self.path.with_suffix(".csv.tmp")
        with kept.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        kept.replace(self.path)
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._board: SummaryWriter | None = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row; floats in full, so that two runs can be compared bit by bit."""
        self._writer.writerow({"step": step, **{k: repr(v) for k, v in values.items()}})
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name.replace("val_", "validation/"), value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv; a last row that was cut short when the process died is left out."""
    with path.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    return [row for row in rows if None not in row.values() and row["step"].isdigit()]


def history(folder: Path) -> list[dict[str, float]]:
    """The validations of `folder`/metrics.csv, each with "hours" and its scores."""
    rows = [row for row in read_metrics(folder / "metrics.csv") if row["val_mae"] or row["val_miou"]]
    names = {"val_mae": "mae", "val_max_f": "max_f", "val_miou": "mean_iou"}
    return [
        {"hours": round(float(row["seconds"]) / 3600, 4)}
        | {name: round(float(row[column]), 6) for column, name in names.items() if row[column]}
        for row in rows
    ]


def plot(folder: Path) -> None:
    """Draw `folder`/loss.png and `folder`/learning.png from its metrics.csv."""
    from matplotlib.figure import Figure

    rows = read_metrics(folder / "metrics.csv")

    def column(name: str) -> tuple[list[int], list[float]]:
        chosen = [row for row in rows if row[name]]
        return [int(row["step"]) for row in chosen], [float(row[name]) for row in chosen]

    def draw(name: str, file: str, columns: Sequence[tuple[str, str]]) -> None:
        drawn = [(column(c), label) for c, label in columns if column(c)[0]]
        if not drawn:
            return
        figure = Figure(figsize=(7, 2.5 * len(drawn)), layout="constrained")
        axes = np.atleast_1d(figure.subplots(len(drawn), sharex=True))
        for ax, ((steps, values), label) in zip(axes, drawn, strict=True):
            ax.plot(steps, values, linewidth=0.8, marker="." if len(steps) < 50 else None)
            ax.set_ylabel(label)
            ax.grid(alpha=0.3)
        axes[0].set_title(name)
        axes[-1].set_xlabel("step")
        figure.savefig(folder / file, dpi=110)

    draw("training loss and learning rate", "loss.png", [("loss", "loss"), ("lr", "learning rate")])
    scores = [("val_mae", "MAE"), ("val_max_f", "max F"), ("val_miou", "mean IoU")]
    draw("scores on held-out pairs", "learning.png", scores)


def sheet(
    path: Path, rows: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> None:
    """Write a picture with a row per sample: photo (H, W, 3), ground truth (H, W), map (H, W)."""
    side = 160
    picture = Image.new("RGB", (3 * side, side * len(rows)))
    for y, row in enumerate(rows):
        for x, array in enumerate(row):
            picture.paste(Image.fromarray(array).convert("RGB").resize((side, side)), (x * side, y * side))
    picture.save(path)
