"""Print scores as text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from ..tables import text_table
from .published import published_scores
from .results import COLUMNS, Results


def score_table(models: Mapping[str, Results]) -> str:
    """Make one block of text for each data set: a row of scores for each model, then those of the papers."""
    blocks = []
    for dataset in dict.fromkeys(name for results in models.values() for name in results.datasets):
        rows = {name: r.datasets[dataset] for name, r in models.items() if dataset in r.datasets}
        known = published_scores(dataset)
        used = {key for row in rows.values() for key in row.scores}
        columns = {key: head for key, head in COLUMNS.items() if key in used}
        n = next(iter(rows.values())).n
        body = [
            [name, *(_cell(key, row.scores.get(key), row.measured) for key in columns)]
            for name, row in (rows | known).items()
        ]
        lines = [f"{dataset}, {n:,} pictures", *text_table(["", *columns.values()], body, width=8)]
        for name, row in rows.items():
            if row.iou is not None:
                each = (f"{label} {_cell('iou', value, True)}" for label, value in row.iou.items())
                lines.append(f"{name}, IoU per class: " + ", ".join(each))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cell(key: str, value: float | None, measured: bool) -> str:
    if value is None:
        return "–"
    if key == "hce":
        return f"{value:.0f}"
    return f"{value:.{4 if measured else 3}f}".removeprefix("0")
