"""The drawing of the network: what it says of each stage."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.config import STAGES, Stage
from u2net_hub.demo.anatomy import draw_anatomy, receptive_fields, stage_facts
from u2net_hub.demo.models import Models
from u2net_hub.model import RSU


def measured(stages: tuple[Stage, ...], side: int) -> int:
    """The width of the input that changes the middle of the last stage's output."""
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    y, channels = x, 1
    for i, stage in enumerate(stages):
        block = RSU(channels, stage).eval()
        for name, parameter in block.named_parameters():
            torch.nn.init.constant_(parameter, 0.1 if name.endswith("weight") else 1)  # nothing cancels out
        y = block(torch.nn.functional.max_pool2d(y, 2) if i else y)
        channels = stage.out
    middle = y.shape[-1] // 2
    y[0, 0, middle, middle].backward()
    assert x.grad is not None
    columns = (x.grad[0, 0] != 0).any(0).nonzero()
    return int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(
    "stages",
    [
        (Stage("a", 3, 1, 1),),
        (Stage("a", 4, 1, 1),),
        (Stage("a", 3, 1, 1, dilated=True),),
        (Stage("a", 3, 1, 1), Stage("b", 3, 1, 1)),
    ],
)
def test_a_receptive_field_is_the_one_that_gradients_show(stages: tuple[Stage, ...]) -> None:
    computed = receptive_fields(stages)[-1]
    # the grid of the poolings decides over less than one step of the deepest level
    assert computed - 2 ** (stages[-1].L + len(stages) - 1) <= measured(stages, 256) <= computed


def test_the_receptive_field_of_a_dilated_block_by_hand() -> None:
    # 3 × 3 convolutions of dilation 1, then 1, 2, 4, 8, then 4, 2, 1
    expected = 1 + 2 * (1 + (1 + 2 + 4 + 8) + (4 + 2 + 1))
    assert receptive_fields([Stage("a", 4, 1, 1, dilated=True)]) == [expected]


def test_the_facts_of_u2netp_are_those_of_the_network() -> None:
    network = U2Net(U2NetConfig(variant="u2netp"))
    counts = [sum(p.numel() for p in getattr(network, stage.name).parameters()) for stage in STAGES["u2netp"]]
    facts = stage_facts(network.config, counts)
    assert [each.name for each in facts] == [
        "En_1", "En_2", "En_3", "En_4", "En_5", "En_6", "De_5", "De_4", "De_3", "De_2", "De_1",
    ]  # fmt: skip
    assert [each.size[0] for each in facts] == [320, 160, 80, 40, 20, 10, 20, 40, 80, 160, 320]
    assert [each.block for each in facts[:6]] == ["RSU-7", "RSU-6", "RSU-5", "RSU-4", "RSU-4F", "RSU-4F"]
    sides = 1_131_181 - sum(each.parameters for each in facts)  # the convolutions of the sides and the fusion
    assert sides == 6 * (64 * 9 + 1) + 6 + 1


def test_each_map_stands_beside_its_stage(tiny_source: object) -> None:
    model = Models([str(tiny_source)], device="cpu").get("tiny0")
    assert "<img" not in draw_anatomy(model, [])
    colours = ["#010101", "#808080", "#fefefe"]
    html = draw_anatomy(model, [Image.new("RGB", (8, 8), colour) for colour in colours])
    assert re.findall(r'<img alt="([^"]+)"', html) == ["Fused", "Side 1", "Side 2"]
    assert re.findall(r"<b>(En_\d|De_\d|Side \d|Fused)</b>", html) == [
        "Fused", "En_1", "De_1", "Side 1", "En_2", "Side 2",
    ]  # fmt: skip
