"""The network as an ONNX graph: it calculates what the network does, and says of itself what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import fill

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.topology import Folded, fold
from u2net_hub.config import Stage
from u2net_hub.engines.onnx_builder import OPSET, build_graph, output_names

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

STAGES = (
    Stage("stage1", 4, 4, 8),
    Stage("stage2", 3, 4, 8),
    Stage("stage3", 3, 4, 8, dilated=True),
    Stage("stage2d", 2, 4, 8),
    Stage("stage1d", 4, 4, 8),
)

CLOSE = 1e-4  # filled weights amplify the rounding of float32


def small(**changes: object) -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(64, 48)).replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def graph_of(network: U2Net, *, side_outputs: bool = True) -> ModelProto:
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    return build_graph(network.config, fold(network.config, state), side_outputs=side_outputs)


def run(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})


def photos(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [(33, 33), (64, 48), (97, 61), (40, 121)])
@pytest.mark.parametrize("n", [1, 3])
def test_every_map_is_that_of_torch_at_any_size_and_batch(n: int, size: tuple[int, int]) -> None:
    network, x = small(), photos(n, 3, *size)
    with torch.inference_mode():
        expected = [logits.sigmoid().numpy() for logits in network(torch.from_numpy(x))]
    found = run(graph_of(network), x)
    assert np.ptp(expected[0]) > 0.1
    assert len(found) == len(expected) == 4
    for y, wanted in zip(found, expected, strict=True):
        assert y.shape == wanted.shape
        assert np.abs(y - wanted).max() <= CLOSE


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 1, "mean": (0.5,), "std": (0.5,)},
        {"in_channels": 5, "mean": (0.5,) * 5, "std": (0.5,) * 5},
        {"out_channels": 3},
    ],
    ids=["grey", "five channels", "three maps"],
)
def test_other_channels_are_those_of_torch(changes: dict[str, object]) -> None:
    network = small(**changes)
    x = photos(2, network.config.in_channels, 64, 48)
    with torch.inference_mode():
        expected = [logits.sigmoid().numpy() for logits in network(torch.from_numpy(x))]
    for y, wanted in zip(run(graph_of(network), x), expected, strict=True):
        assert np.abs(y - wanted).max() <= CLOSE


def test_classes_go_through_softmax_inside_the_graph() -> None:
    network, x = small(out_channels=3, activation="softmax"), photos(2, 3, 64, 48)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x))[0].softmax(1)
    (found,) = run(graph_of(network, side_outputs=False), x)
    assert np.abs(found - expected.numpy()).max() <= CLOSE
    assert np.abs(found.sum(1) - 1).max() <= CLOSE


def test_maps_of_the_published_network_are_those_of_the_official_code(
    filled: Callable[[str], U2Net],
    assert_golden: Callable[[str, Callable[[Tensor], list[Tensor]], list[str]], None],
) -> None:
    model = graph_of(filled("u2netp"))
    assert_golden(
        "u2netp",
        lambda x: [torch.logit(torch.from_numpy(y)) for y in run(model, x.numpy())],
        ["64x64", "97x61"],
    )


def test_batch_norm_is_folded_by_hand() -> None:
    config = U2NetConfig(variant="custom", stages=STAGES)
    state = {key: value.numpy().copy() for key, value in U2Net(config).state_dict().items()}
    name = "stage1.rebnconvin"
    state[f"{name}.conv_s1.weight"][:] = 3
    state[f"{name}.conv_s1.bias"][:] = 1
    for key, value in (("weight", 2), ("bias", 0.25), ("running_mean", 0.5), ("running_var", 4 - 1e-5)):
        state[f"{name}.bn_s1.{key}"][:] = value
    weight, bias = fold(config, state)[name]
    assert np.allclose(weight, 3)  # 3 · 2 / √4
    assert np.allclose(bias, 0.75)  # (1 − 0.5) · 2 / √4 + 0.25
    assert weight.dtype == bias.dtype == np.float32


def test_a_side_has_no_batch_norm_to_fold() -> None:
    config = U2NetConfig(variant="custom", stages=STAGES)
    state = {key: value.numpy() for key, value in U2Net(config).state_dict().items()}
    weight, bias = fold(config, state)["side1"]
    assert np.array_equal(weight, state["side1.weight"])
    assert np.array_equal(bias, state["side1.bias"])


def test_nodes_are_those_that_the_network_needs_and_no_more() -> None:
    model = graph_of(small())
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Relu", "MaxPool", "Resize", "Shape", "Concat", "Add", "Sigmoid"}


def test_a_convolution_has_its_official_name() -> None:
    names = [node.name for node in graph_of(small()).graph.node if node.op_type == "Conv"]
    network = small()
    expected = {
        name.removesuffix(".conv_s1")
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    assert set(names) == expected
    assert len(names) == len(expected)


def test_the_graph_is_valid_onnx_of_the_stated_opset() -> None:
    model = graph_of(small())
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_batch_height_and_width_are_free() -> None:
    (value,) = graph_of(small()).graph.input
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]


def test_the_fused_map_comes_first_and_alone_unless_asked_otherwise() -> None:
    network = small()
    assert [value.name for value in graph_of(network, side_outputs=False).graph.output] == ["saliency"]
    assert [value.name for value in graph_of(network).graph.output] == ["saliency", "side1", "side2", "side3"]
    assert output_names(U2NetConfig()) == ["saliency", *(f"side{i}" for i in range(1, 7))]


def test_metadata_rebuilds_the_config() -> None:
    network = small(input_size=(72, 88), minmax="never")
    held = {entry.key: entry.value for entry in graph_of(network).metadata_props}
    assert U2NetConfig.from_dict(json.loads(held["config"])) == network.config


def test_metadata_tells_people_how_to_prepare_a_photo() -> None:
    held = {entry.key: entry.value for entry in graph_of(small()).metadata_props}
    for part in ("RGB", "64 x 48", "0.485", "0.229", "maximum"):
        assert part in held["preprocessing"]
    assert "33" in held["smallest_size"]
    assert json.loads(held["outputs"])[0] == "saliency"


def test_without_onnx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[onnx\]'"):
        build_graph(U2NetConfig(), {"side1": Folded(np.zeros(1, np.float32), np.zeros(1, np.float32))})
