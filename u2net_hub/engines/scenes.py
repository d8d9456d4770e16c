"""Pictures on which exported files are compared with the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def make_scenes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Make inputs that show a disc on a background of another colour; in noise, networks find no object.

    Args:
        rng: The source of the noise, colours and places.
        shape: The shape of the inputs, (batch, channels, height, width). Most values are within ±2.
    """
    _, channels, height, width = shape
    y, x = np.mgrid[:height, :width]
    scenes = rng.normal(0, 0.1, shape)
    for scene in scenes:
        centre, radius = (
            rng.uniform(0.35, 0.65, 2) * (height, width),
            rng.uniform(0.2, 0.35) * min(height, width),
        )
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        ground, colour = rng.uniform(-1.5, 1.5, (2, channels, 1, 1))
        scene += np.where(disc, colour, ground)
    return scenes.astype(np.float32)
