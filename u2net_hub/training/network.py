"""The network of a training run: its weights at the start, its frozen parts, and its loss."""

from __future__ import annotations

import logging
from functools import partial

from torch import Tensor, nn

from ..config import U2NetConfig
from ..model import U2Net
from .config import Phase, TrainConfig
from .loss import Criterion, cross_entropy, saliency_loss
from .loss_weights import LOSSES

logger = logging.getLogger(__name__)


def criterion_of(config: TrainConfig, class_weights: Tensor | None = None) -> Criterion:
    """Choose the loss that is applied to each output.

    Args:
        config: The configuration of the run.
        class_weights: The weight of each class, on the device of the network; by default all are 1.
    """
    if config.classes:
        return cross_entropy if class_weights is None else partial(cross_entropy, weights=class_weights)
    recipe = config.settings
    return partial(saliency_loss, **{name: getattr(recipe, name) for name in LOSSES})


def build_network(config: TrainConfig) -> U2Net:
    """Build a new network, or load the weights of `config.init`.

    If `config.classes` is given, the network has one output channel for each class.

    Raises:
        ValueError: The network of `config.init` does not take RGB input.
    """
    size = {} if config.input_size is None else {"input_size": config.input_size}
    heads: dict[str, object] = {}
    if config.classes is not None:
        heads = {
            "out_channels": config.classes,
            "activation": "softmax",
            "minmax": "never",
            "labels": config.labels,
        }
    if config.init is None:
        side = config.settings.phases[-1].load
        new = U2NetConfig(variant=config.model, input_size=(side, side))
        return U2Net(new.replace(**size, **heads))
    source = U2Net.from_pretrained(config.init)
    if source.config.in_channels != 3:
        raise ValueError(
            f"{config.init} takes {source.config.in_channels} input channels, but photos have 3 (RGB)"
        )
    if config.classes is None or source.config.out_channels == config.classes:
        names = {} if config.labels is None else {"labels": config.labels}
        source.config = source.config.replace(**size, **names)
        return source
    network = U2Net(source.config.replace(**size, **heads, invert=False))
    body = {k: v for k, v in source.state_dict().items() if not k.startswith(("side", "outconv"))}
    network.load_state_dict(body, strict=False)
    logger.warning(
        "%s has %d output channels, but %d are needed: side1 … side%d and outconv start anew, "
        "all other weights are kept",
        *(config.init, source.config.out_channels, config.classes, len(source.encoder)),
    )
    return network


def check_side_weights(network: U2Net, weights: tuple[float, ...] | None) -> None:
    """Refuse weights of the outputs that are not one for each.

    Raises:
        ValueError: There are more or fewer of them.
    """
    outputs = len(network.encoder) + 1
    if weights is not None and len(weights) != outputs:
        raise ValueError(
            f"side_weights are {len(weights)} numbers, expected {outputs}: one for each output, fused first"
        )


def warn_of_other_size(size: tuple[int, int], last: Phase) -> None:
    """Warn if the network is used on pictures with less than half or more than twice the training's pixels.

    Args:
        size: The (height, width) in pixels at which the network is used.
        last: The last phase of the training.
    """
    h, w = size
    if 0.5 <= h * w / last.load**2 <= 2:
        return
    logger.warning(
        "The network is trained on pictures of %d × %d px but used at %d × %d px (height × width), where its "
        "maps may be worse: choose --crop near %d, or --input-size %d.",
        *(last.load, last.load, h, w, round((h * w) ** 0.5 * last.crop / last.load), last.load),
    )


def parts_to_freeze(config: TrainConfig) -> tuple[str, ...]:
    """List the parts that `config` freezes: those it names, and batch norm if the recipe says so."""
    return (*config.freeze, "bn") if config.settings.freeze_bn else config.freeze


def freeze(network: U2Net, parts: tuple[str, ...]) -> None:
    """Freeze parts of the network: their weights and their batch norm statistics no longer change.

    Args:
        network: The network, which is changed in place.
        parts: "encoder" for the encoder stages, "bn" for all batch norm layers.
    """
    frozen: list[nn.Module] = []
    if "encoder" in parts:
        frozen += [network.get_submodule(name) for name in network.encoder]
    if "bn" in parts:
        frozen += [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in frozen:
        module.eval().requires_grad_(False)
