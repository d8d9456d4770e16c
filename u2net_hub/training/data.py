"""The pairs of a run: which of them train, which are held out, and how many fit into a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets import (
    FOREGROUND,
    SaliencyDataset,
    check_class_masks,
    check_saliency_masks,
    join,
    parse_share,
    take,
    without_copies,
)
from .config import Recipe, TrainConfig

logger = logging.getLogger(__name__)

_MATTES = 0.05
"""Masks with a larger share of grey pixels are mattes; soft edges take about a hundredth."""


def open_data(config: TrainConfig) -> list[SaliencyDataset]:
    """Open the data sets of the run, with all their pairs, including those that will be held out.

    Raises:
        FileNotFoundError: A folder, a file or a mask is missing.
        ValueError: Masks hold class numbers, but the configuration has no `classes`, or the reverse; or
            `images` or `masks` would name one folder for several sets.
    """
    paths = [parse_share(each).path for each in config.data_sets]
    if len(paths) > 1:
        _check_inside(paths, [folder for folder in (config.images, config.masks) if folder is not None])
    sets = [
        SaliencyDataset(path, images=config.images, masks=config.masks, classes=config.classes)
        for path in paths
    ]
    for dataset in sets:
        _check_masks(dataset)
    return sets


def open_evaluated(config: TrainConfig) -> list[SaliencyDataset]:
    """Open the data sets that the result is scored on, so that what is wrong with them is told at the start.

    Raises:
        FileNotFoundError: A folder, a file or a mask is missing.
        ValueError: Masks hold class numbers, but the configuration has no `classes`, or the reverse.
    """
    sets = [SaliencyDataset(path, classes=config.classes) for path in config.evaluate]
    for dataset in sets:
        _check_masks(dataset)
    return sets


def _check_masks(dataset: SaliencyDataset) -> None:
    (check_saliency_masks if dataset.classes is None else check_class_masks)(dataset)


def _check_inside(sets: Sequence[str], folders: Sequence[str]) -> None:
    for path in map(Path, sets):
        for folder in folders:
            inside = (path if path.is_dir() else path.parent) / folder
            if Path(folder).is_absolute() or not inside.is_dir():
                raise ValueError(
                    f"{folder} is not a folder inside {path}; with several sets, images and masks name "
                    "folders inside each of them"
                )


def held_out_by_default(pairs: int, *, tuning: bool = False) -> int:
    """Choose the number of pairs to hold out: a tenth of them, at least 1, at most 300.

    Args:
        pairs: The number of all pairs.
        tuning: Whether trained weights are fine-tuned. The held-out pairs then decide whether the result is
            better than its start, which takes a quarter of up to 48 pairs, and at least 12 of more.
    """
    least = min(12, max(1, pairs // 4)) if tuning else 1
    return max(least, min(300, pairs // 10))


def divide(config: TrainConfig) -> tuple[SaliencyDataset, SaliencyDataset]:
    """Open the data and return its two parts (training, held out).

    Held-out pairs come from the first set alone, which is the one that the network is made for. They are
    chosen before shares are taken, so that the scores of runs with other shares are comparable. Photos
    of the other sets that show the same picture as a held-out one do not train. If `config.validation_data`
    is given, that data set is held out, and all pairs train but copies of its photos.

    Raises:
        FileNotFoundError: A folder, a file or a mask is missing.
        ValueError: One of the two parts would be empty, or the masks do not fit the configuration.
    """
    first, *others = open_data(config)
    if config.validation_data is not None:
        held_out = SaliencyDataset(config.validation_data, classes=config.classes)
        _check_masks(held_out)
    else:
        first, held_out = _split(config, first)
    shares = [parse_share(each).times for each in config.data_sets]
    parts = [first, *others]
    taken = [take(part, times, seed=config.seed) for part, times in zip(parts, shares, strict=True)]
    for i, part in enumerate(taken):
        if i or config.validation_data is not None:  # `split` keeps copies within the first set together
            taken[i] = without_copies(part, held_out)
            if copies := len(part) - len(taken[i]):
                logger.warning(
                    "%d photos of %s do not train, because they show the same as held-out photos of %s.",
                    *(copies, part.name, held_out.name),
                )
    training = join(taken)
    if len(taken) > 1:
        if config.validation_data is None:
            held_out = _renamed(held_out, training.sources[0])
        told = ", ".join(f"{n['samples']} of {name}" for name, n in training.contents().items())
        logger.info("An epoch has %d samples: %s.", len(training.samples), told)
        logger.info("All %d held-out pairs are from %s.", len(held_out), held_out.name)
    if config.classes is None:
        _tell_of_soft_masks(training, held_out, config.settings)
    return training, held_out


def _tell_of_soft_masks(training: SaliencyDataset, held_out: SaliencyDataset, recipe: Recipe) -> None:
    """Log what the loss and the scores do with masks that have grey values."""
    if soft := held_out.soft_share():
        logger.info(
            "Held-out masks have grey values (%.1f %% of their pixels): the loss takes such values as they "
            "are, and scores count values from %d as the object.",
            *(100 * soft, FOREGROUND),
        )
    if (recipe.iou or recipe.structure) and training.soft_share() > _MATTES:
        # d/ds of s·t / (s + t - s·t), summed over pixels, has the sign of t - 1/2 if the maps are near t
        logger.warning(
            "The masks are mattes, but the IoU in the loss draws soft values to 0 and 1; leave it out with "
            "--iou 0 --structure 0, which keeps --bce and --l1."
        )


def _split(config: TrainConfig, whole: SaliencyDataset) -> tuple[SaliencyDataset, SaliencyDataset]:
    wanted = (
        held_out_by_default(len(whole), tuning=config.init is not None)
        if config.validation is None
        else config.validation
    )
    training, held_out = whole.split(wanted, seed=config.seed)
    if not len(held_out):
        raise ValueError(
            f"no pair of {config.data_sets[0]} can be held out: each photo has more copies than the "
            f"{wanted:g} wanted, and copies stay together; hold out more with --validation"
        )
    return training, held_out


def _renamed(dataset: SaliencyDataset, source: str) -> SaliencyDataset:
    """Name pairs as `join` does."""
    renamed = dataset.subset(range(len(dataset)))
    renamed.pairs = [pair._replace(name=f"{source}/{pair.name}") for pair in dataset.pairs]
    return renamed


def class_weights(dataset: SaliencyDataset, recipe: Recipe) -> Tensor | None:
    """Compute the weight of each class in the loss: float32 (classes,); None if all are 1.

    Balanced weights are the inverse of the share of each class in the labelled pixels of the training masks,
    divided by the number of classes, as in scikit-learn: equal shares give weights of 1. A repeated pair
    counts several times. A class that no mask holds gets 0.

    Raises:
        OSError: A mask cannot be opened.
        ValueError: A mask is damaged.
    """
    if recipe.class_weights is None or dataset.classes is None:
        return None
    if recipe.class_weights != "balanced":
        return torch.tensor(recipe.class_weights)
    counts = dataset.count_classes()
    known = counts[counts > 0]
    weights = np.zeros(len(counts))
    weights[counts > 0] = counts.sum() / (len(counts) * known)
    told = ", ".join(f"{weight:.3g}" for weight in weights)
    logger.info("The classes weigh %s in the loss, from their shares of the training masks.", told)
    if missing := np.flatnonzero(counts == 0).tolist():
        logger.warning("No training mask holds the classes %s.", missing)
    return torch.tensor(weights, dtype=torch.float32)


def fit_batch(batch_size: int, pairs: int, *, parts: int, live_norm: bool) -> int:
    """Reduce the batch size for a small data set: at most `pairs`, and a multiple of `parts`.

    Args:
        batch_size: The batch size of the recipe.
        pairs: The number of training pairs.
        parts: The number of micro-batches of a step: accumulation steps times processes.
        live_norm: Whether batch norm is trained; then each micro-batch needs 2 pairs.

    Raises:
        ValueError: There are too few pairs for a micro-batch.
    """
    if batch_size <= pairs:
        return batch_size
    smaller = pairs // parts * parts
    least = parts * (2 if live_norm else 1)
    if smaller < least:
        raise ValueError(
            f"there are {pairs} pairs for training, but a step needs at least {least} "
            f"({'2 for batch norm' if live_norm else '1'} in each of {parts} parts); add pairs, or hold out "
            "fewer with --validation"
        )
    logger.warning(
        "There are %d pairs for training, fewer than a batch of %d: the batch size is now %d.",
        *(pairs, batch_size, smaller),
    )
    return smaller
