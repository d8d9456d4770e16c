"""Deep supervision: one loss for the fused output and one for each side output, in float32 on logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def saliency_loss(logits: Tensor, target: Tensor, *, bce: float, iou: float, l1: float = 0.0) -> Tensor:
    """Weighted sum of cross-entropy, soft IoU loss and mean absolute error: (B, 1, H, W) each -> scalar."""
    total = logits.new_zeros(())
    if bce:
        total = total + bce * binary_cross_entropy(logits, target)
    if iou:
        total = total + iou * soft_iou(logits, target)
    if l1:
        total = total + l1 * F.l1_loss(logits.sigmoid(), target)
    return total
