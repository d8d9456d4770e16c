"""The network as a list of convolutions, against the official checkpoints' keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import DATA

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.topology import (
    Conv,
    check_shapes,
    convolutions,
    count_parameters,
    fold,
    official_shapes,
    walk,
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


class Heights:
    """Operations on the height of a map, which remember the height at each convolution."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        self.resized = 0

    def conv(self, conv: Conv, x: int) -> int:
        self.at[conv.name] = x
        return x

    def pool(self, x: int) -> int:
        return -(-x // 2)

    def resize_like(self, x: int, like: int) -> int:
        self.resized += 1
        return like

    def concat(self, *values: int) -> int:
        assert len(set(values)) == 1
        return values[0]

    def add(self, name: str, residual: int, x: int) -> int:
        assert residual == x
        return x


def test_a_block_of_height_seven_goes_down_five_times() -> None:
    heights = Heights()
    walk(U2NetConfig(), heights, 320)
    down = [heights.at[f"stage1.rebnconv{i}"] for i in range(1, 8)]
    assert down == [320, 160, 80, 40, 20, 10, 10]  # RSU-7 of the paper, figure 2
    assert [heights.at[f"stage1.rebnconv{i}d"] for i in range(1, 7)] == down[:6]


def test_maps_are_enlarged_as_often_as_the_official_code_does_it() -> None:
    heights = Heights()
    walk(U2NetConfig(), heights, 320)
    # in RSU-7, 6, 5 and 4, down and up again; between the decoder's stages; the sides but the first
    assert heights.resized == 2 * (5 + 4 + 3 + 2) + 5 + 5


def test_a_folded_convolution_gives_what_batch_norm_after_it_gives() -> None:
    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))
    network = U2Net(U2NetConfig(variant="custom", stages=stages)).eval()
    draw = torch.Generator().manual_seed(0)
    # small variances, beside which the epsilon of batch norm counts
    state = {
        key: torch.rand(value.shape, generator=draw) * (1e-4 if key.endswith("running_var") else 1)
        for key, value in network.state_dict().items()
    }
    name = "stage0.rebnconvin"
    norm = [state[f"{name}.bn_s1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    x = torch.rand(1, 3, 8, 8, generator=draw)
    weight, bias = state[f"{name}.conv_s1.weight"], state[f"{name}.conv_s1.bias"]
    expected = F.batch_norm(F.conv2d(x, weight, bias), *norm, eps=1e-5)
    folded = fold(network.config, {key: value.numpy() for key, value in state.items()})[name]
    found = F.conv2d(x, torch.from_numpy(folded.weight), torch.from_numpy(folded.bias))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
