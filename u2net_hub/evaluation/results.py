"""What results.json holds: scores, how the weights were trained, and speed. curves.npz holds the curves."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic import file_name, write_files
from .records import read_record

Float64 = npt.NDArray[np.float64]

FRACTIONS = (
    *("max_f", "mean_f", "adaptive_f", "mae", "weighted_f", "s_measure"),
    *("max_e", "mean_e", "adaptive_e", "relaxed_boundary_f", "mean_iou"),
)
"""The scores in results.json that lie in [0, 1]. Only `hce`, a number of clicks, does not."""
CURVES = ("precision", "recall", "f_measure", "e_measure")
"""The curves of each data set. curves.npz stores each as `<data set>/<curve>`, (256,)."""


@dataclass(frozen=True)
class DatasetScores:
    """The scores of a network on one data set."""

    n: int
    """The number of pictures; 0 if it is not known, for scores that a person gave."""
    scores: Mapping[str, float]
    """The mean scores, by their names in results.json."""
    iou: Mapping[str, float | None] | None = None
    """The intersection over union of each class, if the network has classes; None for a class without any
    pixel."""
    measured: bool = True
    """False if the scores were copied from a publication."""
    curves: Mapping[str, Float64] = field(default_factory=dict, compare=False)
    """The curves of `CURVES` at the thresholds 0 … 255, each (256,); they are stored in curves.npz."""
    pictures: Sequence[tuple[str, Mapping[str, float]]] = field(default=(), compare=False)
    """The name and the scores of each picture; they are stored in a CSV file."""


@dataclass(frozen=True)
class Training:
    """How a checkpoint was trained, in words for its card."""

    data: tuple[str, ...]
    """The names of the data sets."""
    start: str | None = None
    """The source of the weights that training started from; None if it started from random weights."""
    recipe: str = ""
    duration: str = ""
    machine: str = ""
    command: str = ""
    history: tuple[Mapping[str, float], ...] = ()
    """The scores of each validation during the run, in order: "hours" since the start, and the measures."""


@dataclass(frozen=True)
class Speed:
    """One line of the speed table."""

    engine: str
    """The engine and its precision, e.g. "torch bfloat16"."""
    machine: str
    images_per_second: float
    batch: int = 1


@dataclass(frozen=True)
class Results:
    """The content of results.json."""

    datasets: Mapping[str, DatasetScores]
    weights_sha256: str | None = None
    """The SHA-256 of the file of weights; None for scores of map files or of a network in memory."""
    command: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    """The date and time of the evaluation, in ISO 8601."""
    training: Training | None = None
    """How the weights were trained; only published weights have it."""
    speed: tuple[Speed, ...] = ()
    """The table of speeds; only published weights have it."""

    def to_dict(self) -> dict[str, object]:
        """Return the content of results.json."""
        content: dict[str, object] = {
            "weights_sha256": self.weights_sha256,
            "command": self.command,
            "versions": dict(self.versions),
            "date": self.date,
            "datasets": {name: _entry(dataset) for name, dataset in self.datasets.items()},
        }
        if self.training is not None:
            training = asdict(self.training)
            if not self.training.history:
                del training["history"]
            content["training"] = json.loads(json.dumps(training))  # turns tuples into lists, as in JSON
        if self.speed:
            content["speed"] = [asdict(row) for row in self.speed]
        return content

    @classmethod
    def from_dict(cls, content: object) -> Results:
        """Read the content of results.json, as `to_dict` writes it.

        Raises:
            ValueError: A field is missing, unknown, or out of range.
        """
        expected = sorted(set(cls.__dataclass_fields__) - _OPTIONAL)
        if not isinstance(content, dict) or sorted(set(content) - _OPTIONAL) != expected:
            got = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"results have the fields {got}, expected {expected}")
        for name in ("versions", "datasets"):
            if not isinstance(content[name], dict):
                raise ValueError(f"{name} is {content[name]!r}, expected an object")
        for name, kinds in (("weights_sha256", str | None), ("command", str | None), ("date", str)):
            if not isinstance(content[name], kinds):
                raise ValueError(f"{name} is {content[name]!r}, expected text")
        if content["weights_sha256"] is not None and not re.fullmatch(
            "[0-9a-f]{64}", content["weights_sha256"]
        ):
            raise ValueError(
                f"weights_sha256 is {content['weights_sha256']!r}, expected 64 hexadecimal digits"
            )
        datasets = {name: _read_entry(name, entry) for name, entry in content["datasets"].items()}
        training, speed = content.get("training"), content.get("speed", [])
        if not isinstance(speed, list):
            raise ValueError(f"speed is {speed!r}, expected a list")
        read = {
            "datasets": datasets,
            "training": None if training is None else _read_training(training),
            "speed": tuple(_read_speed(row) for row in speed),
        }
        return cls(**(content | read))

    def save(self, folder: str | Path) -> None:
        """Write three kinds of files into a folder.

        These are results.json, curves.npz and, for each data set, a CSV file with the scores of each picture.
        """
        contents: dict[str, bytes] = {}
        curves: dict[str, Any] = {
            f"{name}/{key}": curve
            for name, dataset in self.datasets.items()
            for key, curve in dataset.curves.items()
        }
        if curves:
            archive = io.BytesIO()
            np.savez_compressed(archive, thresholds=np.arange(256), **curves)
            contents["curves.npz"] = archive.getvalue()
        for name, dataset in self.datasets.items():
            if dataset.pictures:
                rows = io.StringIO(newline="")
                writer = csv.DictWriter(rows, ["name", *dataset.pictures[0][1]])
                writer.writeheader()
                for picture, scores in dataset.pictures:
                    writer.writerow({"name": picture} | {key: f"{v:.6f}" for key, v in scores.items()})
                contents[f"{file_name(name)}.csv"] = rows.getvalue().encode()
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        contents["results.json"] = f"{text}\n".encode()
        write_files(Path(folder), contents)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read results.json and, if there is a curves.npz beside it, the curves.

        Args:
            path: The file, or a folder that holds results.json.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file does not follow this schema; the message names it.
        """
        path = Path(path)
        if path.is_dir():
            path /= "results.json"
        if not path.is_file():
            raise FileNotFoundError(f"no results at {path}, expected a results.json or its folder")
        try:
            results = cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as e:  # invalid JSON and invalid UTF-8 are ValueErrors
            raise ValueError(f"{path} holds no results: {e}") from e
        beside = path.with_name("curves.npz")
        if not beside.is_file():
            return results
        try:
            with np.load(beside, allow_pickle=False) as arrays:
                curves = {
                    name: {key: arrays[f"{name}/{key}"] for key in CURVES if f"{name}/{key}" in arrays}
                    for name in results.datasets
                }
        except (ValueError, OSError, zipfile.BadZipFile) as e:
            raise ValueError(f"{beside} holds no curves: {e}") from e
        datasets = {name: replace(each, curves=curves[name]) for name, each in results.datasets.items()}
        return replace(results, datasets=datasets)


