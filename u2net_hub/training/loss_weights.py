"""The settings of the loss: the weight of each of its terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weights of the terms of the loss for saliency; `loss` computes them.

    The docstring below each field is its help text.
    """

    bce: float = 1.0
    """Weight of the binary cross-entropy loss."""
    iou: float = 0.0
    """Weight of the soft IoU loss."""
    l1: float = 0.0
    """Weight of the mean absolute error of the map."""
    structure: float = 0.0
    """Weight of the structure loss of F³Net, whose pixels count up to six times where an object is thin."""
    ssim: float = 0.0
    """Weight of the structural similarity loss of BASNet."""
    boundary: float = 0.0
    """Weight of a cross-entropy loss in which pixels at the object's boundary count five times."""


LOSSES = tuple(field.name for field in fields(LossWeights))
"""The names of the terms."""


def check_loss_weights(settings: LossWeights, classes: int | None) -> None:
    """Refuse weights of the loss that cannot work.

    Args:
        settings: The weights.
        classes: The number of classes; None for saliency.

    Raises:
        ValueError: A weight is negative, all are 0, or a term for saliency is asked for with classes.
    """
    weights = {name: getattr(settings, name) for name in LOSSES}
    if min(weights.values()) < 0 or not 0 < sum(weights.values()) < math.inf:
        told = ", ".join(f"{name} {weight}" for name, weight in weights.items())
        raise ValueError(f"loss weights {told}: expected at least one above 0, none below")
    asked = [name for name in ("structure", "ssim", "boundary") if weights[name]]
    if classes is not None and asked:
        raise ValueError(
            f"{asked} are losses for saliency, but classes is {classes}: networks for classes learn by "
            "cross-entropy alone; leave them out"
        )
