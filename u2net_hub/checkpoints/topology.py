"""The network's structure: each convolution, its shape, and the values that feed it.

Outside model.py, only `walk` goes through the stage table. State-dict keys, parameter counts, the costs of
the layers and the exported ONNX graph are all derived from it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import STAGES, Stage, U2NetConfig
from .printable import printable_text

logger = logging.getLogger(__name__)


Shapes = dict[str, tuple[int, ...]]

NORM = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a batch norm, except the batch counter."""
TRACKED = ".num_batches_tracked"
"""The end of the key of a batch norm's batch counter."""

V = TypeVar("V")


class Conv(NamedTuple):
    """One convolution of the network."""

    name: str
    """The official name of its block, e.g. "stage1.rebnconvin" or "side1"."""
    width: int
    """The number of input channels."""
    out: int
    """The number of output channels."""
    kernel: int = 3
    dilation: int = 1
    normed: bool = True
    """Whether batch norm and ReLU follow; they do everywhere except in the side outputs and the fusion."""

    @property
    def key(self) -> str:
        """The prefix of its keys in the state dict, e.g. "stage1.rebnconvin.conv_s1"."""
        return f"{self.name}.conv_s1" if self.normed else self.name

    @property
    def norm(self) -> str | None:
        """The prefix of the keys of the batch norm that follows, if one does."""
        return f"{self.name}.bn_s1" if self.normed else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its weight: (out, in, height, width)."""
        return self.out, self.width, self.kernel, self.kernel


class Operations(Protocol[V]):
    """The operations of the network, which `walk` calls with values of any kind, e.g. sizes or names."""

    def conv(self, conv: Conv, x: V) -> V:
        """Apply a convolution; batch norm and ReLU follow it if `conv.normed`."""

    def pool(self, x: V) -> V:
        """Take the maximum of each 2 × 2 pixels, with stride 2; half of an odd size is rounded up."""

    def resize_like(self, x: V, like: V) -> V:
        """Resize to the height and width of `like`."""

    def concat(self, *values: V) -> V:
        """Concatenate values along the channels."""

    def add(self, name: str, residual: V, x: V) -> V:
        """Add the residual at the end of the stage called `name`."""


def walk(config: U2NetConfig, ops: Operations[V], x: V) -> tuple[V, list[V]]:
    """Run the network's operations in the order of its forward pass.

    Args:
        config: The config of the network.
        ops: The object whose methods are called, once for each operation.
        x: The value that stands for the input.

    Returns:
        The values of the fused map and of the side outputs, fine to coarse, before the activation.
    """
    depth = (len(config.table) + 1) // 2
    width = config.in_channels
    levels = []
    for i, stage in enumerate(config.table[:depth]):
        x, width = _walk_stage(stage, ops, ops.pool(x) if i else x, width), stage.out
        levels.append((x, width))
    outputs = [levels.pop()]
    for stage in config.table[depth:]:
        skip, skip_width = levels.pop()
        joined = ops.concat(ops.resize_like(x, skip), skip)
        x, width = _walk_stage(stage, ops, joined, width + skip_width), stage.out
        outputs.append((x, width))
    n = config.out_channels
    top, *below = [
        ops.conv(Conv(f"side{i}", width, n, normed=False), y)
        for i, (y, width) in enumerate(reversed(outputs), start=1)
    ]
    sides = [top, *[ops.resize_like(side, top) for side in below]]
    return ops.conv(Conv("outconv", depth * n, n, kernel=1, normed=False), ops.concat(*sides)), sides


def _walk_stage(stage: Stage, ops: Operations[V], x: V, width: int) -> V:
    """Run a residual U-block; `model.RSU` explains its pooling and its dilations."""
    name, L, mid, out, dilated = stage
    x = residual = ops.conv(Conv(f"{name}.rebnconvin", width, out), x)
    skips = []
    for i in range(1, L + 1):
        if not dilated and 1 < i < L:
            x = ops.pool(x)
        dilation = 2 ** (i - 1) if dilated else 2 if i == L else 1
        x = ops.conv(Conv(f"{name}.rebnconv{i}", out if i == 1 else mid, mid, dilation=dilation), x)
        skips.append(x)
    x = skips.pop()
    for i in reversed(range(1, L)):
        skip = skips.pop()
        if not dilated and i < L - 1:
            x = ops.resize_like(x, skip)
        dilation = 2 ** (i - 1) if dilated else 1
        conv = Conv(f"{name}.rebnconv{i}d", 2 * mid, out if i == 1 else mid, dilation=dilation)
        x = ops.conv(conv, ops.concat(x, skip))
    return ops.add(name, residual, x)


class ValueNumbering:
    """Value numbering: structurally equal expressions get the same integer."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}

    def __call__(self, *expression: object) -> int:
        return self._numbers.setdefault(expression, len(self._numbers))


class _Numbered:
    """The operations of the network on value numbers; pooling and resizing return their input's number."""

    def __init__(self, number: ValueNumbering) -> None:
        self.number = number
        self.convs: dict[int, Conv] = {}

    def conv(self, conv: Conv, x: int) -> int:
        self.convs[x] = conv
        return self.number("conv", x)

    def pool(self, x: int) -> int:
        return x

    def resize_like(self, x: int, like: int) -> int:
        return x

    def concat(self, *values: int) -> int:
        return self.number("concat", *values)

    def add(self, name: str, residual: int, x: int) -> int:
        return self.number("add", frozenset((residual, x)))


