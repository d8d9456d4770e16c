"""Mattes from soft maps: the band, its solution, see-through patches, and the way to full size."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from u2net_hub.imaging import matting
from u2net_hub.imaging.matting import BANDS, Band, enlarge, refine, solve, trimap

NARROW = Band(low=0.3, high=0.7, margin=0, noise=1e-7, trust=0.0, solid=0.5, share=0.0, width=9)


def disc(size: tuple[int, int], blur: float) -> NDArray[np.float32]:
    """A map of a disc in the middle, with an edge `blur` of the shorter side wide: float32 in [0, 1]."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(y / height - 0.5, x / width - 0.5)
    return np.asarray(np.clip((0.3 - distance) / blur + 0.5, 0, 1), np.float32)


def two_colours(alpha: NDArray[np.float32]) -> Image.Image:
    """A red object of that alpha on blue."""
    mixed = alpha[..., None] * (200, 30, 30) + (1 - alpha[..., None]) * (30, 30, 200)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def test_trimap_is_unknown_between_the_two_levels() -> None:
    saliency = np.array([[0.0, 0.3, 0.31, 0.69, 0.7, 1.0]], np.float32)
    assert trimap(saliency, NARROW).tolist() == [[0, 0, 0.5, 0.5, 1, 1]]


def test_margin_widens_the_unknown_band_on_both_sides() -> None:
    saliency = np.array([[0, 0, 0, 0, 0.5, 1, 1, 1, 1]], np.float32)
    assert trimap(saliency, NARROW._replace(margin=2)).tolist() == [[0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1]]


def test_margin_leaves_the_pictures_border_alone() -> None:
    assert np.array_equal(trimap(np.ones((5, 5), np.float32), NARROW._replace(margin=2)), np.ones((5, 5)))


def test_margin_leaves_something_of_a_small_object() -> None:
    saliency = np.zeros((30, 30), np.float32)
    saliency[4:7, 4:7] = 1  # all of it is within three pixels of its edge
    saliency[15:27, 12:24] = 1
    sure = trimap(saliency, BANDS["hair"]) == 1
    assert sure[4:7, 4:7].all()
    assert sure[18:24, 15:21].all()
    assert sure.sum() == 9 + 36


def test_solution_is_that_of_pymatting() -> None:
    cf = pytest.importorskip("pymatting").estimate_alpha_cf
    random = np.random.default_rng(0)
    alpha = disc((40, 48), 0.3)
    fore, back = (random.uniform(low, low + 0.3, (40, 48, 3)) for low in (0.6, 0.0))
    colours = alpha[..., None] * fore + (1 - alpha[..., None]) * back
    known = trimap(alpha, NARROW._replace(low=0.1, high=0.9))
    found = solve(colours, known, alpha, noise=1e-7, trust=np.zeros_like(alpha))
    assert found is not None
    expected = cf(colours, known.astype(np.float64), laplacian_kwargs={"epsilon": 1e-7})
    assert np.abs(found - expected).max() < 0.02


def test_alpha_of_two_colours_is_found_exactly() -> None:
    # where object and background have one colour each, alpha is linear in the colours, and its energy 0
    alpha = disc((60, 60), 0.25)
    colours = np.asarray(two_colours(alpha), np.float64) / 255
    known = trimap(alpha, NARROW._replace(low=0.02, high=0.98))
    found = solve(colours, known, np.full_like(alpha, 0.5), noise=1e-9, trust=np.zeros_like(alpha))
    assert found is not None
    assert np.abs(found - alpha).max() < 0.02


def test_without_unknown_pixels_what_is_known_comes_back() -> None:
    known = np.eye(8, dtype=np.float32)
    found = solve(np.zeros((8, 8, 3)), known, known, noise=1e-3, trust=np.full_like(known, 1e-3))
    assert found is not None
    assert np.array_equal(found, known)


def test_where_nothing_is_known_the_guess_comes_back() -> None:
    known = np.full((9, 9), 0.5, np.float32)
    found = solve(
        np.full((9, 9, 3), 0.2),
        known,
        np.full((9, 9), 0.4, np.float32),
        noise=1e-3,
        trust=np.full_like(known, 1e-3),
    )
    assert found is not None
    assert np.allclose(found, 0.4, atol=1e-3)


def test_enlarged_matte_follows_the_large_photos_edge() -> None:
    large = disc((800, 800), 0.002)
    photo = two_colours(large)
    small = photo.resize((80, 80), Image.Resampling.BOX)
    matte = np.asarray(Image.fromarray(large).resize((80, 80), Image.Resampling.BOX))
    found = enlarge(photo, np.asarray(small, np.float64) / 255, matte) / 255
    bilinear = np.asarray(Image.fromarray(matte).resize((800, 800), Image.Resampling.BILINEAR))
    assert np.abs(found - large).sum() < 0.2 * np.abs(bilinear - large).sum()


def test_enlarged_matte_of_the_photos_size_stays_as_it_is() -> None:
    matte = disc((30, 40), 0.3)
    photo = two_colours(matte)
    found = enlarge(photo, np.asarray(photo, np.float64) / 255, matte)
    assert np.array_equal(found, np.rint(matte * 255))


