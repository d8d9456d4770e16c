"""Unfolding with measured statistics: maps stay in eval mode and are close in training mode."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.batch_norm import is_folded, normalised_convolutions
from u2net_hub.config import Stage
from u2net_hub.datasets import SaliencyDataset
from u2net_hub.training.batches import Pictures, normalise
from u2net_hub.training.config import Phase
from u2net_hub.training.unfolding import measure, unfold_batch_norms

SMALL = Phase(1.0, 72, 64)
TINY = (Stage("stage1", 3, 4, 6), Stage("stage2", 2, 4, 6, dilated=True), Stage("stage1d", 3, 4, 6))


def folded(config: U2NetConfig) -> U2Net:
    """A network with identity norms and random filters, scaled so that each layer keeps its input's size."""
    torch.manual_seed(0)
    network = U2Net(config).eval()
    with torch.no_grad():
        for name in normalised_convolutions(network.state_dict()):
            conv = network.get_submodule(name)
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            # residual sums double a map stage by stage; trained networks do not grow so
            conv.weight *= 0.7
            torch.nn.init.normal_(conv.bias, std=0.1)
    return network


def photos(n: int, side: int = 72) -> Pictures:
    """Photos of soft blobs in random colours, as smooth as real ones at this size."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.integers(0, 256, (n, 3, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 255)
    images = smooth.permute(0, 2, 3, 1).round().to(torch.uint8)
    return Pictures(images, images[..., 0].contiguous())


def mean_difference(before: U2Net, after: U2Net, x: torch.Tensor) -> float:
    """Of the fused maps."""
    with torch.no_grad():
        return float((before(x)[0].sigmoid() - after(x)[0].sigmoid()).abs().mean())


@pytest.mark.parametrize("variant", ["u2net", "u2netp"])
def test_unfolding_keeps_the_maps_of_a_folded_network(variant: str) -> None:
    before = folded(U2NetConfig(variant=variant))
    after = deepcopy(before)
    pictures = photos(3)
    assert is_folded(before.state_dict())
    assert unfold_batch_norms(after, pictures, SMALL) == 3
    assert not is_folded(after.state_dict())
    x = normalise(photos(2).images, before.config)
    assert mean_difference(before, after, x) <= 1e-5


def test_training_mode_is_close_on_a_batch_of_16() -> None:
    before = folded(U2NetConfig(variant="custom", stages=TINY, input_size=(64, 64)))
    after = deepcopy(before)
    pictures = photos(64)
    unfold_batch_norms(after, pictures, SMALL)
    x = normalise(pictures.images[:16, 4:68, 4:68], before.config)
    assert mean_difference(before, after.train(), x) <= 0.005


def test_training_mode_of_a_folded_network_is_far() -> None:
    # why unfolding is there: the identity's statistics are not those of a batch
    network = folded(U2NetConfig(variant="custom", stages=TINY, input_size=(64, 64)))
    x = normalise(photos(16).images, network.config)
    assert mean_difference(network, deepcopy(network).train(), x) > 0.05


def test_moments_are_those_of_all_photos_at_once(tiny: Callable[[int], U2Net]) -> None:
    network = tiny(0)
    x = normalise(photos(7, 32).images, network.config)
    whole, parts = measure(network, [x]), measure(network, x.split(3))
    seen: list[torch.Tensor] = []
    name = "stage0.rebnconvin.conv_s1"
    hook = network.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        network(x)
    hook.remove()
    values = seen[0].double().transpose(0, 1).flatten(1)
    for moments in (whole[name], parts[name]):
        torch.testing.assert_close(moments.mean, values.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moments.var, values.var(1, correction=0), rtol=1e-5, atol=1e-9)


def test_a_dead_filter_is_measured_and_harmless(tiny: Callable[[int], U2Net]) -> None:
    before = folded(tiny(0).config)
    with torch.no_grad():
        conv = before.get_submodule("stage0.rebnconvin.conv_s1")
        conv.weight[1] *= 4e-4 / conv.weight[1].norm()
        conv.weight[2] = 0
    after = deepcopy(before)
    unfold_batch_norms(after, photos(8), SMALL)
    assert all(tensor.isfinite().all() for tensor in after.state_dict().values())
    x = normalise(photos(2).images, before.config)
    assert mean_difference(before, after, x) <= 1e-5


def test_one_photo_is_enough_to_keep_the_maps(tiny: Callable[[int], U2Net]) -> None:
    before = folded(tiny(0).config)
    after = deepcopy(before)
    assert unfold_batch_norms(after, photos(1), SMALL) == 1
    assert mean_difference(before, after, normalise(photos(2).images, before.config)) <= 1e-5


def test_no_photos_raise(tiny: Callable[[int], U2Net]) -> None:
    with pytest.raises(ValueError, match="got no photos"):
        unfold_batch_norms(tiny(0), photos(2), SMALL, photos=0)
    with pytest.raises(ValueError, match="got no photos"):
        measure(tiny(0), [])


def test_photos_are_limited_and_spread_over_the_set(tiny: Callable[[int], U2Net]) -> None:
    # the second half of the set is black; a prefix of it alone would miss that
    pictures = photos(40)
    half_black = Pictures(pictures.images.clone(), pictures.masks)
    half_black.images[20:] = 0
    first, second = deepcopy(tiny(0)), deepcopy(tiny(0))
    assert unfold_batch_norms(first, pictures, SMALL, photos=10) == 10
    unfold_batch_norms(second, half_black, SMALL, photos=10)
    key = "stage0.rebnconvin.bn_s1.running_mean"
    assert not torch.allclose(first.state_dict()[key], second.state_dict()[key])


def test_modes_and_frozen_norms_stay_as_they_were(tiny: Callable[[int], U2Net]) -> None:
    network = tiny(0).train()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.eval().requires_grad_(False)
    unfold_batch_norms(network, photos(4), SMALL)
    assert network.training
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert all(p.requires_grad for p in network.outconv.parameters())


def test_new_heads_for_classes_stay(tiny: Callable[[int], U2Net]) -> None:
    config = tiny(0).config.replace(out_channels=3, activation="softmax", minmax="never")
    before = folded(config)
    after = deepcopy(before)
    unfold_batch_norms(after, photos(4), SMALL)
    assert torch.equal(before.outconv.weight, after.outconv.weight)
    x = normalise(photos(2).images, config)
    with torch.no_grad():
        assert (before(x)[0].softmax(1) - after(x)[0].softmax(1)).abs().mean() <= 1e-5


def test_the_authors_network_is_close_in_training_mode(shared: Path) -> None:
    # other photos than the measured ones have statistics of their own, which move single maps by more
    before = U2Net.from_pretrained(shared / "reference" / "u2netp_author.safetensors").eval()
    after = deepcopy(before)
    dataset = SaliencyDataset(shared / "data" / "own-150")
    pictures = Pictures.read(dataset.subset(range(8)), (96, 96))
    unfold_batch_norms(after, pictures, Phase(1.0, 96, 96))
    x = normalise(pictures.images, before.config)
    assert mean_difference(before, after, x) <= 1e-5
    assert mean_difference(before, after.train(), x) <= 0.005
