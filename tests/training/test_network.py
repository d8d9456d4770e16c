"""The network that a run begins with."""

from __future__ import annotations

import pytest

from u2net_hub import TrainConfig
from u2net_hub.training.config import Phase, phases_near
from u2net_hub.training.network import build_network, check_side_weights, warn_of_other_size


def test_a_new_network_has_the_input_size_of_the_last_phase() -> None:
    phases = (Phase(0.5, 64, 48), Phase(1, 96, 80))
    network = build_network(TrainConfig(data="d", out="o", model="u2netp", overrides={"phases": phases}))
    assert network.config.input_size == (96, 96)


def test_a_network_for_classes_has_one_output_for_each() -> None:
    network = build_network(TrainConfig(data="d", out="o", model="u2netp", classes=3))
    assert (network.config.out_channels, network.config.activation) == (3, "softmax")


def test_the_names_of_the_classes_are_in_the_config() -> None:
    named = build_network(TrainConfig(data="d", out="o", labels=("background", "shirt")))
    assert named.config.labels == ("background", "shirt")
    assert build_network(TrainConfig(data="d", out="o", classes=2)).config.labels is None


def test_a_use_size_far_from_the_training_size_is_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_other_size((168, 168), Phase(1, 320, 288))
    assert "pictures of 320 × 320 px but used at 168 × 168 px" in caplog.text
    assert "--crop near 151, or --input-size 320" in caplog.text


@pytest.mark.parametrize("size", [(320, 320), (288, 288), (400, 400), (320, 480)])
def test_a_use_size_near_the_training_size_is_not_said(
    size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_other_size(size, Phase(1, 320, 288))
    assert not caplog.text


@pytest.mark.parametrize("side", [32, 96, 168, 320, 1024])
def test_the_sizes_of_fine_tuning_are_near_the_use_size(side: int, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_other_size((side, side), phases_near(side)[-1])
    assert not caplog.text


def test_weights_of_the_outputs_are_one_for_each() -> None:
    network = build_network(TrainConfig(data="d", out="o"))
    check_side_weights(network, (1.0,) * 7)
    with pytest.raises(ValueError, match="side_weights are 2 numbers, expected 7"):
        check_side_weights(network, (1.0, 0.5))
