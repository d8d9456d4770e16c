"""The measures, against calculations by hand, pysodmetrics and SciPy."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import py_sod_metrics
import pytest
from PIL import Image
from scipy import ndimage

from u2net_hub.evaluation.metrics import (
    FastScores,
    confusion,
    iou_per_class,
    relaxed_boundary_f,
    score_image,
    summarise,
)

OBJECT = np.zeros((40, 50), np.uint8)
OBJECT[10:30, 15:35] = 255
# The measures add a tiny constant to what they divide by.
EXACT = 1e-9


def uint8(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)


@pytest.fixture
def blobs(rng):
    """A function to a map and a ground truth (H, W) that resemble each other."""

    def make(height=60, width=80) -> tuple[np.ndarray, np.ndarray]:
        smooth = ndimage.gaussian_filter(rng.normal(size=(height, width)), 8)
        noisy = smooth + ndimage.gaussian_filter(rng.normal(size=(height, width)), 3) / 20
        stretched = (noisy - noisy.min()) / np.ptp(noisy)
        return np.rint(stretched * 255).astype(np.uint8), np.where(smooth > 0, 255, 0).astype(np.uint8)

    return make


# Two by two, by hand: the map 255, 128, 0, 0 on a ground truth of its first pixel. From threshold 1 to 128
# both are found (P ½, R 1, F .65 / 1.15), from 129 to 255 the right one (F 1), at 0 all four (P ¼, F .325 /
# 1.075).
HALF = uint8([255, 128], [0, 0])
CORNER = uint8([255, 0], [0, 0])


def test_precision_and_recall_of_two_by_two():
    scores = score_image(HALF, CORNER)
    np.testing.assert_allclose(scores.precision, [1 / 4] + [1 / 2] * 128 + [1] * 127)
    np.testing.assert_allclose(scores.recall, 1)


def test_mae_of_two_by_two():
    assert score_image(HALF, CORNER).mae == pytest.approx(128 / 255 / 4)


def test_f_of_two_by_two():
    row = score_image(HALF, CORNER).row()
    assert row["max_f"] == pytest.approx(1)
    # at 128 itself, pysodmetrics may count the pixel as 127
    expected = (0.325 / 1.075 + 128 * 0.65 / 1.15 + 127) / 256
    assert row["mean_f"] == pytest.approx(expected, abs=0.5 / 256)
    # twice the mean is .75, which only the right pixel reaches
    assert row["adaptive_f"] == pytest.approx(1)


def test_relaxed_boundary_f_of_two_by_two():
    assert score_image(HALF, CORNER).relaxed_boundary_f == 1  # every pixel is within 3 pixels of every other


def test_s_of_two_by_two():
    # Object part: 2 x / (x² + 1 + σ). Foreground: one pixel of value 1, 2 / 2, weight ¼. Background: 1 minus
    # (.50196, 0, 0), mean .832680, σ of the sample .289807: 1.665359 / 1.983163 = .839749, weight ¾.
    # Region part: around the centroid (0, 0) the quadrants are single pixels, which have no variance: 1 each.
    expected = (0.25 + 0.75 * 0.839749) / 2 + 1 / 2
    assert score_image(HALF, CORNER).s_measure == pytest.approx(expected, abs=1e-6)


def test_e_of_two_by_two():
    # Adaptive: the map at .75 is the ground truth, so each pixel aligns fully: 4 / (4 - 1), held to 1. At
    # 100: found ½, ground truth ¼ of the pixels. The right pixel: ξ = 2 · ½ · ¾ / (¼ + 9/16) = 12/13; the
    # wrong one: -2 · ½ · ¼ / (¼ + 1/16) = -4/5; the other two: 2 · ½ · ¼ / (¼ + 1/16) = 4/5. Each gives (1
    # + ξ)² / 4.
    scores = score_image(HALF, CORNER)
    assert scores.adaptive_e == 1
    at_100 = ((1 + 12 / 13) ** 2 + (1 - 4 / 5) ** 2 + 2 * (1 + 4 / 5) ** 2) / 4 / 3
    assert scores.e_measure[100] == pytest.approx(at_100)


def test_a_perfect_map_scores_one():
    row = score_image(OBJECT, OBJECT, hce=True).row()
    assert row.pop("mae") == 0
    assert row.pop("hce") == 0
    # the threshold 0 finds everything, so that the means stay below 1
    means = {"mean_f": row.pop("mean_f"), "mean_e": row.pop("mean_e")}
    assert row == pytest.approx(dict.fromkeys(row, 1), abs=EXACT)
    share = 400 / 2000
    assert means["mean_f"] == pytest.approx((255 + 1.3 * share / (0.3 * share + 1)) / 256)
    assert means["mean_e"] < 1


def test_an_inverted_map_scores_zero():
    row = score_image(255 - OBJECT, OBJECT).row()
    assert row["mae"] == 1
    for name in ("adaptive_f", "s_measure", "adaptive_e"):
        assert row[name] == pytest.approx(0, abs=EXACT)
    assert row["weighted_f"] < 0.35
    # the best threshold is 0, at which everything is found
    assert row["max_f"] == pytest.approx(1.3 * 0.2 / (0.3 * 0.2 + 1))


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_map_finds_everything_or_nothing(value):
    scores = score_image(np.full_like(OBJECT, value), OBJECT)
    assert scores.mae == pytest.approx((400 * (255 - value) + 1600 * value) / 2000 / 255)
    np.testing.assert_allclose(scores.precision, [0.2] * (value + 1) + [0] * (255 - value))
    np.testing.assert_allclose(scores.recall, [1] * (value + 1) + [0] * (255 - value))
    assert scores.row()["max_f"] == pytest.approx(1.3 * 0.2 / (0.3 * 0.2 + 1))
    assert all(0 <= value <= 1 for value in scores.row().values())


def test_an_empty_ground_truth_and_an_empty_map_agree_where_a_measure_can_say_so():
    empty = np.zeros_like(OBJECT)
    row = score_image(empty, empty).row()
    expected = {"mae": 0, "s_measure": 1, "max_e": 1, "relaxed_boundary_f": 1}
    expected |= dict.fromkeys(["max_f", "mean_f", "adaptive_f", "weighted_f"], 0)
    assert {name: row[name] for name in expected} == expected


def test_an_object_found_in_an_empty_scene_counts_against_the_map():
    row = score_image(OBJECT, np.zeros_like(OBJECT)).row()
    expected = {"mae": 0.2, "s_measure": 0.8, "relaxed_boundary_f": 0, "max_f": 0, "weighted_f": 0}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_a_ground_truth_of_foreground_alone_is_scored():
    full = np.full_like(OBJECT, 255)
    row = score_image(full, full).row()
    assert row == pytest.approx(row | dict.fromkeys(row, 1) | {"mae": 0}, abs=EXACT)


@pytest.mark.parametrize("where", [np.s_[-1, :], np.s_[:, -1], np.s_[-1, -1]])
def test_an_object_at_the_last_pixels_has_a_score(where):
    gt = np.zeros((12, 16), np.uint8)
    gt[where] = 255
    assert score_image(gt, gt).s_measure == pytest.approx(1)


def test_the_ground_truth_is_foreground_from_one_half():
    scores = score_image(uint8([255, 255, 0, 0]), uint8([255, 128, 127, 0]))
    assert scores.mae == 0


def test_maps_are_stretched_before_they_are_scored(blobs):
    saliency, gt = blobs()
    pale = (saliency // 4 * 2 + 50).astype(np.uint8)
    wide = np.rint((pale - 50.0) / np.ptp(pale) * 255).astype(np.uint8)
    assert score_image(pale, gt).row() == pytest.approx(score_image(wide, gt).row(), abs=2e-3)
    assert score_image(pale, gt).mae != pytest.approx(np.abs(pale / 255 - gt / 255).mean(), abs=0.01)


def test_measures_are_those_of_pysodmetrics(blobs):
    pairs = [blobs(60, 80), blobs(45, 50), blobs(33, 70)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces that Fmeasure will go
        oracle = py_sod_metrics.Fmeasure()
    others = [
        py_sod_metrics.MAE(),
        py_sod_metrics.Smeasure(),
        py_sod_metrics.Emeasure(),
        py_sod_metrics.WeightedFmeasure(),
        py_sod_metrics.HumanCorrectionEffortMeasure(),
    ]
    for measure in (oracle, *others):
        for saliency, gt in pairs:
            measure.step(saliency, gt)
    summary, curves = summarise([score_image(saliency, gt, hce=True) for saliency, gt in pairs])
    mae, s, e, weighted, hce = (measure.get_results() for measure in others)
    f = oracle.get_results()
    found = [
        summary[name] for name in ("mae", "s_measure", "adaptive_e", "max_e", "mean_e", "weighted_f", "hce")
    ]
    expected = [mae["mae"], s["sm"], e["em"]["adp"], e["em"]["curve"].max(), e["em"]["curve"].mean()]
    assert found == pytest.approx([*expected, weighted["wfm"], hce["hce"]], abs=1e-12)
    assert summary["adaptive_f"] == pytest.approx(f["fm"]["adp"], abs=1e-12)
    assert summary["mean_f"] == pytest.approx(f["fm"]["curve"].mean(), abs=1e-12)
    # it rounds levels down, which moves some pixels by one threshold
    np.testing.assert_allclose(curves.precision[::-1], f["pr"]["p"], atol=0.02)
    np.testing.assert_allclose(curves.recall[::-1], f["pr"]["r"], atol=0.02)


def test_max_f_is_of_the_mean_precision_and_recall_at_one_threshold():
    # First map: right alone above 100. Second: half of the object above 50. Means by hand: above 100 P 1, R
    # ¾, F .975 / 1.05; from 51 P ¾, R ¾; up to 50 P ¾, R 1. Each map for itself has a threshold with F = 1.
    scores = [
        (uint8([255, 100, 0]), uint8([255, 0, 0])),
        (uint8([255, 50, 0]), uint8([255, 255, 0])),
    ]
    summary, curves = summarise([score_image(*pair) for pair in scores])
    assert summary["max_f"] == pytest.approx(0.975 / 1.05)
    np.testing.assert_allclose(curves.precision[[30, 80, 200]], [0.75, 0.75, 1])
    np.testing.assert_allclose(curves.recall[[30, 80, 200]], [1, 0.75, 0.75])
    assert [score_image(*pair).row()["max_f"] for pair in scores] == pytest.approx([1, 1])


def test_fast_scores_agree_with_the_full_ones(blobs):
    pairs = [blobs(), blobs(), (np.zeros_like(OBJECT), OBJECT)]
    fast = FastScores()
    for saliency, gt in pairs:
        fast.add(saliency, gt)
    summary, _ = summarise([score_image(saliency, gt) for saliency, gt in pairs])
    assert fast.result() == pytest.approx({name: summary[name] for name in ("max_f", "mae")})


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="got no images"):
        summarise([])
    with pytest.raises(ValueError, match="got no images"):
        FastScores().result()


@pytest.mark.parametrize(
    ("saliency", "gt", "message"),
    [
        (OBJECT, OBJECT[:, 1:], r"map is \(40, 50\) and ground truth \(40, 49\)"),
        (OBJECT / 255, OBJECT, "map is float64"),
        (OBJECT, np.stack([OBJECT] * 3, axis=2), r"ground truth is uint8 \(40, 50, 3\)"),
        (OBJECT[:0], OBJECT[:0], "expected 8-bit grey"),
    ],
)
def test_maps_of_another_kind_are_refused(saliency, gt, message):
    for score in (score_image, FastScores().add):
        with pytest.raises(ValueError, match=message):
            score(saliency, gt)


def test_without_pysodmetrics_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[eval\]'"):
        score_image(OBJECT, OBJECT)


# Relaxed boundary F


def pixel(y: int, x: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[y, x] = True
    return mask


@pytest.mark.parametrize(("y", "x", "expected"), [(5, 8, 1), (5, 9, 0), (7, 7, 1), (8, 6, 0), (8, 5, 1)])
def test_a_boundary_is_met_within_a_distance_of_three_pixels(y, x, expected):
    # √(2² + 2²) is nearer than 3, √(3² + 1²) is not
    assert relaxed_boundary_f(pixel(y, x), pixel(5, 5)) == expected


def test_precision_and_recall_of_a_boundary_by_hand():
    wanted = pixel(5, 5) | pixel(5, 15)
    # one of one found, one of two wanted: P 1, R ½
    assert relaxed_boundary_f(pixel(5, 6), wanted) == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))
    assert relaxed_boundary_f(wanted, pixel(5, 6)) == pytest.approx(1.3 * 0.5 / (0.15 + 1))


def test_a_boundary_is_one_pixel_wide_and_runs_along_the_edge_of_the_picture():
    # Full against a frame of one pixel: both have the same boundary, though the masks differ inside.
    full, frame = np.ones((20, 20), bool), np.ones((20, 20), bool)
    frame[1:-1, 1:-1] = False
    assert relaxed_boundary_f(full, frame) == 1
    # From the frame to the pixel in the middle it is 9 pixels.
    assert relaxed_boundary_f(full, pixel(10, 10)) == 0


def test_boundaries_that_are_not_there():
    nothing = np.zeros((20, 20), bool)
    assert relaxed_boundary_f(nothing, nothing) == 1
    assert relaxed_boundary_f(pixel(5, 5), nothing) == 0
    assert relaxed_boundary_f(nothing, pixel(5, 5)) == 0


@pytest.mark.parametrize("rho", [0, 1, 3, 5])
def test_relaxed_boundary_f_is_that_of_distance_transforms(blobs, rho):
    saliency, gt = blobs()
    masks = [saliency >= 128, gt >= 128]
    found, wanted = (mask ^ ndimage.binary_erosion(mask) for mask in masks)
    precision = (ndimage.distance_transform_edt(~wanted)[found] <= rho).mean()
    recall = (ndimage.distance_transform_edt(~found)[wanted] <= rho).mean()
    expected = 1.3 * precision * recall / (0.3 * precision + recall)
    assert 0 < expected < 1 or rho > 3
    assert relaxed_boundary_f(*masks, rho=rho) == pytest.approx(expected)


# Classes


def test_iou_per_class_by_hand():
    # 0: one pixel of one. 1: one right, one missed. 2: one right, one too many. 3: nowhere. The last pixel is
    # ignored.
    found = confusion(uint8([0, 1, 2, 2, 0]), uint8([0, 1, 1, 2, 255]), classes=4)
    assert iou_per_class(found) == [1, 1 / 2, 1 / 2, None]


def test_confusion_has_the_ground_truth_in_its_rows():
    np.testing.assert_array_equal(confusion(uint8([1, 1, 0]), uint8([0, 0, 0]), classes=2), [[1, 2], [0, 0]])


def test_iou_is_counted_over_the_whole_set():
    first = confusion(uint8([1, 1, 1, 1]), uint8([1, 1, 1, 1]), classes=2)
    second = confusion(uint8([0, 0, 1, 0]), uint8([0, 1, 0, 1]), classes=2)
    # class 1: four right of 4 + 2 wanted and 4 + 1 found
    assert iou_per_class(first + second)[1] == pytest.approx(4 / 7)


@pytest.mark.parametrize(("labels", "gt"), [([3], [0]), ([0], [3]), ([255], [0])])
def test_a_class_that_is_not_there_is_refused(labels, gt):
    with pytest.raises(ValueError, match="expected 0 to 2"):
        confusion(uint8(labels), uint8(gt), classes=3)


def test_maps_of_the_authors_give_the_published_row(shared):
    folder = shared / "data/ecssd-100"
    fast, boundary = FastScores(), []
    for path in sorted((folder / "masks").iterdir()):
        with Image.open(path) as gt, Image.open(folder / "maps_u2netp_author" / path.name) as saliency:
            fast.add(np.asarray(saliency), np.asarray(gt))
            boundary.append(relaxed_boundary_f(np.asarray(saliency) >= 128, np.asarray(gt) >= 128))
    assert fast.result() == pytest.approx({"max_f": 0.9340, "mae": 0.0517}, abs=0.001)
    assert np.mean(boundary) == pytest.approx(0.7973, abs=0.001)
