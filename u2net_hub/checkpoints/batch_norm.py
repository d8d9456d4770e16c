"""Give batch norm back to convolutions into which it was folded, by arithmetic on a state dict.

Files for inference (ONNX, TFLite) hold convolutions with the batch norm folded in. When such a file is read
under the official keys, its batch norms are the identity. The network then makes the right maps, but it
cannot be trained as it is. In training mode a batch norm divides by the statistics of the batch, which the
identity does not match. And the filters have norms from .0004 to .8, for which no single learning rate is
right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from .topology import BN_EPS

SMALLEST_FILTER = 1e-6
"""Filters below this norm are scaled as if they had it."""

_CONV, _NORM = ".conv_s1", ".bn_s1"
_IDENTITY = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
# 1 and 1 - ε are both in use as the variance of an identity; float16 rounds either by less than 5e-4
_TOLERANCE = 1e-3


class Moments(NamedTuple):
    """Statistics of the output of one convolution over photos and pixels, per channel."""

    mean: Tensor
    """(out,)."""
    var: Tensor
    """Population variance, (out,), at least 0."""


def normalised_convolutions(state: Mapping[str, Tensor]) -> list[str]:
    """List the convolutions that a batch norm follows, e.g. "stage1.rebnconvin.conv_s1", in order."""
    ending = f"{_NORM}.running_var"
    return [key.removesuffix(ending) + _CONV for key in state if key.endswith(ending)]


def is_folded(state: Mapping[str, Tensor]) -> bool:
    """Tell whether the batch norms are the identity: weight 1, bias 0, mean 0, variance 1, in every channel.

    A new network, which has not been trained yet, has such norms too. A state without any norm is not folded.

    Args:
        state: Tensors under the official keys.
    """
    convs = normalised_convolutions(state)
    return bool(convs) and all(_is_identity(state, _norm_of(conv)) for conv in convs)


def unfold(state: Mapping[str, Tensor], moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Give convolutions a batch norm with the given statistics, and filters of norm 1; maps stay the same.

    In eval mode a norm maps the convolution's output x to k·x + c with k = weight / √(running_var + ε) and
    c = bias − k · running_mean. With the mean μ and variance v of x, the statistics become μ and v, the
    weight k · √(v + ε) and the bias c + k · μ, which is the same map. Batch norm leaves the scale of a filter
    free, so each filter and its bias are divided by its norm s, μ by s, v by s², and k is multiplied by s. If
    the moments are those of the training photos, the maps in training mode are close to those in eval mode.

    This is right for batch norms of any values, not only for the identity. It is calculated in float64.

    Args:
        state: Tensors under the official keys.
        moments: For each name in `normalised_convolutions(state)`, statistics of that convolution's output,
            its bias included.

    Returns:
        A new state with the same keys, shapes and types. Tensors that no norm belongs to are those of
        `state`.

    Raises:
        ValueError: `moments` lacks a convolution or has an unknown one; moments are of another shape, not
            finite, or have a variance below 0.
    """
    convs = normalised_convolutions(state)
    if set(convs) != set(moments):
        missing, unknown = sorted(set(convs) - set(moments)), sorted(set(moments) - set(convs))
        raise ValueError(
            f"got moments of {len(moments)} convolutions, expected those of the {len(convs)} that a norm "
            f"follows (missing: {missing[:3]}, unknown: {unknown[:3]})"
        )
    unfolded = dict(state)
    for conv in convs:
        for key, tensor in _unfold_one(state, conv, moments[conv]).items():
            unfolded[key] = tensor.to(state[key])
    return unfolded


def _unfold_one(state: Mapping[str, Tensor], conv: str, moments: Moments) -> dict[str, Tensor]:
    norm = _norm_of(conv)
    filters, conv_bias = state[f"{conv}.weight"].double(), state[f"{conv}.bias"].double()
    weight, bias, running_mean, running_var = (state[f"{norm}.{name}"].double() for name in _IDENTITY)
    mean, var = (values.to(weight) for values in moments)
    if mean.shape != weight.shape or var.shape != weight.shape:
        raise ValueError(
            f"moments of {conv} have the shapes {tuple(mean.shape)} and {tuple(var.shape)}, expected "
            f"{tuple(weight.shape)}, one value per channel"
        )
    if not (mean.isfinite().all() and var.isfinite().all() and (var >= 0).all()):
        raise ValueError(
            f"moments of {conv} are not finite, or have a variance below 0; if they were measured, the "
            "weights are damaged"
        )
    k = weight / (running_var + BN_EPS).sqrt()
    c = bias - k * running_mean
    s = filters.flatten(1).norm(dim=1).clamp_min(SMALLEST_FILTER)
    return {
        f"{conv}.weight": filters / s[:, None, None, None],
        f"{conv}.bias": conv_bias / s,
        f"{norm}.running_mean": mean / s,
        f"{norm}.running_var": var / s**2,
        f"{norm}.weight": k * s * (var / s**2 + BN_EPS).sqrt(),
        f"{norm}.bias": c + k * mean,
    }


def _norm_of(conv: str) -> str:
    return conv.removesuffix(_CONV) + _NORM


def _is_identity(state: Mapping[str, Tensor], norm: str) -> bool:
    return all(
        bool(((state[f"{norm}.{name}"].float() - value).abs() <= _TOLERANCE).all())
        for name, value in _IDENTITY.items()
    )
