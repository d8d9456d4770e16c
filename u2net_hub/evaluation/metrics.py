"""The usual measures of saliency maps: most come from pysodmetrics, some are computed here.

The conventions are those of the official code and of pysodmetrics. Maps have 8 bits and are stretched to [0,
1] by min–max; a constant map is not stretched. A pixel of the ground truth is foreground if it is at least ½,
and β² = 0.3. If the ground truth is empty, precision, recall, F and weighted F are 0, S is 1 − the mean of
the map, and E is the share of pixels that the map calls background. The relaxed boundary F is 1 if neither
mask has a boundary, and 0 if only one has.
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
    """The scores of one map against its ground truth. Arrays (256,) have a value per threshold 0 … 255."""

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
    """Human correction effort in clicks (Qin et al. 2022); None if it was not requested."""

    def row(self) -> dict[str, float]:
        """Return the scores as single numbers, for a table; a curve gives its maximum and its mean."""
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
    """Means over a data set, each (256,): at threshold t, the pixels with a value of at least t are found."""

    precision: Float64
    recall: Float64
    f_measure: Float64
    """The F-measure of the mean precision and the mean recall. Its maximum is the paper's maxF."""
    e_measure: Float64


def score_image(saliency: UInt8, gt: UInt8, *, hce: bool = False) -> ImageScores:
    """Score one saliency map.

    Args:
        saliency: The 8-bit map (H, W).
        gt: The 8-bit ground truth (H, W); values from 128 are foreground.
        hce: Whether to count the human correction effort too. On small pictures it takes as long as all the
            other scores together, on large ones several seconds.

    Raises:
        ValueError: The two differ in size, or they are not 8-bit grey.
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
        # E divides by the number of pixels minus one, as its authors do, so a perfect map would exceed 1.
        adaptive_e=min(float(results["em"]["adp"]), 1.0),
        relaxed_boundary_f=relaxed_boundary_f(stretched >= 0.5, foreground),
        precision=precision,
        recall=recall,
        f_measure=results["fm"]["dynamic"][::-1],
        e_measure=np.minimum(results["em"]["curve"][::-1], 1.0),
        hce=float(results["hce"]) if hce else None,
    )


def summarise(scores: Sequence[ImageScores]) -> tuple[dict[str, float], Curves]:
    """Compute a data set's scores from those of its images: the numbers of results.json, and the curves.

    Raises:
        ValueError: There are no images.
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
    # maxF and maxE use one threshold for all images of the data set, not the best threshold of each image.
    summary |= {"max_f": float(curves.f_measure.max()), "max_e": float(e_measure.max())}
    return summary, curves


class FastScores:
    """The MAE and the paper's maxF of a data set, for validation during training; it needs only numpy."""

    def __init__(self) -> None:
        self._n = 0
        self._mae = 0.0
        self._precision = np.zeros(256)
        self._recall = np.zeros(256)

    def add(self, saliency: UInt8, gt: UInt8) -> None:
        """Add one 8-bit map (H, W) and its ground truth (H, W) to the means.

        Raises:
            ValueError: The two differ in size, or they are not 8-bit grey.
        """
        _check_pair(saliency, gt)
        stretched, foreground = _stretch(saliency), gt >= FOREGROUND
        precision, recall = _precision_recall(stretched, foreground)
        self._n += 1
        self._mae += float(np.abs(stretched - foreground).mean())
        self._precision += precision
        self._recall += recall

    def result(self) -> dict[str, float]:
        """Return `max_f` and `mae` of all maps that were added.

        Raises:
            ValueError: No map was added.
        """
        if not self._n:
            raise ValueError("got no images to score, expected at least one")
        curve = f_measure(self._precision / self._n, self._recall / self._n)
        return {"max_f": float(curve.max()), "mae": self._mae / self._n}


def f_measure(precision: Float64, recall: Float64) -> Float64:
    """Compute F = (1 + β²) P R / (β² P + R); F is 0 where precision P and recall R are both 0."""
    below = BETA2 * precision + recall
    return np.asarray((1 + BETA2) * precision * recall / np.where(below == 0, 1, below))


def relaxed_boundary_f(mask: Bool, gt: Bool, *, rho: int = 3) -> float:
    """Compute the F-measure of the boundaries, with a tolerance of `rho` pixels.

    The boundary of a mask is the set of pixels that an erosion by one pixel removes; everything outside the
    picture is background. Precision is the share of the mask's boundary within `rho` of the ground truth's
    boundary, and recall is the share of the ground truth's boundary within `rho` of the mask's (Ehrig and
    Euzenat 2005; arXiv 2005.09007, section 4.2).

    Args:
        mask: The map at threshold ½, (H, W).
        gt: The ground truth (H, W).
        rho: The largest Euclidean distance, in pixels, at which two boundary pixels match.

    Returns:
        The F-measure (β² = 0.3). It is 1 if neither mask has a boundary, and 0 if only one has.
    """
    found, wanted = _boundary(mask), _boundary(gt)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = np.count_nonzero(found & _dilate(wanted, rho)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & _dilate(found, rho)) / np.count_nonzero(wanted)
    return float(f_measure(np.float64(precision), np.float64(recall)))


def confusion(labels: UInt8, gt: UInt8, *, classes: int) -> npt.NDArray[np.int64]:
    """Count the pixels of each true class (row) and predicted class (column): (classes, classes).

    Pixels whose ground truth is 255 are ignored.

    Raises:
        ValueError: The two differ in size, or hold an unknown class.
    """
    _check_pair(labels, gt)
    counted = gt != IGNORED
    rows, columns = gt[counted].astype(np.int64), labels[counted].astype(np.int64)
    if rows.size and max(rows.max(), columns.max()) >= classes:
        raise ValueError(
            f"got the class {max(rows.max(), columns.max())}, expected 0 to {classes - 1} or 255 (ignored)"
        )
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def iou_per_class(confusion: npt.NDArray[np.int64]) -> list[float | None]:
    """Compute the intersection over union of each class; None for a class without any pixel."""
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return [float(hit / all_) if all_ else None for hit, all_ in zip(hits, union, strict=True)]


def _precision_recall(stretched: Float64, foreground: Bool) -> tuple[Float64, Float64]:
    """Compute one image's precision and recall, each (256,), at the thresholds 0 … 255.

    Precision is 0 where no pixel is found, and recall is 0 if the ground truth is empty.
    """
    levels = np.rint(stretched * 255).astype(np.uint8)
    right, wrong = (
        np.bincount(levels[where], minlength=256)[::-1].cumsum()[::-1] for where in (foreground, ~foreground)
    )
    return right / np.maximum(right + wrong, 1), right / max(right[0], 1)


def _stretch(saliency: UInt8) -> Float64:
    """Apply the official min–max; a constant map is only divided by 255."""
    low, high = int(saliency.min()), int(saliency.max())
    return (saliency - float(low)) / (high - low) if high > low else saliency / 255.0


def _boundary(mask: Bool) -> Bool:
    inside = np.pad(mask, 1)
    eroded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:] & mask
    return mask & ~eroded


def _dilate(mask: Bool, radius: int) -> Bool:
    """Mark all pixels within `radius` of the mask.

    It joins shifted copies of the mask, which for a small radius is faster than a distance transform.
    """
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
        raise ValueError(f"map is {saliency.shape} and ground truth {gt.shape}, expected equal sizes")


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
            # If the object's centre is in the last row or column, some quadrants have no pixels. Their weight
            # is 0, but their mean would be NaN.
            return float(super().ssim(pred, gt)) if pred.size else 0.0

    return Smeasure
