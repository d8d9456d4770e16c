"""The field's measures of saliency: from pysodmetrics, and the two that it lacks.

Conventions, as in the official code and pysodmetrics: maps are 8 bit and stretched to [0, 1] by min–max (a
constant map stays as it is); a pixel of the ground truth is foreground from ½; β² = 0.3. Where the ground
truth is empty, precision, recall, F and weighted F are 0, S is 1 − the mean of the map, and E is the part of
the picture that is left out. The relaxed boundary F is 1 where neither mask has a boundary, and 0 where only
one has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..datasets import FOREGROUND, IGNORED

if TYPE_CHECKING:
    from types import ModuleType


UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

BETA2 = 0.3
"""β² of every F-measure but the weighted one, whose β is 1 (Margolin et al. 2014)."""


class ImageScores(NamedTuple):
    """What one map is worth against its ground truth; arrays run over the thresholds 0 … 255, (256,)."""

    mae: float
    adaptive_f: float
    weighted_f: float
    s_measure: float
    adaptive_e: float
    relaxed_boundary_f: float
    precision: Float64
    recall: Float64
    f_measure: Float64
    e_measure: Float64
    hce: float | None
    """Human correction effort in clicks (Qin et al. 2022); None where it was not asked for."""

    def row(self) -> dict[str, float]:
        """The single numbers, the best and the mean of the curves among them, for a table."""
        row = {
            "max_f": float(self.f_measure.max()),
            "mean_f": float(self.f_measure.mean()),
            "adaptive_f": self.adaptive_f,
            "mae": self.mae,
            "weighted_f": self.weighted_f,
            "s_measure": self.s_measure,
            "max_e": float(self.e_measure.max()),
            "mean_e": float(self.e_measure.mean()),
            "adaptive_e": self.adaptive_e,
            "relaxed_boundary_f": self.relaxed_boundary_f,
        }
        return row if self.hce is None else {**row, "hce": self.hce}


class Curves(NamedTuple):
    """Means over a data set at the thresholds 0 … 255, each (256,): found is what reaches the threshold."""

    precision: Float64
    recall: Float64
    f_measure: Float64
    """F of the mean precision and the mean recall: its maximum is the paper's maxF."""
    e_measure: Float64


def score_image(saliency: UInt8, gt: UInt8, *, hce: bool = False) -> ImageScores:
    """Score one saliency map.

    Args:
        saliency: 8-bit map (H, W).
        gt: 8-bit ground truth (H, W), foreground from 128.
        hce: Also count the human correction effort, which takes as long as all the others on small pictures
            and seconds on large ones.

    Raises:
        ValueError: the two differ in size, or are not 8 bit and grey.
        ImportError: pysodmetrics is not installed.
    """
    _check_pair(saliency, gt)
    sod = _pysodmetrics()
    stretched, foreground = _stretch(saliency), gt >= FOREGROUND
    precision, recall = _precision_recall(stretched, foreground)
    measures = [
        sod.FmeasureV2({"fm": sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA2)}),
        sod.MAE(),
        sod.WeightedFmeasure(),
        _smeasure()(),
        sod.Emeasure(),
        *([sod.HumanCorrectionEffortMeasure()] if hce else []),
    ]
    results: dict[str, Any] = {}
    for measure in measures:
        measure.step(stretched, foreground, normalize=False)
        results |= measure.get_results()
    return ImageScores(
        mae=float(results["mae"]),
        adaptive_f=float(results["fm"]["adaptive"]),
        weighted_f=float(results["wfm"]),
        s_measure=float(results["sm"]),
        # E divides by one pixel less than there are, as its authors do: a perfect map would exceed 1.
        adaptive_e=min(float(results["em"]["adp"]), 1.0),
        relaxed_boundary_f=relaxed_boundary_f(stretched >= 0.5, foreground),
        precision=precision,
        recall=recall,
        f_measure=results["fm"]["dynamic"][::-1],
        e_measure=np.minimum(results["em"]["curve"][::-1], 1.0),
        hce=float(results["hce"]) if hce else None,
    )


def summarise(scores: Sequence[ImageScores]) -> tuple[dict[str, float], Curves]:
    """Scores of a data set from those of its images: the numbers of results.json, and the curves.

    Raises:
        ValueError: there are no images.
    """
    if not scores:
        raise ValueError("got no images to score, expected at least one")
    precision, recall, e_measure = (
        np.mean([getattr(image, name) for image in scores], axis=0)
        for name in ("precision", "recall", "e_measure")
    )
    curves = Curves(precision, recall, f_measure(precision, recall), e_measure)
    rows = [image.row() for image in scores]
    summary = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    # The best over a data set is one threshold for all its images, not the best of each.
    summary |= {"max_f": float(curves.f_measure.max()), "max_e": float(e_measure.max())}
    return summary, curves


