"""Make and score maps of held-out pictures during training; the scores decide which checkpoints are kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..evaluation import FastScores, confusion, iou_per_class, score_image
from ..model import U2Net
from .batches import Pictures, normalise


@torch.inference_mode()
def predict(
    network: U2Net, pictures: Pictures, *, precision: str = "float32", batch_size: int = 16
) -> npt.NDArray[np.uint8]:
    """Make the maps of all pictures in the form that is scored: uint8 (N, H, W).

    Saliency maps are stretched by the official min-max to 0 … 255; maps of classes hold class numbers.
    """
    device = next(network.parameters()).device
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    was_training = network.training
    network.eval()
    maps = []
    for start in range(0, len(pictures), batch_size):
        x = normalise(pictures.images[start : start + batch_size].to(device), network.config)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            fused = network(x)[0].float()
        if network.config.out_channels > 1:
            maps.append(fused.argmax(1).byte().cpu().numpy())
            continue
        fused = fused.sigmoid()[:, 0]
        low, high = fused.amin((1, 2), keepdim=True), fused.amax((1, 2), keepdim=True)
        maps.append(((fused - low) / (high - low).clamp_min(1e-8) * 255).round().byte().cpu().numpy())
    network.train(was_training)
    return np.concatenate(maps)


def score(
    maps: npt.NDArray[np.uint8], pictures: Pictures, *, classes: int | None, weighted: bool = False
) -> dict[str, float]:
    """Compute the scores that checkpoints are compared by: MAE and max F of saliency, mean IoU of classes.

    Args:
        maps: The maps, as `predict` makes them.
        pictures: The held-out pairs.
        classes: The number of classes; None for saliency.
        weighted: Whether to add the weighted F of saliency, which takes some hundredths of a second per pair.
    """
    gts = pictures.masks.numpy()
    if classes is not None:
        table = np.zeros((classes, classes), np.int64)
        for labels, gt in zip(maps, gts, strict=True):
            table += confusion(labels, gt, classes=classes)
        return {"miou": float(np.mean([iou for iou in iou_per_class(table) if iou is not None]))}
    scores = FastScores()
    for saliency, gt in zip(maps, gts, strict=True):
        scores.add(saliency, gt)
    found = scores.result()
    if weighted:
        pairs = zip(maps, gts, strict=True)
        found["weighted_f"] = float(np.mean([score_image(map_, gt).weighted_f for map_, gt in pairs]))
    return found
