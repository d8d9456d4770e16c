"""Unfolding batch norm on given statistics: the function stays, filters get norm 1, damaged input raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.batch_norm import Moments, is_folded, normalised_convolutions, unfold

CONV, NORM = "stage1.rebnconvin.conv_s1", "stage1.rebnconvin.bn_s1"


def random_moments(state: dict[str, Tensor]) -> dict[str, Moments]:
    """Statistics that fit no photo: the function must stay for any."""
    generator = torch.Generator().manual_seed(0)
    return {
        conv: Moments(
            torch.randn(len(state[f"{conv}.bias"]), generator=generator, dtype=torch.float64),
            torch.rand(len(state[f"{conv}.bias"]), generator=generator, dtype=torch.float64) + 0.1,
        )
        for conv in normalised_convolutions(state)
    }


def one_block(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The state of one folded convolution."""
    n = len(weight)
    return {
        f"{CONV}.weight": weight,
        f"{CONV}.bias": bias,
        f"{NORM}.weight": torch.ones(n),
        f"{NORM}.bias": torch.zeros(n),
        f"{NORM}.running_mean": torch.zeros(n),
        f"{NORM}.running_var": torch.ones(n) - 1e-5,
        f"{NORM}.num_batches_tracked": torch.tensor(0),
    }


def outputs(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The block's output by torch's own functions, without its ReLU."""
    x = F.conv2d(x, state[f"{CONV}.weight"], state[f"{CONV}.bias"], padding=1)
    statistics = (state[f"{NORM}.running_mean"], state[f"{NORM}.running_var"])
    return F.batch_norm(x, *statistics, state[f"{NORM}.weight"], state[f"{NORM}.bias"])


@pytest.mark.parametrize("variant", ["u2net", "u2netp"])
def test_the_official_network_has_112_norms(variant: str, filled: Callable[[str], U2Net]) -> None:
    assert len(normalised_convolutions(filled(variant).state_dict())) == 112


def test_trained_norms_are_not_taken_for_folded_ones(filled: Callable[[str], U2Net]) -> None:
    assert not is_folded(filled("u2netp").state_dict())


def test_the_identity_with_and_without_epsilon_is_folded() -> None:
    state = one_block(torch.rand(4, 3, 3, 3), torch.zeros(4))
    assert is_folded(state)
    assert is_folded(state | {f"{NORM}.running_var": torch.ones(4)})
    assert is_folded({key: value.half() for key, value in state.items()})


def test_one_channel_that_is_no_identity_makes_a_norm_unfolded() -> None:
    state = one_block(torch.rand(4, 3, 3, 3), torch.zeros(4))
    state[f"{NORM}.bias"][2] = 0.1
    assert not is_folded(state)


def test_a_state_without_norms_is_not_folded() -> None:
    assert not is_folded({"side1.weight": torch.ones(1, 16, 3, 3)})


def test_an_unfolded_state_is_not_folded() -> None:
    state = one_block(torch.rand(4, 3, 3, 3), torch.zeros(4))
    assert not is_folded(unfold(state, random_moments(state)))


@pytest.mark.parametrize("variant", ["u2net", "u2netp"])
def test_any_statistics_leave_the_maps_as_they_are(
    variant: str, filled: Callable[[str], U2Net], rng: np.random.Generator
) -> None:
    network = filled(variant)
    state = network.state_dict()
    other = U2Net(U2NetConfig(variant=variant)).eval()
    other.load_state_dict(unfold(state, random_moments(state)))
    x = torch.from_numpy(rng.standard_normal((1, 3, 64, 80), np.float32))
    with torch.inference_mode():
        for before, after in zip(network(x), other(x), strict=True):
            assert (before.sigmoid() - after.sigmoid()).abs().mean() <= 1e-5


def test_filters_get_norm_one(filled: Callable[[str], U2Net]) -> None:
    state = filled("u2netp").state_dict()
    unfolded = unfold(state, random_moments(state))
    for conv in normalised_convolutions(state):
        norms = unfolded[f"{conv}.weight"].flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_heads_and_counters_stay(filled: Callable[[str], U2Net]) -> None:
    state = filled("u2netp").state_dict()
    unfolded = unfold(state, random_moments(state))
    assert list(unfolded) == list(state)
    for key, tensor in state.items():
        assert unfolded[key].dtype == tensor.dtype
        if key.startswith(("side", "outconv")) or key.endswith("num_batches_tracked"):
            assert torch.equal(unfolded[key], tensor)


def test_a_channel_by_hand() -> None:
    # filter of norm 2, k = 1, c = 0, μ = 3, v = 5: in units of the scaled filter μ/s = 1.5 and v/s² = 1.25
    weight = torch.zeros(1, 3, 3, 3)
    weight[0, 0, 1, 1] = 2.0
    state = one_block(weight, torch.tensor([4.0]))
    moments = {CONV: Moments(torch.tensor([3.0]), torch.tensor([5.0]))}
    unfolded = unfold(state, moments)
    assert unfolded[f"{CONV}.weight"][0, 0, 1, 1] == 1
    assert unfolded[f"{CONV}.bias"].item() == pytest.approx(2.0)
    assert unfolded[f"{NORM}.running_mean"].item() == pytest.approx(1.5)
    assert unfolded[f"{NORM}.running_var"].item() == pytest.approx(1.25)
    assert unfolded[f"{NORM}.weight"].item() == pytest.approx(2 * (1.25 + 1e-5) ** 0.5)
    assert unfolded[f"{NORM}.bias"].item() == pytest.approx(3.0)


@pytest.mark.parametrize("scale", [4e-4, 1e-8, 0.0])
def test_dead_filters_keep_their_output(scale: float, rng: np.random.Generator) -> None:
    # the authors' file has filters of norm .0004 beside .8, with variances of 1e-10
    weight = torch.from_numpy(rng.standard_normal((4, 3, 3, 3), np.float32))
    weight[1] *= scale / weight[1].norm()
    state = one_block(weight, torch.from_numpy(rng.standard_normal(4, np.float32)))
    x = torch.from_numpy(rng.standard_normal((2, 3, 12, 12), np.float32))
    before = outputs(state, x)
    var, mean = torch.var_mean(before.double(), (0, 2, 3), correction=0)
    unfolded = unfold(state, {CONV: Moments(mean, var)})
    assert all(tensor.isfinite().all() for tensor in unfolded.values())
    torch.testing.assert_close(outputs(unfolded, x), before, rtol=1e-5, atol=2e-6)
    assert unfolded[f"{CONV}.weight"][1].norm() <= 1 + 1e-5


def test_missing_moments_raise(filled: Callable[[str], U2Net]) -> None:
    state = filled("u2netp").state_dict()
    moments = random_moments(state)
    del moments[CONV]
    with pytest.raises(
        ValueError, match=r"got moments of 111 convolutions, expected those of the 112 .*rebnconvin"
    ):
        unfold(state, moments)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        (Moments(torch.zeros(3), torch.ones(3)), "expected \\(4,\\), one value per channel"),
        (Moments(torch.full((4,), torch.nan), torch.ones(4)), "not finite"),
        (Moments(torch.zeros(4), -torch.ones(4)), "variance below 0"),
    ],
)
def test_wrong_moments_raise(moments: Moments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unfold(one_block(torch.rand(4, 3, 3, 3), torch.zeros(4)), {CONV: moments})


def test_the_authors_file_is_folded(shared: Path) -> None:
    assert is_folded(load_file(shared / "reference" / "u2netp_author.safetensors"))
