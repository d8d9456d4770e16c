"""Deep supervision: one loss for the fused output and one for each side output, in float32 on logits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]


def deep_supervision(
    outputs: Sequence[Tensor], target: Tensor, criterion: Criterion, weights: Sequence[float] | None = None
) -> Tensor:
    """Sum the weighted losses of the fused and the side outputs (section 3.3 of arXiv 2005.09007).

    Args:
        outputs: Logits, the fused output first, each (B, out, H, W). They are converted to float32.
        target: The ground truth, in the form that the criterion expects.
        criterion: The loss of one output: (logits, target) -> scalar, the mean over the batch.
        weights: One weight for each output. By default all are 1, as in the paper.

    Raises:
        ValueError: The number of weights differs from the number of outputs.
    """
    weights = weights or [1.0] * len(outputs)
    if len(weights) != len(outputs):
        raise ValueError(
            f"got {len(weights)} loss weights for {len(outputs)} outputs, expected one each, fused first"
        )
    total = target.new_zeros((), dtype=outputs[0].float().dtype)
    for logits, weight in zip(outputs, weights, strict=True):
        if weight:
            total = total + weight * criterion(logits.float(), target)
    return total


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over all pixels: logits and a target in [0, 1], (B, 1, H, W) each -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, target)


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """1 - intersection over union of soft masks, the mean over the batch: (B, 1, H, W) each -> scalar.

    This is the IoU loss of BASNet (Qin et al. 2019). One pixel is added to both areas. Therefore, if the
    target is empty, the loss falls as the map finds less.
    """
    saliency = logits.sigmoid()
    both = (saliency * target).sum((1, 2, 3))
    either = (saliency + target).sum((1, 2, 3)) - both
    return (1 - (both + 1) / (either + 1)).mean()


def cross_entropy(logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """The mean over pixels whose label is not 255: logits (B, classes, H, W), int64 (B, H, W) -> scalar.

    With the weight of each class, float32 (classes,), it is the mean weighted by those of the true classes.
    """
    total = F.cross_entropy(logits, target, weights, ignore_index=255, reduction="sum")
    if weights is None:
        return total / (target != 255).sum().clamp(min=1)
    by_label = F.pad(weights, (0, 256 - len(weights)))  # pixels of label 255 weigh nothing
    return total / by_label[target].sum().clamp_min(torch.finfo(weights.dtype).tiny)


def mean_absolute_error(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over all pixels: logits and a target in [0, 1], (B, 1, H, W) each -> scalar."""
    return F.l1_loss(logits.sigmoid(), target)


def structure_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy + weighted soft IoU loss of F³Net: (B, 1, H, W) each -> scalar.

    A pixel counts 1 + 5·|m − target|, where m is the mean of the target in 31 × 31 pixels around it: most at
    boundaries, holes and thin parts. Source: the "pixel position aware loss" of Wei et al. 2020, arXiv
    1911.11445. As there, m is taken over pixels of the picture alone; the official code pads with zeros, and
    its cross-entropy is not weighted.
    """
    mean = target  # over columns, then over rows: the same mean by 62 additions in place of 961
    for window, padding in (((31, 1), (15, 0)), ((1, 31), (0, 15))):
        mean = F.avg_pool2d(mean, window, stride=1, padding=padding, count_include_pad=False)
    weight = 1 + 5 * (mean - target).abs()
    saliency = logits.sigmoid()
    both = (weight * saliency * target).sum((1, 2, 3))
    either = (weight * (saliency + target)).sum((1, 2, 3)) - both
    return _weighted_bce(logits, target, weight) + (1 - (both + 1) / (either + 1)).mean()


def ssim_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity of map and target, the mean over pixels: (B, 1, H, W) each -> scalar.

    Source: the SSIM loss of BASNet (Qin et al. 2019), after Wang et al. 2004: Gaussian windows of 11 × 11
    pixels with a standard deviation of 1.5, C1 = 0.01², C2 = 0.03². Only windows that lie within the picture
    count, as in Wang et al.; the code of BASNet pads with zeros.
    """
    x, y = logits.sigmoid(), target
    means = _gaussian(torch.cat([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, xx, yy, xy = means.chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
    most = (mean_x**2 + mean_y**2 + c1) * (xx - mean_x**2 + yy - mean_y**2 + c2)
    return 1 - (alike / most).mean()


def boundary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in which the object's boundary counts five times: (B, 1, H, W) each -> scalar.

    A pixel counts 1 + 4·g, where g is the morphological gradient of the target, its maximum less its minimum
    in 5 × 5 pixels (Rivest, Soille and Beucher 1993): 1 within two pixels of a hard edge, less at a soft one.
    Weights that rise towards boundaries are those of U-Net (Ronneberger et al. 2015, arXiv 1505.04597).
    """
    widest = F.max_pool2d(target, 5, stride=1, padding=2)
    least = -F.max_pool2d(-target, 5, stride=1, padding=2)
    return _weighted_bce(logits, target, 1 + 4 * (widest - least))


def _weighted_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean over the pixels of each picture, then the mean over pictures."""
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((weight * each).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()


def _gaussian(x: Tensor) -> Tensor:
    """Weighted means over 11 × 11 pixels, without padding: (B, 1, H, W) -> (B, 1, H − 10, W − 10)."""
    window = [math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)]
    for axis in (2, 3):
        length = x.shape[axis] - 10
        # sums of shifted views: convolutions of a single channel are slow on a CPU
        shifted = (x.narrow(axis, k, length) * (weight / sum(window)) for k, weight in enumerate(window))
        x = functools.reduce(torch.add, shifted)
    return x


TERMS: Mapping[str, Criterion] = {
    "bce": binary_cross_entropy,
    "iou": soft_iou,
    "l1": mean_absolute_error,
    "structure": structure_loss,
    "ssim": ssim_loss,
    "boundary": boundary_cross_entropy,
}
"""The terms of the loss for saliency, by the fields of `LossWeights`."""


def saliency_loss(logits: Tensor, target: Tensor, **weights: float) -> Tensor:
    """The sum of the terms, each times its weight: (B, 1, H, W) each -> scalar.

    Args:
        logits: The logits of one output.
        target: The ground truth in [0, 1].
        weights: The weight of each term that counts, by its name in `TERMS`.
    """
    total = logits.new_zeros(())
    for name, weight in weights.items():
        if weight:
            total = total + weight * TERMS[name](logits, target)
    return total
