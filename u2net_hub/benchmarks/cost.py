"""The multiply-accumulates and the memory traffic of each convolution of a forward pass."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..checkpoints import Conv, walk
from ..config import U2NetConfig


class LayerCost(NamedTuple):
    """The cost of one convolution for one image."""

    name: str
    """The official name of its block, e.g. "stage1.rebnconvin"."""
    macs: int
    """The number of multiply-accumulates. Each is two operations; biases and ReLU are not counted."""
    activations: int
    """How many values are read and written per image: each value of the input and the output once."""
    weights: int
    """How many values are read once per batch: weights and biases, with batch norm folded in."""


def layer_costs(config: U2NetConfig, size: tuple[int, int] | None = None) -> list[LayerCost]:
    """Compute the cost of each convolution of the network, in the order of the forward pass.

    Pooling, resizing, concatenation and the sums of the residual blocks are not counted: a runtime can fuse
    them into the convolutions and then moves no data for them. The traffic is therefore a lower bound.

    Args:
        config: The config of the network.
        size: (height, width) of the input in pixels; None takes the config's input size.
    """
    costs = _Costs()
    walk(config, costs, size or config.input_size)
    return costs.layers


def total(costs: list[LayerCost], batch: int = 1, *, bytes_per_number: int = 4) -> tuple[int, int]:
    """Add up the multiply-accumulates of a batch, and the bytes that it moves."""
    macs = batch * sum(cost.macs for cost in costs)
    numbers = sum(batch * cost.activations + cost.weights for cost in costs)
    return macs, numbers * bytes_per_number


class _Costs:
    """The network's operations on sizes, (height, width) in pixels."""

    def __init__(self) -> None:
        self.layers: list[LayerCost] = []

    def conv(self, conv: Conv, x: tuple[int, int]) -> tuple[int, int]:
        pixels, weights = x[0] * x[1], math.prod(conv.shape)
        moved = pixels * (conv.width + conv.out)
        self.layers.append(LayerCost(conv.name, pixels * weights, moved, weights + conv.out))
        return x

    def pool(self, x: tuple[int, int]) -> tuple[int, int]:
        return (x[0] + 1) // 2, (x[1] + 1) // 2

    def resize_like(self, x: tuple[int, int], like: tuple[int, int]) -> tuple[int, int]:
        return like

    def concat(self, *values: tuple[int, int]) -> tuple[int, int]:
        return values[0]

    def add(self, name: str, residual: tuple[int, int], x: tuple[int, int]) -> tuple[int, int]:
        return x
