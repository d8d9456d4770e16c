"""See-through patches: which are closed, in the map and in the matte, and which stay open."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_hub.imaging.matting import BANDS, Edges, refine
from u2net_hub.imaging.solid import close_patches, decide, make_solid


def test_a_patch_that_the_object_encloses_is_closed() -> None:
    saliency = np.zeros((20, 20), np.float32)
    saliency[4:16, 4:16] = 1
    saliency[8:11, 8:11] = 0.4
    closed = close_patches(saliency)
    saliency[8:11, 8:11] = 1
    assert np.array_equal(closed, saliency)


def test_the_hole_of_a_ring_stays_open() -> None:
    saliency = np.zeros((20, 20), np.float32)
    saliency[4:16, 4:16] = 1
    saliency[8:11, 8:11] = 0.4
    saliency[9, 9] = 0.1
    assert np.array_equal(close_patches(saliency), saliency)


def test_a_patch_at_the_outline_stays_open() -> None:
    saliency = np.zeros((20, 20), np.float32)
    saliency[4:16, 4:16] = 1
    saliency[8:11, 8:16] = 0.4
    assert np.array_equal(close_patches(saliency), saliency)


def test_a_map_without_background_is_left_alone() -> None:
    saliency = np.full((20, 20), 0.6, np.float32)
    assert np.array_equal(close_patches(saliency), saliency)
    assert np.array_equal(make_solid(saliency, 0.5), saliency)


def test_what_is_rather_opaque_is_solid_far_from_the_background() -> None:
    matte = np.full((40, 40), 0.8, np.float32)
    matte[0] = 0
    solid = make_solid(matte, 0.5)
    assert np.array_equal(solid[:9], matte[:9])  # row 8 is 8 pixels away from the transparent row
    assert (solid[9:] == 1).all()


def test_smoke_stays_transparent() -> None:
    matte = np.full((40, 40), 0.45, np.float32)
    matte[0] = 0
    assert np.array_equal(make_solid(matte, 0.5), matte)


def test_a_wide_doubtful_region_is_decided_by_its_alpha() -> None:
    matte = np.ones((60, 60), np.float32)
    matte[:, :20] = 0
    matte[:30, 20:40] = 0.4
    matte[30:, 20:40] = 0.6
    decided = decide(matte, 9)
    assert (decided[:20, 20:33] == 0).all()  # 7 pixels from the opaque part the mean still holds some of it
    assert (decided[40:, 27:] == 1).all()
    assert (decided[:, :20] == 0).all()
    assert (decided[:, 40:] == 1).all()


def test_an_edge_that_is_narrower_than_the_widest_stays_soft() -> None:
    matte = np.tile(
        np.clip(np.linspace(-1, 2, 30, dtype=np.float32), 0, 1), (30, 1)
    )  # about 8 pixels between
    assert np.array_equal(decide(matte, 9), matte)


def test_a_matte_in_which_nothing_is_known_is_not_decided() -> None:
    matte = np.full((30, 30), 0.6, np.float32)
    assert np.array_equal(decide(matte, 9), matte)


@pytest.mark.parametrize("edges", BANDS)
def test_a_part_that_the_network_doubts_is_not_see_through_and_a_hole_stays_open(edges: Edges) -> None:
    saliency = np.zeros((120, 120), np.float32)
    saliency[10:110, 10:110] = 1
    saliency[10:50, 10:110] = 0.65  # a head that reaches the outline, so that nothing encloses the doubt
    saliency[70:90, 70:90] = 0  # between arm and body
    colours = np.zeros((120, 120, 3), np.uint8)
    colours[10:110, 10:110] = (200, 30, 30)
    colours[10:50, 10:110] = (30, 200, 30)
    colours[70:90, 70:90] = 0
    alpha = refine(Image.fromarray(colours), saliency, edges)
    head = alpha[18:50, 18:102]
    assert ((head > 25) & (head < 230)).mean() < 0.05
    assert (alpha[75:85, 75:85] == 0).all()
