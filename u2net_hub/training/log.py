"""The log of a training run: metrics.csv, and the same values for the trackers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..atomic import write_file
from .trackers import finish_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator


COLUMNS = (
    "step",
    "seconds",  # time spent in the run; pauses between its parts do not count
    *("epoch", "crop", "lr", "loss", "images_per_second"),
    "data_wait",  # fraction of the time spent waiting for batches, 0 to 1
    *("val_mae", "val_max_f", "val_weighted_f", "val_miou"),
)


class RunLog:
    """Writes rows to metrics.csv, and the same values to the trackers of a run.

    Args:
        folder: The folder of the run.
        step: The step that the run continues from. Rows of later steps are removed; for 0, all rows.
        accelerator: What has the trackers; they are closed with the log. None tracks nothing.
    """

    def __init__(self, folder: Path, step: int, accelerator: Accelerator | None = None) -> None:
        self.path = folder / "metrics.csv"
        self.folder = folder
        rows = read_metrics(self.path) if step and self.path.exists() else []
        kept = io.StringIO(newline="")
        writer = csv.DictWriter(kept, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["step"]) <= step)
        write_file(self.path, kept.getvalue().encode())
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._accelerator = accelerator

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row. Floats are written in full, so that two runs can be compared bit by bit."""
        self._writer.writerow({"step": step, **{k: repr(v) for k, v in values.items()}})
        self._file.flush()
        if self._accelerator is not None:
            named = {name.replace("val_", "validation/"): value for name, value in values.items()}
            self._accelerator.log(named, step=step)

    def close(self) -> None:
        """Flush and close the files and the trackers."""
        self._file.close()
        if self._accelerator is not None:
            finish_trackers(self._accelerator)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the complete rows of metrics.csv; the last one is incomplete if the process was killed."""
    with path.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    return [row for row in rows if None not in row.values() and row["step"].isdigit()]


def history(folder: Path) -> list[dict[str, float]]:
    """Read the validations in `folder`/metrics.csv: the scores of each, and its time in the run ("hours")."""
    rows = [row for row in read_metrics(folder / "metrics.csv") if row["val_mae"] or row["val_miou"]]
    names = {"val_mae": "mae", "val_max_f": "max_f", "val_weighted_f": "weighted_f", "val_miou": "mean_iou"}
    return [
        {"hours": round(float(row["seconds"]) / 3600, 4)}
        | {name: round(float(row[column]), 6) for column, name in names.items() if row[column]}
        for row in rows
    ]