def convolutions(config: U2NetConfig, number: ValueNumbering | None = None) -> dict[int, Conv]:
    """Return the network's convolutions in official order, by the value number of each one's input.

    A value number stands for an expression of the network's input, convolutions, sums and concatenations.
    Pooling, resizing, batch norm and ReLU do not appear in it, and it is still different for each
    convolution.
    """
    ops = _Numbered(number or ValueNumbering())
    walk(config, ops, ops.number("input"))
    return ops.convs


def official_shapes(config: U2NetConfig) -> Shapes:
    """Return the shape of every tensor of the state dict, by official key and in official order."""
    shapes: Shapes = {}
    for conv in convolutions(config).values():
        shapes[f"{conv.key}.weight"] = conv.shape
        shapes[f"{conv.key}.bias"] = (conv.out,)
        if conv.norm is not None:
            shapes.update({f"{conv.norm}.{name}": (conv.out,) for name in NORM})
            shapes[conv.norm + TRACKED] = ()
    return shapes


def check_shapes(path: Path, shapes: Shapes, config: U2NetConfig | None) -> U2NetConfig:
    """Check that a file holds every tensor of the network, in its shape, and no other.

    Args:
        path: The file, for messages.
        shapes: The shape of each tensor in the file, by official key. The batch counters may be missing, but
            only all of them together.
        config: The config that the file must fit. None infers the variant and the channels from the shapes.

    Returns:
        The config that the file fits: the given one, or the inferred one.

    Raises:
        ValueError: Keys are missing, unexpected or of another shape; the message says which.
    """
    target, remedy = "its config", ""
    if config is None:
        target, remedy = (
            "the closest variant",
            "; for another table of stages, give its config (config=, --config)",
        )
    config = config or _infer_config(path, shapes)
    expected = official_shapes(config)
    missing = [key for key in expected if key not in shapes]
    if missing == [key for key in expected if key.endswith(TRACKED)]:
        missing = []  # PyTorch before 0.4.1 saved no batch counters, and no map depends on them
    problems = {
        "missing": missing,
        "unexpected": [printable_text(key, 80) for key in shapes if key not in expected],
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
            f"{path} does not fit {config.variant!r}, {target}: of {len(expected)} tensors {found}{remedy}"
        )
    return config


def _infer_config(path: Path, shapes: Shapes) -> U2NetConfig:
    """Infer the variant and its channels from three shapes; `check_shapes` checks all the others."""
    inputs, inside, outputs = (
        shapes.get(f"{key}.weight", ())
        for key in ("stage1.rebnconvin.conv_s1", "stage1.rebnconv1.conv_s1", "outconv")
    )
    if not len(inputs) == len(inside) == len(outputs) == 4:
        some = ", ".join(
            f"{printable_text(key, 80)} {list(shape)}" for key, shape in list(shapes.items())[:3]
        )
        raise ValueError(
            f"{path} is not of the U²-Net family: it holds {len(shapes)} tensors ({some}, …), expected those "
            "of u2net or u2netp: stage1.rebnconvin.conv_s1.weight [64, 3, 3, 3] … outconv.weight [1, 6, 1, 1]"
        )
    # the number of channels inside the first stage is enough to choose the variant to compare with
    variant = min(STAGES, key=lambda name: abs(STAGES[name][0].mid - inside[0]))
    config = U2NetConfig(variant=variant)
    if inputs[1] != config.in_channels:
        logger.warning(
            "%s has no config.json and %d input channels; mean and std 0.5 are a guess", path, inputs[1]
        )
        config = config.replace(in_channels=inputs[1], mean=(0.5,) * inputs[1], std=(0.5,) * inputs[1])
    if outputs[0] != config.out_channels:
        logger.warning(
            "%s has no config.json and %d output maps; they are treated as classes (softmax)",
            path,
            outputs[0],
        )
        config = config.replace(out_channels=outputs[0], activation="softmax")
    return config


BN_EPS = 1e-5
"""The epsilon of every batch norm in the official code."""

Float32: TypeAlias = NDArray[np.float32]


class Folded(NamedTuple):
    """The weight and bias of a convolution after its batch norm was folded into them."""

    weight: Float32
    """The weight, (out, in, height, width)."""
    bias: Float32
    """The bias, (out,)."""


def fold(config: U2NetConfig, state: Mapping[str, NDArray[np.generic]]) -> dict[str, Folded]:
    """Fold each batch norm into its convolution.

    Args:
        config: The config of the network.
        state: The network's tensors by official key. A fused network has none for batch norm.

    Returns:
        Every convolution in official order, by its official name, e.g. "stage1.rebnconvin" or "side1".

    Raises:
        ValueError: A variance is below 0, or a tensor holds NaN or infinity.
    """
    folded = {}
    for conv in convolutions(config).values():
        weight, bias = (np.asarray(state[f"{conv.key}.{name}"], np.float64) for name in ("weight", "bias"))
        if conv.norm is not None and f"{conv.norm}.weight" in state:
            gamma, beta, mean, var = (np.asarray(state[f"{conv.norm}.{name}"], np.float64) for name in NORM)
            if not (var + BN_EPS > 0).all():
                raise ValueError(f"{conv.norm}.running_var holds variances below 0; the weights are damaged")
            scale = gamma / np.sqrt(var + BN_EPS)
            weight, bias = weight * scale[:, None, None, None], (bias - mean) * scale + beta
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(f"{conv.name} holds NaN or infinity; the weights are damaged")
        folded[conv.name] = Folded(weight.astype(np.float32), bias.astype(np.float32))
    return folded


def count_parameters(config: U2NetConfig) -> int:
    """Count the trainable parameters of the network."""
    return sum(
        # a bias, and batch norm's scale and shift
        math.prod(conv.shape) + conv.out * (3 if conv.normed else 1)
        for conv in convolutions(config).values()
    )
