"""Scores as people give them to a push, completed to what results.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import SupportsFloat

from .. import __version__
from ..config import LIBRARY_NAME
from ..evaluation import COLUMNS, Results


def read_metrics(metrics: Results | Mapping[str, object] | str | Path) -> Results:
    """Read scores: results, the path of results.json or its folder, or a mapping.

    A mapping of data sets to scores is enough, e.g. {"ECSSD": {"mae": 0.04}}, with or without "datasets"
    around it: what is missing is filled in. Scores have their names in results.json or their headings in
    tables, e.g. "max_f" or "maxF".

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: It is none of these.
        ValueError: A score is unknown or out of range.
    """
    if not isinstance(metrics, Results | Mapping | str | Path):
        raise TypeError(
            f"metrics is {metrics!r}, expected Results, the path of a results.json or its folder, or a "
            'mapping such as {"ECSSD": {"mae": 0.04}}'
        )
    if isinstance(metrics, Results):
        return metrics
    if isinstance(metrics, str | Path):
        return Results.load(metrics)
    content = dict(metrics) if "datasets" in metrics else {"datasets": dict(metrics)}
    datasets = content["datasets"]
    if isinstance(datasets, Mapping):
        content["datasets"] = {str(name): _complete(entry) for name, entry in datasets.items()}
    filled = {
        "weights_sha256": None,
        "command": None,
        "versions": {LIBRARY_NAME: __version__},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return Results.from_dict(filled | content)


_NAMES = {label.lower(): name for name, label in COLUMNS.items()}


def _complete(entry: object) -> object:
    if not isinstance(entry, Mapping):
        return entry
    scores = {_NAMES.get(str(key).lower(), key): _plain_number(value) for key, value in entry.items()}
    return {"n": 0, "measured": True, **scores}


def _plain_number(value: object) -> object:
    """Turn a number of NumPy or torch into one of Python."""
    return float(value) if hasattr(value, "item") and isinstance(value, SupportsFloat) else value
