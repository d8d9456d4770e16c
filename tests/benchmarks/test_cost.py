"""What a forward pass costs, against counts by hand and by torch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.benchmarks.cost import LayerCost, layer_costs, total
from u2net_hub.config import Stage

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
TINY = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32))


def costs_by_name(size: tuple[int, int]) -> dict[str, LayerCost]:
    return {cost.name: cost for cost in layer_costs(TINY, size)}


def test_a_convolution_costs_what_a_count_by_hand_says() -> None:
    first = costs_by_name((10, 20))["stage1.rebnconvin"]
    # 200 pixels, 3 channels in, 8 out, 3 × 3
    assert first.macs == 200 * 3 * 8 * 9 == 43_200
    assert first.activations == 200 * 3 + 200 * 8
    assert first.weights == 3 * 8 * 9 + 8


def test_a_layer_behind_pools_has_a_quarter_of_the_pixels_each_rounded_up() -> None:
    costs = costs_by_name((10, 19))
    assert costs["stage1.rebnconv2"].macs == 5 * 10 * 4 * 4 * 9
    assert costs["stage2.rebnconvin"].macs == 5 * 10 * 8 * 8 * 9


def test_the_decoder_reads_what_it_concatenates() -> None:
    costs = costs_by_name((10, 10))
    assert costs["stage1.rebnconv1d"].macs == 100 * (4 + 4) * 8 * 9
    assert costs["stage1d.rebnconvin"].macs == 100 * (8 + 8) * 8 * 9


@pytest.mark.parametrize(("variant", "size"), [("u2netp", (77, 50)), ("u2net", (320, 320))])
def test_convolutions_cost_what_torch_counts(variant: str, size: tuple[int, int]) -> None:
    config = U2NetConfig(variant=variant)
    with torch.device("meta"):
        network = U2Net(config).eval()
        x = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        network(x)
    macs, _ = total(layer_costs(config, size))
    assert 2 * macs == counter.get_total_flops()


@pytest.mark.parametrize("variant", ["u2netp", "u2net"])
def test_weights_are_those_of_the_network_without_its_batch_norms(variant: str) -> None:
    config = U2NetConfig(variant=variant)
    with torch.device("meta"):
        network = U2Net(config)
    of_convolutions = sum(
        p.numel() for m in network.modules() if isinstance(m, torch.nn.Conv2d) for p in m.parameters()
    )
    assert sum(cost.weights for cost in layer_costs(config)) == of_convolutions


def test_a_batch_reads_its_weights_once() -> None:
    costs = [LayerCost("a", 10, 3, 5), LayerCost("b", 20, 4, 6)]
    assert total(costs) == (30, 4 * (7 + 11))
    assert total(costs, 8, bytes_per_number=2) == (240, 2 * (8 * 7 + 11))
