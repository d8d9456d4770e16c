"""Plot curves of precision, recall and F-measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import file_name
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLOTS = (("precision_recall", "recall", "precision"), ("f_threshold", "threshold", "f_measure"))


def draw_plots(
    width: float, height: float, *, rows: int = 1, ratios: Sequence[float] | None = None, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """Make a figure in the one style of the library, with plots below one another.

    Args:
        width: The width of the figure in inches.
        height: The height of the figure in inches.
        rows: The number of plots.
        ratios: The heights of the plots relative to each other.
        share_x: All plots have the same horizontal axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError("plots need matplotlib; install it with: pip install 'u2net-hub[eval]'") from e
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    plots = figure.subplots(rows, squeeze=False, sharex=share_x, height_ratios=ratios)[:, 0]
    for axes in plots:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(plots)


def plot_curves(models: Mapping[str, Results], out: str | Path) -> list[Path]:
    """Plot precision over recall, and the F-measure over the threshold, with a line for each model.

    Args:
        models: Results with curves, by the names that the legend shows.
        out: The folder for `<data set>_precision_recall.png` and `<data set>_f_threshold.png`.

    Returns:
        The files that were written.

    Raises:
        ImportError: matplotlib is not installed.
    """
    draw_plots(1, 1)  # an ImportError comes before anything is written
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for dataset in dict.fromkeys(name for results in models.values() for name in results.datasets):
        rows = {name: results.datasets.get(dataset) for name, results in models.items()}
        lines = {name: row for name, row in rows.items() if row is not None and row.curves}
        for kind, x, y in _PLOTS if lines else ():
            figure, (axes,) = draw_plots(6, 4.5)
            for name, row in lines.items():
                label = f"maxF {row.scores['max_f']:.3f}, MAE {row.scores['mae']:.3f}"
                curves = {"threshold": np.arange(256), **row.curves}
                axes.plot(curves[x], curves[y], label=f"{name}: {label}" if name else label)
            axes.set(title=f"{dataset}, {max(row.n for row in lines.values()):,} pictures")
            axes.set(xlabel=x, ylabel=y if y == "precision" else "F-measure (β² = 0.3)")
            axes.set(xlim=(0, 255 if x == "threshold" else 1.01), ylim=(0, 1.01))
            axes.legend(loc="lower center", fontsize="small")
            path = Path(out) / f"{file_name(dataset)}_{kind}.png"
            figure.savefig(path)
            written.append(path)
    return written
