"""What lies behind the object, and its soft edge."""

from __future__ import annotations

import numpy as np
from PIL import Image

from u2net_hub.imaging.compositing import blur_background, clean_edges


def test_a_blurred_background_has_no_glow_of_the_object() -> None:
    pixels = np.full((300, 500, 3), (0, 0, 200), np.uint8)
    pixels[100:200, 200:300] = (255, 0, 0)
    alpha = np.zeros((300, 500), np.uint8)
    alpha[100:200, 200:300] = 255
    blurred = np.asarray(blur_background(Image.fromarray(pixels), Image.fromarray(alpha))).astype(int)
    assert blurred.shape == (300, 500, 3)
    around = np.ones((300, 500), bool)
    around[100:200, 200:300] = False
    assert np.abs(blurred[around] - (0, 0, 200)).max() <= 6


def test_clean_edges_have_the_objects_colours_only() -> None:
    # a red object on blue, photographed with an edge ten pixels wide: each pixel there is a mixture of both
    alpha = np.zeros((100, 200), np.float32)
    alpha[:, 60:140] = 1
    alpha[:, 50:60] = np.linspace(0.05, 0.95, 10)
    alpha[:, 140:150] = np.linspace(0.95, 0.05, 10)
    red, blue = np.array([200, 20, 20]), np.array([20, 20, 200])
    mixed = alpha[..., None] * red + (1 - alpha[..., None]) * blue
    photo = Image.fromarray(np.rint(mixed).astype(np.uint8))
    clean = np.asarray(clean_edges(photo, Image.fromarray(np.rint(alpha * 255).astype(np.uint8)))).astype(int)
    assert np.abs(np.asarray(photo)[:, 51:60].astype(int) - red).max() > 150
    assert (
        np.abs(clean[:, 51:60] - red).max() <= 40
    )  # the mean of the object has a little of the mixture in it
    assert np.array_equal(clean[:, 60:140], np.asarray(photo)[:, 60:140])
    assert np.array_equal(clean[:, :50], np.asarray(photo)[:, :50])


def test_a_blurred_background_has_lost_its_detail() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    blurred = np.asarray(blur_background(Image.fromarray(pixels), Image.new("L", (200, 200))))
    assert blurred[20:-20, 20:-20].std() < pixels.std() / 10
