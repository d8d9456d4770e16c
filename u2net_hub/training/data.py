"""The pairs of a run: which of them train, which are held out, and how many fit into a batch."""

from __future__ import annotations

import logging

from ..datasets import SaliencyDataset, check_saliency_masks
from .config import TrainConfig

logger = logging.getLogger(__name__)


def open_data(config: TrainConfig) -> SaliencyDataset:
    """Open the pairs of the run, including those that will be held out.

    Raises:
        FileNotFoundError: A folder, a file or a mask is missing.
        ValueError: The masks hold class numbers, but the configuration has no `classes`.
    """
    dataset = SaliencyDataset(config.data, images=config.images, masks=config.masks, classes=config.classes)
    if config.classes is None:
        check_saliency_masks(dataset)
    return dataset


def held_out_by_default(pairs: int, *, tuning: bool = False) -> int:
    """The number of pairs to hold out: a tenth of them, at least 1, at most 300.

    Args:
        pairs: The number of all pairs.
        tuning: Whether trained weights are fine-tuned. The held-out pairs then decide whether the result is
            better than its start, which takes a quarter of up to 48 pairs, and at least 12 of more.
    """
    least = min(12, max(1, pairs // 4)) if tuning else 1
    return max(least, min(300, pairs // 10))


def divide(config: TrainConfig) -> tuple[SaliencyDataset, SaliencyDataset]:
    """Open the data and return its two parts (training, held out).

    If `config.validation_data` is given, that data set is held out, and all pairs of the data train.

    Raises:
        FileNotFoundError: A folder, a file or a mask is missing.
        ValueError: One of the two parts would be empty, or the masks do not fit the configuration.
    """
    whole = open_data(config)
    if config.validation_data is not None:
        return whole, SaliencyDataset(config.validation_data, classes=config.classes)
    wanted = (
        held_out_by_default(len(whole), tuning=config.init is not None)
        if config.validation is None
        else config.validation
    )
    training, held_out = whole.split(wanted, seed=config.seed)
    if not len(held_out):
        raise ValueError(
            f"no pair of {config.data} can be held out: each photo has more copies than the {wanted:g} "
            "wanted, and copies stay together; hold out more with --validation"
        )
    return training, held_out


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
