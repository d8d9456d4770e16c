"""A result's pictures with a clean-up: each shows the same cleaned mask."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_hub import Cleanup, SaliencyResult, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.imaging import Edges
from u2net_hub.imaging.decode import load

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="never")
LARGEST = Cleanup(largest_part=True)


def result(*fused: np.ndarray) -> SaliencyResult:
    """The result for a photo of bright objects on black, for one map or one for each class."""
    photo = Image.fromarray(np.where(fused[-1] >= 0.5, np.uint8(200), np.uint8(0))).convert("RGB")
    return SaliencyResult(load(photo), CONFIG.replace(out_channels=len(fused)), np.array(fused, np.float32))


def two_parts() -> np.ndarray:
    """A large soft square at the left, and a small one at the right."""
    saliency = np.zeros((20, 30), np.float32)
    saliency[4:16, 3:15], saliency[5:15, 4:14] = 0.3, 1
    saliency[8:12, 22:26] = 0.8
    return saliency


@pytest.mark.parametrize("threshold", [None, 0.2, 0.5])
def test_the_mask_has_the_largest_part_alone(threshold: float | None) -> None:
    found = result(two_parts())
    before, after = (np.asarray(found.mask(threshold, cleanup=cleanup)) for cleanup in (None, LARGEST))
    assert before[:, 20:].any()
    assert not after[:, 20:].any()
    assert np.array_equal(before[:, :18], after[:, :18])


def test_the_clean_up_comes_after_the_threshold() -> None:
    found = result(two_parts())
    grown = np.asarray(found.mask(0.2, cleanup=Cleanup(grow=1)))
    assert set(np.unique(grown)) == {0, 255}
    assert grown[10, 2]  # from the edge at 0.2, which is a pixel farther out than that at 0.5
    assert not np.asarray(found.mask(0.5, cleanup=Cleanup(grow=1)))[10, 2]


@pytest.mark.parametrize("edges", ["soft", "sharp", "hair"])
def test_cutout_box_and_picture_show_the_same_part(edges: Edges) -> None:
    found = result(two_parts())
    alpha = np.asarray(found.cutout(edges=edges, cleanup=LARGEST))[..., 3]
    assert np.array_equal(alpha, np.asarray(found.alpha(edges=edges, cleanup=LARGEST)))
    assert not alpha[:, 20:].any()
    box = found.bbox(edges=edges, cleanup=LARGEST)
    assert box is not None
    assert box[2] <= 16
    over = np.asarray(found.over("red", edges=edges, cleanup=LARGEST))
    assert (over[:, 20:] == (255, 0, 0)).all()
    assert (over[9:11, 8:10] == 200).all()


def test_results_without_a_clean_up_stay_as_they_were() -> None:
    found = result(two_parts())
    before = np.asarray(found.cutout())
    found.cutout(cleanup=LARGEST)
    assert np.array_equal(np.asarray(found.cutout()), before)
    assert np.array_equal(np.asarray(found.cutout(cleanup=Cleanup())), before)


def test_an_empty_map_stays_empty() -> None:
    found = result(np.zeros((20, 30), np.float32))
    everything = Cleanup(True, True, True, 5)
    assert not np.asarray(found.cutout(cleanup=everything))[..., 3].any()
    assert found.bbox(cleanup=everything) is None


def test_classes_are_cleaned_together_and_stay_a_palette_picture() -> None:
    classes = np.zeros((3, 20, 30), np.float32)
    classes[0] = 0.4
    classes[1, 4:16, 3:9] = classes[2, 4:16, 9:15] = classes[2, 8:12, 22:26] = 1
    mask = result(*classes).mask(cleanup=Cleanup(largest_part=True, grow=1))
    labels = np.asarray(mask)
    assert mask.mode == "P"
    assert labels[10].tolist() == [0] * 2 + [1] * 7 + [2] * 7 + [0] * 14
