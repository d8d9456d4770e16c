"""Weights between the start of a fine-tuning run and its current weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from torch import Tensor

from ..model import U2Net


class StartWeights:
    """The weights that a run began with. Checkpoints hold them, so that a resumed run still knows them.

    Args:
        network: The network before the first step, batch norm unfolded.
    """

    def __init__(self, network: U2Net) -> None:
        self._state = {key: value.detach().clone() for key, value in network.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights by key, for a checkpoint."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a checkpoint."""
        self._state = {key: value.to(self._state[key]) for key, value in state.items()}

    def towards(self, network: U2Net, part: float) -> U2Net:
        """Make a network whose weights lie between the start and `network`.

        Args:
            network: The network as it is now; it stays as it is.
            part: 0 for the start, 1 for the weights of `network`.
        """
        made = deepcopy(network)
        made.load_state_dict(between(self._state, network.state_dict(), part))
        return made


def between(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], part: float) -> dict[str, Tensor]:
    """Interpolate between the weights before and after fine-tuning: start + part · (tuned − start).

    After fine-tuning on few pairs, the weights half way are often better than those at either end, on new
    photos and on photos like those of the original training (Wortsman et al. 2022, arXiv 2109.01903). The
    filters of both states must have the same scale: unfold batch norm before training, and keep the unfolded
    start.

    Args:
        start: State before fine-tuning.
        tuned: State after it, with the same keys.
        part: 0 for the start, 1 for the tuned weights.

    Returns:
        A new state. Tensors of integers, which count batches, come from `tuned`.

    Raises:
        ValueError: The keys differ.
    """
    if start.keys() != tuned.keys():
        raise ValueError(
            f"got states of {len(start)} and {len(tuned)} tensors that differ in "
            f"{sorted(start.keys() ^ tuned.keys())[:3]}, expected the same keys"
        )
    return {
        key: start[key].lerp(value.to(start[key]), part) if value.is_floating_point() else value.clone()
        for key, value in tuned.items()
    }
