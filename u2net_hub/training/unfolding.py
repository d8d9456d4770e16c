"""Statistics of convolutions on training photos, and unfolding a network's batch norms with them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ..checkpoints import Moments, normalised_convolutions, unfold
from ..model import U2Net
from .batches import Pictures, normalise
from .config import Phase

logger = logging.getLogger(__name__)

PHOTOS = 256
"""The largest number of photos that statistics are measured on."""


def unfold_batch_norms(
    network: U2Net, pictures: Pictures, phase: Phase, *, photos: int = PHOTOS, batch_size: int = 8
) -> int:
    """Give a network with folded batch norms statistics measured on training photos; its eval function stays.

    Photos are spread evenly over the set and seen as in training: at the size that `phase` loads, cut to the
    centre of the size that it crops. In eval mode the maps stay, and in training mode, on batches of 16, they
    are close. With very few photos the maps in training mode may differ more, and those in eval mode stay all
    the same.

    Args:
        network: Changed in place; its mode and its device stay.
        pictures: The training set, of any size.
        phase: The phase that training begins with.
        photos: The largest number of photos to measure on.
        batch_size: How many photos the network sees at once; it changes memory and time, not the result.

    Returns:
        How many photos were measured on.

    Raises:
        ValueError: there are no photos, or an output is not finite.
    """
    used = min(photos, len(pictures))
    if used < 1:
        raise ValueError("got no photos to measure batch norm on, expected at least one")
    places = torch.linspace(0, len(pictures) - 1, used).round().long()
    chosen = Pictures(pictures.images[places].cpu(), pictures.masks[places].cpu())
    seen = chosen.resized((phase.load, phase.load)).images
    corner = (phase.load - phase.crop) // 2
    seen = seen[:, corner : corner + phase.crop, corner : corner + phase.crop]
    device = next(network.parameters()).device
    batches = (
        normalise(seen[i : i + batch_size].to(device), network.config) for i in range(0, used, batch_size)
    )
    state = network.state_dict()
    network.load_state_dict(unfold(state, measure(network, batches)))
    logger.info(
        "batch norm was folded into the convolutions: unfolded with statistics of %d training photos at "
        "%d px; the maps stay as they are",
        *(used, phase.crop),
    )
    return used


@torch.inference_mode()
def measure(network: U2Net, batches: Iterable[Tensor]) -> dict[str, Moments]:
    """Mean and variance of the output of each convolution that a batch norm follows, over photos and pixels.

    One pass in eval mode and in float32, since unfolding keeps every layer's function. Moments of batches are
    combined in float64 (Chan, Golub and LeVeque 1979), so that dead filters, with variances of 1e-10, are
    measured too.

    Args:
        network: Left as it is, its mode included.
        batches: Normalised photos, each float32 (B, 3, H, W), on the network's device.

    Returns:
        Official name of the convolution -> moments, float64, on the network's device.

    Raises:
        ValueError: there are no batches.
    """
    sums: dict[str, _Sum] = {name: _Sum() for name in normalised_convolutions(network.state_dict())}
    hooks = [network.get_submodule(name).register_forward_hook(partial(_add, sums[name])) for name in sums]
    # a frozen norm is in eval mode within a network in training mode
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for x in batches:
            with torch.autocast(x.device.type, enabled=False):
                network(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    if not all(found.n for found in sums.values()):
        raise ValueError("got no photos to measure batch norm on, expected at least one")
    return {name: Moments(found.mean, found.squares / found.n) for name, found in sums.items()}


class _Sum:
    """Number, mean and sum of squared differences from the mean, of what was added."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, x: Tensor) -> None:
        n = x.numel() // x.shape[1]
        var, mean = (t.double() for t in torch.var_mean(x, (0, 2, 3), correction=0))
        if not self.n:
            self.n, self.mean, self.squares = n, mean, var * n
            return
        total, shift = self.n + n, mean - self.mean
        self.mean = self.mean + shift * (n / total)
        self.squares = self.squares + var * n + shift**2 * (self.n * n / total)
        self.n = total


def _add(found: _Sum, module: nn.Module, inputs: object, output: Tensor) -> None:
    found.add(output.float())
