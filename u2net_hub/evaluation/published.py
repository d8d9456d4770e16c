"""The scores that papers publish for a data set, for comparison with measured scores."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .results import DatasetScores

_PAPER_COLUMNS = ("max_f", "mae", "weighted_f", "s_measure", "relaxed_boundary_f")
_DIS_COLUMNS = ("max_f", "weighted_f", "mae", "s_measure", "hce")
# arXiv 2005.09007, tables 3 and 4; n is the size of the whole set.
_PAPER: Mapping[str, tuple[int, tuple[float, ...], tuple[float, ...]]] = {
    #              n     U²-Net                          U²-Net†
    "DUT-OMRON": (5168, (0.823, 0.054, 0.757, 0.847, 0.702), (0.813, 0.060, 0.731, 0.837, 0.676)),
    "DUTS-TE":   (5019, (0.873, 0.044, 0.804, 0.861, 0.765), (0.852, 0.054, 0.763, 0.847, 0.723)),
    "HKU-IS":    (4447, (0.935, 0.031, 0.890, 0.916, 0.812), (0.928, 0.037, 0.867, 0.908, 0.794)),
    "ECSSD":     (1000, (0.951, 0.033, 0.910, 0.928, 0.836), (0.943, 0.041, 0.885, 0.918, 0.808)),
    "PASCAL-S":  (850,  (0.859, 0.074, 0.797, 0.844, 0.657), (0.849, 0.086, 0.768, 0.831, 0.627)),
    "SOD":       (300,  (0.861, 0.108, 0.748, 0.786, 0.613), (0.841, 0.124, 0.697, 0.759, 0.559)),
}  # fmt: skip
# U²-Net trained on DIS5K, in the paper of that set (arXiv 2203.03041).
_DIS: Mapping[str, tuple[int, tuple[float, ...]]] = {
    "DIS-VD": (470, (0.748, 0.656, 0.090, 0.781, 1413)),
    "DIS-TE1": (500, (0.694, 0.601, 0.083, 0.760, 224)),
    "DIS-TE2": (500, (0.756, 0.668, 0.085, 0.788, 490)),
    "DIS-TE3": (500, (0.798, 0.707, 0.079, 0.809, 965)),
    "DIS-TE4": (500, (0.795, 0.705, 0.087, 0.807, 3653)),
}


def published_scores(dataset: str) -> dict[str, DatasetScores]:
    """Return the scores that papers give for a data set, by a label that names paper and network.

    Args:
        dataset: The name of the data set, e.g. "ECSSD" or "dut_omron". A longer name such as "ecssd-100"
            means a part of that set. For a data set that is in no paper, the result is empty.
    """
    for name, (n, *scores) in _PAPER.items():
        if _is_of(dataset, name):
            rows = (
                DatasetScores(n, dict(zip(_PAPER_COLUMNS, row, strict=True)), measured=False)
                for row in scores
            )
            labels = (f"paper, {variant} ({name}, {n:,})" for variant in ("U²-Net", "U²-Net†"))
            return dict(zip(labels, rows, strict=True))
    for name, (n, row) in _DIS.items():
        if _is_of(dataset, name):
            dis = DatasetScores(n, dict(zip(_DIS_COLUMNS, row, strict=True)), measured=False)
            return {f"DIS paper, U²-Net ({name}, {n})": dis}
    return {}


def _is_of(dataset: str, known: str) -> bool:
    return re.match(known.replace("-", "[-_ ]?") + "(?![a-z0-9])", dataset, re.IGNORECASE) is not None