_OPTIONAL = {"training", "speed"}


def _read_training(content: object) -> Training:
    training = read_record(Training, content, "training")
    if not all(map(_is_point, training.history)):
        raise ValueError(
            f"training: history is {training.history!r}, expected objects with hours and scores, all numbers"
        )
    return training


def _read_speed(content: object) -> Speed:
    speed = read_record(Speed, content, "speed")
    for key, value in (("images_per_second", speed.images_per_second), ("batch", speed.batch)):
        if not 0 < value < 1e9:
            raise ValueError(f"speed: {key} is {value!r}, expected a number above 0")
    return speed


def _entry(dataset: DatasetScores) -> dict[str, object]:
    scores = {name: round(value, 6) for name, value in dataset.scores.items()}
    entry: dict[str, object] = {"n": dataset.n, "measured": dataset.measured, **scores}
    if dataset.iou is not None:
        entry["iou"] = {name: None if v is None else round(v, 6) for name, v in dataset.iou.items()}
    return entry


def _read_entry(name: str, entry: object) -> DatasetScores:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is {entry!r}, expected an object with scores")
    scores = dict(entry)
    n, measured, iou = scores.pop("n", None), scores.pop("measured", None), scores.pop("iou", None)
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"{name}: n is {n!r}, expected the number of pictures, or 0 if it is not known")
    if not isinstance(measured, bool):
        raise ValueError(f"{name}: measured is {measured!r}, expected true or false")
    unknown = sorted(set(scores) - {*FRACTIONS, "hce"})
    if unknown:
        raise ValueError(
            f"{name} has unknown scores {unknown}, expected some of {[*FRACTIONS, 'hce', 'iou']}"
        )
    if iou is not None and not isinstance(iou, dict):
        raise ValueError(f"{name}: iou is {iou!r}, expected an object with a number for each class")
    for key, value in [
        *scores.items(),
        *((f"iou of {c}", v) for c, v in (iou or {}).items() if v is not None),
    ]:
        top = float("inf") if key == "hce" else 1
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= top:
            raise ValueError(f"{name}: {key} is {value!r}, expected a number from 0 to {top}")
    return DatasetScores(n, scores, iou, measured)


COLUMNS = {
    "max_f": "maxF",
    "mean_f": "meanF",
    "adaptive_f": "adpF",
    "mae": "MAE",
    "weighted_f": "wF",
    "s_measure": "S",
    "max_e": "maxE",
    "mean_e": "meanE",
    "adaptive_e": "adpE",
    "relaxed_boundary_f": "bF",
    "mean_iou": "mIoU",
    "hce": "HCE",
}
"""The heading of each score in tables."""


def _is_point(content: object) -> bool:
    """Tell whether this is a valid entry of `Training.history`."""
    if not isinstance(content, dict) or len(content) < 2 or "hours" not in content:
        return False
    numbers = [v for v in content.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    known = {"hours", *COLUMNS, "mean_iou"}
    return set(content) <= known and len(numbers) == len(content) and all(0 <= v < 1e6 for v in numbers)
