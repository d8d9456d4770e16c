"""The network that a run begins with."""

from __future__ import annotations

from u2net_hub import TrainConfig
from u2net_hub.training.config import Phase
from u2net_hub.training.network import build_network


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
