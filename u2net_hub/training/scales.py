"""Batches of several sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

# The stream of random numbers; 0 to 9 are for those of `batches`.
_SCALES = 10


def rescale(
    x: Tensor, target: Tensor, scales: Sequence[float], *, seed: int, number: int
) -> tuple[Tensor, Tensor]:
    """Resize a batch by one of the scales, which depends only on the seed and the number of the batch.

    Source: the multi-scale training of F³Net (Wei et al. 2020, arXiv 1911.11445).

    Args:
        x: The input, float32 (B, 3, H, W).
        target: The masks, float32 (B, 1, H, W), or class numbers, int64 (B, H, W).
        scales: Multiples of the size. The sides become multiples of 8 pixels, at least 32.
        seed: The seed of the run.
        number: The number of the batch.
    """
    scale = scales[int(np.random.default_rng([_SCALES, seed, number]).integers(len(scales)))]
    size = [max(round(side * scale / 8) * 8, 32) for side in x.shape[2:]]
    if scale == 1 or size == list(x.shape[2:]):
        return x, target
    x = F.interpolate(x, size, mode="bilinear", antialias=True)
    if target.ndim == 3:  # class numbers are not interpolated
        return x, F.interpolate(target[:, None].float(), size, mode="nearest-exact")[:, 0].long()
    return x, F.interpolate(target, size, mode="bilinear", antialias=True)
