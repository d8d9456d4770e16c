"""Deep supervision: one loss for the fused output and one for each side output, in float32 on logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]


def deep_supervision(
    outputs: Sequence[Tensor], target: Tensor, criterion: Criterion, weights: Sequence[float] | None = None
) -> Tensor:
    """Weighted sum of the criterion over fused and side outputs: section 3.3 of arXiv 2005.09007.

    Args:
        outputs: logits, fused first, each (B, out, H, W), of any floating type; taken to float32 here.
        target: what the criterion compares each of them with.
        criterion: (logits, target) -> scalar, the mean over the batch.
        weights: one per output; the paper's are all 1, and so is the default.

    Raises:
        ValueError: the number of weights is not the number of outputs.
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
    """Mean over all pixels: logits and target in [0, 1], each (B, 1, H, W) -> scalar."""
    return F.binary_cross_entropy_with_logits(logits, target)


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """1 - intersection over union of soft masks, mean over the batch: (B, 1, H, W) each -> scalar in [0, 1].

    As in BASNet (Qin et al. 2019). Both areas get a pixel more, so that an empty target costs what is found.
    """
    saliency = logits.sigmoid()
    both = (saliency * target).sum((1, 2, 3))
    either = (saliency + target).sum((1, 2, 3)) - both
    return (1 - (both + 1) / (either + 1)).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over labelled pixels: logits (B, classes, H, W), int64 (B, H, W), 255 for no label -> scalar."""
    labelled = (target != 255).sum().clamp(min=1)
    return F.cross_entropy(logits, target, ignore_index=255, reduction="sum") / labelled


def bce_iou(logits: Tensor, target: Tensor, *, bce: float, iou: float) -> Tensor:
    """Weighted sum of binary cross-entropy and soft IoU loss: (B, 1, H, W) each -> scalar."""
    total = logits.new_zeros(())
    if bce:
        total = total + bce * binary_cross_entropy(logits, target)
    if iou:
        total = total + iou * soft_iou(logits, target)
    return total
