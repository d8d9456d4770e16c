"""The cost of a resize is that of the pixels before and after."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_hub import U2NetConfig
from u2net_hub.imaging import load, preprocess, resize

LONG = 100_000


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The rows before, the columns after and the rows after of each resize of Pillow."""
    seen = []
    resize = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], *args: object) -> Image.Image:
        seen.append((self.height, *size))
        return resize(self, size, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    return seen


def between(sizes: list[tuple[int, int, int]]) -> int:
    """Pixels between Pillow's two passes, rows first."""
    return max(rows * columns for rows, columns, _ in sizes)


def test_a_tall_photo_does_not_become_wide_before_it_becomes_low(sizes: list[tuple[int, int, int]]) -> None:
    photo = load(np.zeros((LONG, 4, 3), np.uint8))
    sizes.clear()
    assert preprocess(photo, U2NetConfig()).shape == (3, 320, 320)
    assert between(sizes) <= 4 * LONG


def test_a_map_does_not_become_wide_before_it_becomes_low(sizes: list[tuple[int, int, int]]) -> None:
    assert resize(np.ones((320, 320), np.float32), (4, LONG)).shape == (4, LONG)
    assert between(sizes) <= 4 * LONG


def test_both_orders_give_the_same_map(rng: np.random.Generator) -> None:
    saliency = rng.random((40, 40), np.float32)
    expected = Image.fromarray(saliency).resize((90, 7), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resize(saliency, (7, 90)), np.asarray(expected), atol=1e-6)