class FastScores:
    """MAE and the paper's maxF of a data set, with numpy alone: for validation during training."""

    def __init__(self) -> None:
        self._n = 0
        self._mae = 0.0
        self._precision = np.zeros(256)
        self._recall = np.zeros(256)

    def add(self, saliency: UInt8, gt: UInt8) -> None:
        """Count one 8-bit map (H, W) against its ground truth (H, W).

        Raises:
            ValueError: the two differ in size, or are not 8 bit and grey.
        """
        _check_pair(saliency, gt)
        stretched, foreground = _stretch(saliency), gt >= FOREGROUND
        precision, recall = _precision_recall(stretched, foreground)
        self._n += 1
        self._mae += float(np.abs(stretched - foreground).mean())
        self._precision += precision
        self._recall += recall

    def result(self) -> dict[str, float]:
        """`max_f` and `mae` of what was added.

        Raises:
            ValueError: nothing was added.
        """
        if not self._n:
            raise ValueError("got no images to score, expected at least one")
        curve = f_measure(self._precision / self._n, self._recall / self._n)
        return {"max_f": float(curve.max()), "mae": self._mae / self._n}


def f_measure(precision: Float64, recall: Float64) -> Float64:
    """(1 + β²) P R / (β² P + R), and 0 where both are 0."""
    below = BETA2 * precision + recall
    return np.asarray((1 + BETA2) * precision * recall / np.where(below == 0, 1, below))


def relaxed_boundary_f(mask: Bool, gt: Bool, *, rho: int = 3) -> float:
    """F-measure of the boundary, where a pixel counts as met if a boundary pixel of the other is near.

    A boundary is what an erosion by one pixel takes off the mask; outside the picture is background.
    Precision is the part of the mask's boundary that lies within `rho` of that of the ground truth, recall
    the part of the latter within `rho` of the former (Ehrig and Euzenat 2005; arXiv 2005.09007, section 4.2).

    Args:
        mask: The map at threshold ½, (H, W).
        gt: Ground truth (H, W).
        rho: How near, as a Euclidean distance in pixels.

    Returns:
        The F-measure (β² = 0.3); 1 where neither has a boundary, 0 where only one has.
    """
    found, wanted = _boundary(mask), _boundary(gt)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = np.count_nonzero(found & _dilate(wanted, rho)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & _dilate(found, rho)) / np.count_nonzero(wanted)
    return float(f_measure(np.float64(precision), np.float64(recall)))


def confusion(labels: UInt8, gt: UInt8, *, classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class (rows: ground truth) that were taken for each class (columns): (classes, classes).

    Pixels whose ground truth is 255 are left out.

    Raises:
        ValueError: the two differ in size, or hold a class that is not there.
    """
    _check_pair(labels, gt)
    counted = gt != IGNORED
    rows, columns = gt[counted].astype(np.int64), labels[counted].astype(np.int64)
    if rows.size and max(rows.max(), columns.max()) >= classes:
        raise ValueError(
            f"got the class {max(rows.max(), columns.max())}, expected 0 to {classes - 1}, or 255 in gt"
        )
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def iou_per_class(confusion: npt.NDArray[np.int64]) -> list[float | None]:
    """Intersection over union of each class over a data set; None for a class that is nowhere in it."""
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return [float(hit / all_) if all_ else None for hit, all_ in zip(hits, union, strict=True)]


def _precision_recall(stretched: Float64, foreground: Bool) -> tuple[Float64, Float64]:
    """Of one image at the thresholds 0 … 255; 0 where nothing is found, or there is nothing to find."""
    levels = np.rint(stretched * 255).astype(np.uint8)
    right, wrong = (
        np.bincount(levels[where], minlength=256)[::-1].cumsum()[::-1] for where in (foreground, ~foreground)
    )
    return right / np.maximum(right + wrong, 1), right / max(right[0], 1)


def _stretch(saliency: UInt8) -> Float64:
    """The official min–max."""
    low, high = int(saliency.min()), int(saliency.max())
    return (saliency - float(low)) / (high - low) if high > low else saliency / 255.0


def _boundary(mask: Bool) -> Bool:
    inside = np.pad(mask, 1)
    eroded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:] & mask
    return mask & ~eroded


def _dilate(mask: Bool, radius: int) -> Bool:
    """Everything within `radius` of the mask: shifted copies, for a small radius faster than distances."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    near = np.zeros_like(mask)
    for y in range(2 * radius + 1):
        for x in range(2 * radius + 1):
            if (y - radius) ** 2 + (x - radius) ** 2 <= radius**2:
                near |= padded[y : y + height, x : x + width]
    return near


def _check_pair(saliency: UInt8, gt: UInt8) -> None:
    for name, array in (("map", saliency), ("ground truth", gt)):
        if array.ndim != 2 or array.dtype != np.uint8 or not array.size:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected 8-bit grey (height, width)")
    if saliency.shape != gt.shape:
        raise ValueError(f"map is {saliency.shape} and ground truth {gt.shape}, expected one (height, width)")


def _pysodmetrics() -> ModuleType:
    try:
        import py_sod_metrics  # type: ignore[import-untyped]
    except ImportError as e:
        raise ImportError("scores need pysodmetrics; install it with: pip install 'u2net-hub[eval]'") from e
    return py_sod_metrics  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _smeasure() -> type:
    class Smeasure(_pysodmetrics().Smeasure):  # type: ignore[misc]
        def ssim(self, pred: Float64, gt: Bool) -> float:
            # An object in the last row or column leaves quadrants without pixels: weight 0, but mean NaN.
            return float(super().ssim(pred, gt)) if pred.size else 0.0

    return Smeasure
