"""The network of a training run: new or from other weights, what of it learns, and what it is compared by."""

from __future__ import annotations

import logging
from functools import partial

from torch import nn

from ..config import U2NetConfig
from ..model import U2Net
from .config import TrainConfig
from .loss import Criterion, bce_iou, cross_entropy

logger = logging.getLogger(__name__)


def criterion_of(config: TrainConfig) -> Criterion:
    """What each output is compared with the mask by."""
    if config.classes:
        return cross_entropy
    return partial(bce_iou, bce=config.settings.bce, iou=config.settings.iou)


def build_network(config: TrainConfig) -> U2Net:
    """A new network, or one with the weights of `config.init`, with heads for `config.classes`.

    Raises:
        ValueError: the source does not read RGB.
    """
    size = {} if config.input_size is None else {"input_size": config.input_size}
    heads: dict[str, object] = {}
    if config.classes is not None:
        heads = {"out_channels": config.classes, "activation": "softmax", "minmax": "never"}
    if config.init is None:
        side = config.settings.phases[-1].load
        new = U2NetConfig(variant=config.model, input_size=(side, side))
        return U2Net(new.replace(**size, **heads))
    source = U2Net.from_pretrained(config.init)
    if source.config.in_channels != 3:
        raise ValueError(
            f"{config.init} reads {source.config.in_channels} channels, training data has 3 (RGB)"
        )
    if config.classes is None or source.config.out_channels == config.classes:
        source.config = source.config.replace(**size)
        return source
    network = U2Net(source.config.replace(**size, **heads, labels=None, invert=False))
    body = {k: v for k, v in source.state_dict().items() if not k.startswith(("side", "outconv"))}
    network.load_state_dict(body, strict=False)
    logger.warning(
        "%s has %d output channels, wanted are %d: side1 … side%d and outconv start anew, all else is kept",
        *(config.init, source.config.out_channels, config.classes, len(source.encoder)),
    )
    return network


def freeze(network: U2Net, parts: tuple[str, ...]) -> None:
    """Stop parts of the network from learning: weights keep their values, batch norm its statistics.

    Args:
        network: changed in place.
        parts: "encoder" for the encoder stages, "bn" for all batch norm.
    """
    frozen: list[nn.Module] = []
    if "encoder" in parts:
        frozen += [network.get_submodule(name) for name in network.encoder]
    if "bn" in parts:
        frozen += [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in frozen:
        module.eval().requires_grad_(False)
