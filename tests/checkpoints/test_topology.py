"""The network as a list of convolutions, against the official checkpoints' keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DATA

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.topology import (
    check_shapes,
    convolutions,
    count_parameters,
    official_shapes,
)
from u2net_hub.config import Stage


@pytest.mark.parametrize("variant", ["u2net", "u2netp"])
def test_keys_order_and_shapes_are_those_of_the_official_checkpoint(variant: str) -> None:
    official = json.loads((DATA / f"{variant}_keys.json").read_text())
    shapes = {key: list(shape) for key, shape in official_shapes(U2NetConfig(variant=variant)).items()}
    assert list(shapes.items()) == list(official.items())


def test_keys_and_shapes_of_a_custom_table_are_those_of_its_network() -> None:
    table = (
        Stage("stage1", 4, 3, 5), Stage("deep", 2, 4, 8, dilated=True), Stage("stage3", 3, 2, 7),
        Stage("stage2d", 2, 6, 9), Stage("stage1d", 3, 4, 6),
    )  # fmt: skip
    config = U2NetConfig(
        variant="custom", stages=table, in_channels=2, mean=(0.5, 0.5), std=(0.5, 0.5), out_channels=4
    )
    with torch.device("meta"):
        state = U2Net(config).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == official_shapes(config)


def test_what_feeds_a_convolution_tells_it_from_all_others() -> None:
    # 11 stages: 7 + 6 + 5 + 4 + 4 + 4 down and up again, each with its own; then 6 sides and the fusion
    rsu = [2 * L for L in (7, 6, 5, 4, 4, 4, 4, 4, 5, 6, 7)]
    assert len(convolutions(U2NetConfig())) == sum(rsu) + 6 + 1 == 119


def test_variant_is_told_from_the_shapes_alone() -> None:
    for variant in ("u2net", "u2netp"):
        config = U2NetConfig(variant=variant)
        assert check_shapes(Path("weights.pth"), official_shapes(config), None) == config


def test_every_convolution_has_the_kernel_and_dilation_of_the_network() -> None:
    with torch.device("meta"):
        network = U2Net()
    for conv in convolutions(U2NetConfig()).values():
        layer = network.get_submodule(conv.key)
        assert isinstance(layer, torch.nn.Conv2d)
        assert (layer.kernel_size[0], layer.dilation[0]) == (conv.kernel, conv.dilation)


def test_parameters_are_those_of_the_paper() -> None:
    assert count_parameters(U2NetConfig(variant="u2net")) == 44_009_869
    assert count_parameters(U2NetConfig(variant="u2netp")) == 1_131_181
