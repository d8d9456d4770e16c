"""How a network is calculated, and which of its convolutions 16-bit arithmetic would hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..checkpoints import Folded, fold

if TYPE_CHECKING:
    from ..model import U2Net


Precision: TypeAlias = Literal["exact", "fast", "int8"]
"""float32; 16 bit but for the layers that need more; 8 bit, calibrated, but for those."""

LARGE = 64.0
"""A bias from which on bfloat16, in steps of 0.5 there, is coarser than what other channels hold."""


def sensitive_layers(network: U2Net) -> tuple[str, ...]:
    """Official names of the convolutions to keep in float32, e.g. "stage2d.rebnconv1d".

    Args:
        network: not fused.
    """
    state = {key: value.detach().cpu().float().numpy() for key, value in network.state_dict().items()}
    return sensitive_convolutions(fold(network.config, state))


def sensitive_convolutions(convs: Mapping[str, Folded]) -> tuple[str, ...]:
    """The same for convolutions that batch norm is folded into.

    In the authors' U²-Net† one channel of stage2d.rebnconv1d has a bias of 1361, where those of all other
    layers stay below 6: bfloat16 has steps of 8 there, and what the channel has to say lies below that.
    """
    return tuple(name for name, conv in convs.items() if np.abs(conv.bias).max() >= LARGE)
