"""What a forward pass costs: multiply-accumulates and memory traffic of each convolution, from the table."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Stage, U2NetConfig


class LayerCost(NamedTuple):
    """One convolution at one size of input, for one image."""

    name: str
    """Official name of its block, e.g. "stage1.rebnconvin"."""
    macs: int
    """Multiply-accumulates; twice as many floating-point operations. Biases and ReLU are left out."""
    activations: int
    """Numbers read and written: its input once, its output once."""
    weights: int
    """Numbers read once per batch: weights and biases, batch norm folded in."""


def layer_costs(config: U2NetConfig, size: tuple[int, int] | None = None) -> list[LayerCost]:
    """The costs of every convolution of the network, in the order of the forward pass.

    Pools, resizes, concatenations and the sums of the residual blocks are left out: a runtime that fuses them
    into convolutions moves nothing for them, so that this is the least there is to move.

    Args:
        config: says what the network is.
        size: (height, width) of the input in pixels; None: the config's.
    """
    table = config.table
    depth = (len(table) + 1) // 2
    encoder, decoder = table[:depth], table[depth:]
    sizes = [size or config.input_size]
    for _ in encoder[1:]:
        sizes.append(_halved(sizes[-1]))
    costs: list[LayerCost] = []
    width = config.in_channels
    for stage, at in zip(encoder, sizes, strict=True):
        costs += _block(stage, width, at)
        width = stage.out
    for stage, skip, at in zip(decoder, reversed(encoder[:-1]), reversed(sizes[:-1]), strict=True):
        costs += _block(stage, width + skip.out, at)
        width = stage.out
    n = config.out_channels
    for i, stage in enumerate((*reversed(decoder), encoder[-1])):
        costs.append(_conv(f"side{i + 1}", stage.out, n, sizes[i]))
    costs.append(_conv("outconv", depth * n, n, sizes[0], kernel=1))
    return costs


def total(costs: list[LayerCost], batch: int = 1, *, bytes_per_number: int = 4) -> tuple[int, int]:
    """(multiply-accumulates, bytes moved) of a batch."""
    macs = batch * sum(cost.macs for cost in costs)
    numbers = sum(batch * cost.activations + cost.weights for cost in costs)
    return macs, numbers * bytes_per_number


def _block(stage: Stage, width: int, size: tuple[int, int]) -> list[LayerCost]:
    """A residual U-block; its levels halve but for the bottom, which dilates, or all of them dilate."""
    name, L, mid, out, dilated = stage
    sizes = [size]
    for level in range(1, L):
        sizes.append(sizes[-1] if dilated or level == L - 1 else _halved(sizes[-1]))
    costs = [_conv(f"{name}.rebnconvin", width, out, size)]
    for i, at in enumerate(sizes):
        costs.append(_conv(f"{name}.rebnconv{i + 1}", out if i == 0 else mid, mid, at))
    for i in reversed(range(L - 1)):
        costs.append(_conv(f"{name}.rebnconv{i + 1}d", 2 * mid, out if i == 0 else mid, sizes[i]))
    return costs


def _conv(name: str, width: int, out: int, size: tuple[int, int], kernel: int = 3) -> LayerCost:
    pixels, weights = size[0] * size[1], width * out * kernel**2
    return LayerCost(name, pixels * weights, pixels * (width + out), weights + out)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """After a 2 × 2 pool, rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2
