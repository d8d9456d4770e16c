"""The precisions an engine can have, and the convolutions that 16-bit arithmetic would damage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Folded, fold

if TYPE_CHECKING:
    from ..model import U2Net


Precision: TypeAlias = Literal["exact", "fast", "int8"]
"""exact: float32. fast: 16-bit, except layers that need float32. int8: calibrated 8-bit, same exceptions."""

LARGE = 64.0
"""Biases of at least this size lose too much in bfloat16, whose spacing is 0.5 at 64.

The convolutions that have one stay in float32.
"""


def float32_state(network: U2Net) -> dict[str, NDArray[np.float32]]:
    """Copy the tensors of a network of any dtype on any device to float32 arrays under the official keys."""
    return {key: value.detach().cpu().float().numpy() for key, value in network.state_dict().items()}


def sensitive_layers(network: U2Net) -> tuple[str, ...]:
    """Find the convolutions of a network that have to stay in float32, by name, e.g. "stage2d.rebnconv1d".

    Args:
        network: A network, fused or not.
    """
    return sensitive_convolutions(fold(network.config, float32_state(network)))


def sensitive_convolutions(convs: Mapping[str, Folded]) -> tuple[str, ...]:
    """Find the convolutions that have to stay in float32, by name.

    In the authors' U²-Net† one channel of stage2d.rebnconv1d has a bias of 1361, while the biases of all
    other layers stay below 6. At 1361 the spacing of bfloat16 is 8, more than the channel's signal.

    Args:
        convs: All convolutions of a network, with batch norm folded in.
    """
    return tuple(name for name, conv in convs.items() if np.abs(conv.bias).max() >= LARGE)
