"""The network as a list of convolutions: what each is called, its shape, and what feeds it.

That is enough to know a checkpoint of the family, whether its tensors have names or not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..config import STAGES, Stage, U2NetConfig

if TYPE_CHECKING:
    pass


logger = logging.getLogger(__name__)


Shapes = dict[str, tuple[int, ...]]

NORM = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a batch norm, but for the one that counts batches."""
TRACKED = ".num_batches_tracked"


class Conv(NamedTuple):
    """One convolution of the network."""

    key: str
    """Official name, e.g. "stage1.rebnconvin.conv_s1"."""
    shape: tuple[int, int, int, int]
    """Of its weight: (out, in, height, width)."""
    norm: str | None = None
    """Official name of the batch norm behind it."""


class ValueNumbering:
    """Numbers for expressions: equal ones, made of equal numbers, get the same number."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}

    def __call__(self, *expression: object) -> int:
        return self._numbers.setdefault(expression, len(self._numbers))


def convolutions(config: U2NetConfig, number: ValueNumbering) -> dict[int, Conv]:
    """The network's convolutions by the expression that feeds each, in official order.

    Expressions are made of the input, convolutions, sums and concatenations. Pooling, resizing and ReLU leave
    an expression as it is: without them it still tells each convolution of the network from all others.
    """
    convs: dict[int, Conv] = {}

    def conv(key: str, feed: int, shape: tuple[int, int, int, int], norm: str | None = None) -> int:
        convs[feed] = Conv(key, shape, norm)
        return number("conv", feed)

    def block(key: str, x: int, width: int, out: int) -> int:
        return conv(f"{key}.conv_s1", x, (out, width, 3, 3), f"{key}.bn_s1")

    def rsu(x: int, width: int, stage: Stage) -> int:
        name, L, mid, out, _ = stage
        x = residual = block(f"{name}.rebnconvin", x, width, out)
        skips = []
        for i in range(1, L + 1):
            x = block(f"{name}.rebnconv{i}", x, out if i == 1 else mid, mid)
            skips.append(x)
        for i in reversed(range(1, L)):
            x = block(
                f"{name}.rebnconv{i}d", number("concat", x, skips[i - 1]), 2 * mid, out if i == 1 else mid
            )
        return number("add", frozenset((x, residual)))

    depth = (len(config.table) + 1) // 2
    x, width = number("input"), config.in_channels
    skips = []
    for stage in config.table[:depth]:
        x, width = rsu(x, width, stage), stage.out
        skips.append((x, width))
    outputs = [skips.pop()]
    for stage in config.table[depth:]:
        skip, skip_width = skips.pop()
        x, width = rsu(number("concat", x, skip), width + skip_width, stage), stage.out
        outputs.append((x, width))
    n = config.out_channels
    sides = [conv(f"side{i}", y, (n, width, 3, 3)) for i, (y, width) in enumerate(reversed(outputs), start=1)]
    conv("outconv", number("concat", *sides), (n, depth * n, 1, 1))
    return convs


def official_shapes(config: U2NetConfig) -> Shapes:
    """Official key -> shape of its tensor, for every key of the state dict."""
    shapes: Shapes = {}
    for key, shape, norm in convolutions(config, ValueNumbering()).values():
        shapes[f"{key}.weight"] = shape
        shapes[f"{key}.bias"] = shape[:1]
        if norm is not None:
            shapes.update({f"{norm}.{name}": shape[:1] for name in NORM})
            shapes[norm + TRACKED] = ()
    return shapes


def check_shapes(path: Path, shapes: Shapes, config: U2NetConfig | None) -> U2NetConfig:
    """The config that a file's shapes fit: the given one, else the one that they tell.

    Args:
        path: the file, for messages.
        shapes: official key -> shape; those that count batches may be missing, all of them.
        config: None: tell variant and channels from the shapes.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; the message says which.
    """
    target = "its config" if config is not None else "the variant that comes closest"
    config = config or _tell_config(path, shapes)
    expected = official_shapes(config)
    missing = [key for key in expected if key not in shapes]
    if missing == [key for key in expected if key.endswith(TRACKED)]:
        missing = []  # files older than PyTorch 0.4.1 have none of them; they count batches and change no map
    problems = {
        "missing": missing,
        "unexpected": [key[:80] for key in shapes if key not in expected],
        "of another shape": [
            f"{key} {list(shapes[key])} instead of {list(shape)}"
            for key, shape in expected.items()
            if shapes.get(key, shape) != shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
            for what, keys in problems.items()
            if keys
        )
        raise ValueError(
            f"{path} does not fit {config.variant!r}, {target}: of {len(expected)} tensors {found}"
        )
    return config


def _tell_config(path: Path, shapes: Shapes) -> U2NetConfig:
    """Tell the variant and its channels from the shapes; every other key is for `check_shapes` to check."""
    inputs, inside, outputs = (
        shapes.get(f"{key}.weight", ())
        for key in ("stage1.rebnconvin.conv_s1", "stage1.rebnconv1.conv_s1", "outconv")
    )
    if not len(inputs) == len(inside) == len(outputs) == 4:
        some = ", ".join(f"{key[:80]} {list(shape)}" for key, shape in list(shapes.items())[:3])
        raise ValueError(
            f"{path} is not of the U²-Net family: it holds {len(shapes)} tensors ({some}, …), expected those "
            "of u2net or u2netp: stage1.rebnconvin.conv_s1.weight [64, 3, 3, 3] … outconv.weight [1, 6, 1, 1]"
        )
    # the width inside the first stage is enough to choose what to compare with
    variant = min(STAGES, key=lambda name: abs(STAGES[name][0].mid - inside[0]))
    config = U2NetConfig(variant=variant)
    if inputs[1] != config.in_channels:
        logger.warning("%s has no config.json: for %d channels mean and std 0.5 are a guess", path, inputs[1])
        config = config.replace(in_channels=inputs[1], mean=(0.5,) * inputs[1], std=(0.5,) * inputs[1])
    if outputs[0] != config.out_channels:
        logger.warning("%s has no config.json: taking its %d maps for classes (softmax)", path, outputs[0])
        config = config.replace(out_channels=outputs[0], activation="softmax")
    return config


_BN_EPS = 1e-5

Float32: TypeAlias = NDArray[np.float32]


class Folded(NamedTuple):
    """A convolution with the batch norm behind it folded in."""

    weight: Float32
    """(out, in, height, width)."""
    bias: Float32
    """(out,)."""


def fold(config: U2NetConfig, state: Mapping[str, NDArray[np.generic]]) -> dict[str, Folded]:
    """Every convolution by its official name, in order, e.g. "stage1.rebnconvin" or "side1".

    Args:
        config: of the network.
        state: its tensors under the official keys; those of a fused network have no batch norm.
    """
    folded = {}
    for key, _, norm in convolutions(config, ValueNumbering()).values():
        weight, bias = (np.asarray(state[f"{key}.{name}"], np.float64) for name in ("weight", "bias"))
        if norm is not None and f"{norm}.weight" in state:
            gamma, beta, mean, var = (
                np.asarray(state[f"{norm}.{name}"], np.float64)
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / np.sqrt(var + _BN_EPS)
            weight, bias = weight * scale[:, None, None, None], (bias - mean) * scale + beta
        name = key.removesuffix(".conv_s1")
        folded[name] = Folded(weight.astype(np.float32), bias.astype(np.float32))
    return folded


def count_parameters(config: U2NetConfig) -> int:
    """Number of weights that training changes, counted from the table."""

    def conv(inside: int, outside: int, side: int = 3) -> int:
        return (side * side * inside + 1) * outside

    def block(inside: int, outside: int) -> int:
        return conv(inside, outside) + 2 * outside  # batch norm

    depth = (len(config.table) + 1) // 2
    encoder, decoder = config.table[:depth], config.table[depth:]
    inputs = [config.in_channels, *(stage.out for stage in encoder[:-1])]
    below = encoder[-1].out
    for stage, skip in zip(decoder, reversed(encoder[:-1]), strict=True):
        inputs.append(below + skip.out)
        below = stage.out
    n, total = config.out_channels, 0
    for (_, height, mid, out, _), inside in zip(config.table, inputs, strict=True):
        total += block(inside, out) + block(out, mid) + (height - 1) * block(mid, mid)
        total += (height - 2) * block(2 * mid, mid) + block(2 * mid, out)
    sides = (*decoder, encoder[-1])
    return total + sum(conv(stage.out, n) for stage in sides) + conv(depth * n, n, 1)
