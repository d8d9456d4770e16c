"""What lies behind the object, and its soft edge."""

from __future__ import annotations

import numpy as np
from PIL import Image

from u2net_hub.imaging.compositing import blur_background


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


def test_a_blurred_background_has_lost_its_detail() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    blurred = np.asarray(blur_background(Image.fromarray(pixels), Image.new("L", (200, 200))))
    assert blurred[20:-20, 20:-20].std() < pixels.std() / 10