def test_enlarged_matte_has_no_seams_between_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = disc((400, 500), 0.4)
    photo = two_colours(alpha)
    small = photo.resize((100, 80), Image.Resampling.BOX)
    colours = np.asarray(small, np.float64) / 255
    matte = np.asarray(Image.fromarray(alpha).resize((100, 80), Image.Resampling.BOX))
    in_blocks = enlarge(photo, colours, matte).astype(int)
    monkeypatch.setattr(matting, "TILE", 1000)
    assert np.abs(in_blocks - enlarge(photo, colours, matte)).max() <= 1


def test_soft_edges_are_the_resized_map() -> None:
    saliency = np.array([[0, 1]], np.float32)
    alpha = refine(Image.new("RGB", (4, 1)), saliency, "soft")
    assert alpha.tolist() == [[0, 64, 191, 255]]  # 0, ¼, ¾ and 1 between the centres of two pixels


@pytest.mark.parametrize("edges", ["sharp", "hair"])
def test_matte_of_a_blurred_map_is_nearer_to_the_truth(edges: matting.Edges) -> None:
    truth = disc((480, 640), 0.005)
    blurred = disc((64, 64), 0.1)
    photo = two_colours(truth)
    errors = {each: np.abs(refine(photo, blurred, each) / 255 - truth).sum() for each in ("soft", edges)}
    assert errors[edges] < 0.3 * errors["soft"]


@pytest.mark.parametrize("edges", ["sharp", "hair"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 900), (900, 2), (3, 3), (500, 333), (40, 3000)])
def test_matte_has_the_photos_size(size: tuple[int, int], edges: matting.Edges) -> None:
    alpha = refine(Image.new("RGB", size, "gray"), disc((32, 32), 0.4), edges)
    assert (alpha.shape, alpha.dtype) == (size[::-1], np.uint8)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_stays_constant(value: float) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8))
    alpha = refine(photo, np.full((32, 32), value, np.float32), "hair")
    assert (alpha == 255 * value).all()


def test_a_map_that_is_unknown_everywhere_stays_as_it_is() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8))
    alpha = refine(photo, np.full((32, 32), 0.5, np.float32), "hair").astype(int)
    assert np.abs(alpha - 128).max() <= 1


@pytest.mark.parametrize("edges", ["sharp", "hair"])
def test_an_object_that_is_likely_but_nowhere_sure_is_soft(edges: matting.Edges) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    likely = np.float32(0.6) * disc((64, 64), 0.1)
    assert np.array_equal(refine(photo, likely, edges), refine(photo, likely, "soft"))


def test_grey_photos_have_mattes() -> None:
    truth = disc((400, 400), 0.005)
    photo = Image.fromarray(np.rint(truth * 200 + 20).astype(np.uint8)).convert("RGB")
    alpha = refine(photo, disc((64, 64), 0.1), "sharp")
    assert np.abs(alpha / 255 - truth).mean() < 0.01


def test_two_runs_give_the_same_bytes() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8))
    first, second = (refine(photo, disc((64, 64), 0.3), "hair") for _ in range(2))
    assert np.array_equal(first, second)


def test_a_matte_that_does_not_converge_is_soft_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(matting, "_MOST_STEPS", 1)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    saliency = disc((64, 64), 0.3)
    with caplog.at_level(logging.WARNING):
        alpha = refine(photo, saliency, "hair")
    assert np.array_equal(alpha, refine(photo, saliency, "soft"))
    assert "120 × 90 pixels did not converge" in caplog.text


def test_memory_is_bounded_for_large_photos() -> None:
    photo = Image.new("RGB", (6000, 1500), "gray")
    tracemalloc.start()
    try:
        refine(photo, disc((64, 64), 0.3), "hair")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 9e6 + 75e6  # the result, and what does not grow with the photo


def test_unknown_edges_raise() -> None:
    with pytest.raises(ValueError, match=r"unknown edges 'fur', expected one of \['soft', 'sharp', 'hair'\]"):
        refine(Image.new("RGB", (4, 4)), np.zeros((4, 4), np.float32), "fur")  # type: ignore[arg-type]


def test_a_photo_that_is_not_rgb_raises() -> None:
    with pytest.raises(ValueError, match="got a photo of mode L, expected RGB"):
        refine(Image.new("L", (4, 4)), np.zeros((4, 4), np.float32), "hair")


@pytest.mark.parametrize("edges", BANDS)
def test_a_true_matte_of_hair_is_met_better_than_by_a_resized_map(edges: matting.Edges, shared: Path) -> None:
    photo = Image.open(shared / "data/mattes/boy_image.webp").convert("RGB")
    truth = Image.open(shared / "data/mattes/boy_alpha.png")
    saliency = np.asarray(truth.resize((60, 60), Image.Resampling.BOX).resize((320, 320)), np.float32) / 255
    true = np.asarray(truth, np.float64) / 255
    errors = {each: np.abs(refine(photo, saliency, each) / 255 - true).sum() for each in ("soft", edges)}
    assert errors[edges] < 0.9 * errors["soft"]
