"""ONNX files of the family -> weights, held against the maps of the official code on those weights."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill
from onnx_export import export
from torch import Tensor, nn

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.onnx_reader import check_onnx
from u2net_hub.checkpoints.readers import read_checkpoint
from u2net_hub.config import Stage

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

TABLE = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))


@pytest.fixture(scope="session")
def exported(
    filled: Callable[[str], U2Net], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., onnx.ModelProto]:
    """Variant -> an export of its filled network; a copy, to be changed at will."""

    @cache
    def make(variant: str, folded: bool) -> onnx.ModelProto:
        return export(tmp_path_factory.mktemp("onnx") / "network.onnx", filled(variant), folded=folded)

    def copy(variant: str = "u2netp", folded: bool = True) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(make(variant, folded))
        return model

    return copy


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(model: onnx.ModelProto) -> Path:
        onnx.save(model, tmp_path / "anything.onnx")
        return tmp_path / "anything.onnx"

    return write


def make_anonymous(model: onnx.ModelProto) -> None:
    """Rename every node, initializer and value, and shuffle the initializers."""
    graph = model.graph
    chance = random.Random(0)
    values = {name for node in graph.node for name in (*node.input, *node.output) if name}
    numbers = chance.sample(range(10**6), len(values))
    names = {name: f"v{number}" for name, number in zip(sorted(values), numbers, strict=True)}
    for node in graph.node:
        node.name = f"n{chance.randrange(10**9)}"
        node.doc_string = ""
        node.input[:] = [names.get(name, "") for name in node.input]
        node.output[:] = [names.get(name, "") for name in node.output]
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = names[value.name]
    del graph.value_info[:]
    weights = list(graph.initializer)
    chance.shuffle(weights)
    del graph.initializer[:]
    graph.initializer.extend(weights)


def weights_to_constant_nodes(model: onnx.ModelProto) -> None:
    graph = model.graph
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer
    ]
    nodes = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.node.extend([*constants, *nodes])


def identities_everywhere(model: onnx.ModelProto) -> None:
    """An Identity behind every ReLU, and before every weight of a convolution."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            for i in (1, 2):
                nodes.append(helper.make_node("Identity", [node.input[i]], [f"{node.output[0]}_w{i}"]))
                node.input[i] = f"{node.output[0]}_w{i}"
        nodes.append(node)
        if node.op_type == "Relu":
            nodes.append(helper.make_node("Identity", [f"{node.output[0]}_"], [node.output[0]]))
            node.output[0] += "_"
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def only_the_fused_map(model: onnx.ModelProto) -> None:
    del model.graph.output[1:]


# What is read


@pytest.mark.parametrize(("variant", "outputs"), [("u2net", 7), ("u2netp", 7), ("u2netp", 1)])
def test_anonymous_folded_file_gives_the_maps_of_the_official_code(
    variant: str,
    outputs: int,
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
    assert_golden: Callable[..., None],
) -> None:
    model = exported(variant)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert len(model.graph.output) == 7
    make_anonymous(model)
    if outputs == 1:
        only_the_fused_map(model)
    network = U2Net.from_pretrained(save(model))
    assert network.config == U2NetConfig(variant=variant)
    assert not network.training
    assert_golden(variant, network, ("64x64", "97x61"))


@pytest.mark.parametrize("change", [weights_to_constant_nodes, identities_everywhere])
def test_file_of_another_make_gives_the_same_maps(
    change: Callable[[onnx.ModelProto], None],
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
    assert_golden: Callable[..., None],
) -> None:
    model = exported()
    change(model)
    make_anonymous(model)
    assert_golden("u2netp", U2Net.from_pretrained(save(model)), ("97x61",))


def test_nodes_in_any_order_give_the_same_weights(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported()
    ordered = read_checkpoint(save(model)).state
    nodes = list(model.graph.node)
    random.Random(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    shuffled = read_checkpoint(save(model)).state
    assert all(torch.equal(value, shuffled[key]) for key, value in ordered.items())


def test_batch_norm_that_is_not_folded_comes_back_as_it_was(
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
    filled: Callable[[str], U2Net],
) -> None:
    model = exported(folded=False)
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == 112
    make_anonymous(model)
    network = U2Net.from_pretrained(save(model))
    state = filled("u2netp").state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_other_epsilon_of_a_batch_norm_is_kept_in_the_variance(
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
    filled: Callable[[str], U2Net],
) -> None:
    model = exported(folded=False)
    first = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    next(a for a in first.attribute if a.name == "epsilon").f = 1e-3
    state = U2Net.from_pretrained(save(model)).state_dict()
    key = "stage1.rebnconvin.bn_s1.running_var"
    assert torch.allclose(state[key], filled("u2netp").state_dict()[key] + 1e-3 - 1e-5, rtol=0, atol=1e-7)


def test_batch_norm_in_the_place_of_a_folded_one_changes_no_bit(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    norm = U2Net.from_pretrained(save(exported())).get_submodule("stage3.rebnconv2.bn_s1")
    x = torch.randn(1, 16, 50, 50) * 1000
    assert torch.equal(norm(x), x)


def test_notes_say_what_made_the_file(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported()
    model.producer_name, model.producer_version = "pytorch", "1.7"
    assert read_checkpoint(save(model)).notes == {
        "format": "ONNX",
        "precision": "float32",
        "made_by": "pytorch 1.7",
    }


def test_custom_table_and_classes_load_with_their_config(tmp_path: Path) -> None:
    config = U2NetConfig(
        variant="custom", stages=TABLE, out_channels=4, activation="softmax", labels=("a", "b", "c", "d")
    )
    network = U2Net(config).eval()
    network.load_state_dict(fill(network.state_dict()))
    export(tmp_path / "classes.onnx", network, activation=lambda y: y.softmax(1))
    loaded = U2Net.from_pretrained(tmp_path / "classes.onnx", config=config)
    x = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        assert torch.allclose(loaded(x)[0], network(x)[0], atol=1e-4)


@pytest.fixture(scope="session")
def of_two_maps(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """An export of a network with two classes, whose last nodes are softmax."""
    network = U2Net(U2NetConfig(out_channels=2, activation="softmax")).eval()
    return export(
        tmp_path_factory.mktemp("onnx") / "classes.onnx", network, activation=lambda y: y.softmax(1)
    )


@pytest.mark.parametrize(
    ("op", "expected"),
    [("Sigmoid", "sigmoid"), ("Softmax", "softmax"), ("Identity", "softmax")],
    ids=["sigmoid", "softmax", "logits"],
)
def test_activation_of_several_maps_is_that_of_the_graph(
    op: str, expected: str, of_two_maps: onnx.ModelProto, save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(of_two_maps)
    last = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert [node.output[0] for node in last] == [value.name for value in model.graph.output]
    for node in last:
        node.op_type = op
        if op != "Softmax":
            del node.attribute[:]
    assert U2Net.from_pretrained(save(model)).config.activation == expected


def test_reference_evaluator_checks_where_onnxruntime_is_not_installed(
    save: Callable[[onnx.ModelProto], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # a small network, because this evaluator takes a second for the whole one
    config = U2NetConfig(variant="custom", stages=TABLE)
    network = U2Net(config).eval()
    network.load_state_dict(fill(network.state_dict()))
    model = export(tmp_path / "small.onnx", network)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    loaded = U2Net.from_pretrained(save(model), config=config)
    x = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        assert torch.allclose(loaded(x)[0].sigmoid(), network(x)[0].sigmoid(), atol=1e-4)
    change_resize(model)
    with pytest.raises(ValueError, match="does not calculate what U²-Net does"):
        U2Net.from_pretrained(save(model), config=config)


def test_without_onnx_the_remedy_is_named(
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save(exported())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[onnx\]'"):
        read_checkpoint(path)


# What is refused: graphs that are not the network


def first(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == op)


def change_resize(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode":
                attribute.s = b"align_corners"


def change_dilation(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("dilations", "pads") and list(attribute.ints)[:2] == [2, 2]:
                attribute.ints[:] = [1] * len(attribute.ints)


def leave_out_a_relu(model: onnx.ModelProto) -> None:
    first(model, "Relu").op_type = "Identity"


def average_in_the_place_of_maximum(model: onnx.ModelProto) -> None:
    pool = first(model, "MaxPool")
    pool.op_type = "AveragePool"
    keep = [a for a in pool.attribute if a.name not in ("dilations", "storage_order")]
    del pool.attribute[:]
    pool.attribute.extend(keep)


def leaky_relu(model: onnx.ModelProto) -> None:
    first(model, "Relu").op_type = "LeakyRelu"


def scale_a_map(model: onnx.ModelProto) -> None:
    relu = first(model, "Relu")
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1.5]), "scale"))
    scaled = helper.make_node("Mul", [f"{relu.output[0]}_", "scale"], [relu.output[0]])
    relu.output[0] += "_"
    model.graph.node.insert(list(model.graph.node).index(relu) + 1, scaled)


def invert_the_output(model: onnx.ModelProto) -> None:
    name = model.graph.output[0].name
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "one"))
    model.graph.node.append(helper.make_node("Sub", ["one", name], ["inverted"]))
    model.graph.output[0].name = "inverted"


def swap_a_skip_connection(model: onnx.ModelProto) -> None:
    concat = next(n for n in model.graph.node if n.op_type == "Concat" and "conv" in n.input[0] + n.input[1])
    concat.input[:] = list(reversed(concat.input))


def sides_first(model: onnx.ModelProto) -> None:
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(outputs[::-1])


def no_output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def output_of_something_within(model: onnx.ModelProto) -> None:
    relu = first(model, "Relu")
    model.graph.output.append(helper.make_tensor_value_info(relu.output[0], onnx.TensorProto.FLOAT, None))


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


def huge_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 10**6


def weights_that_are_calculated(model: onnx.ModelProto) -> None:
    conv = first(model, "Conv")
    model.graph.node.insert(0, helper.make_node("Neg", [conv.input[1]], ["negative"]))
    conv.input[1] = "negative"


def convolution_without_weights(model: onnx.ModelProto) -> None:
    del first(model, "Conv").input[1:]


def control_flow(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body))


def circle(model: onnx.ModelProto) -> None:
    first(model, "Conv").input[0] = model.graph.output[0].name


def one_convolution_less(model: onnx.ModelProto) -> None:
    conv = [node for node in model.graph.node if node.op_type == "Conv"][5]
    conv.op_type = "Identity"
    del conv.input[1:], conv.attribute[:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_resize, "does not calculate what U²-Net does"),
        (change_dilation, "does not calculate what U²-Net does"),
        (leave_out_a_relu, "does not calculate what U²-Net does"),
        (average_in_the_place_of_maximum, "of its 119 convolutions"),
        (leaky_relu, "of its 119 convolutions"),
        (scale_a_map, "of its 119 convolutions"),
        (swap_a_skip_connection, "of its 119 convolutions"),
        (one_convolution_less, "of its 118 convolutions"),
        (invert_the_output, "outputs are not the fused map"),
        (sides_first, "outputs are not the fused map"),
        (output_of_something_within, "outputs are not the fused map"),
        (no_output, "no outputs"),
        (two_inputs, "takes 2 inputs"),
        (huge_input, "its input is"),
        (weights_that_are_calculated, "is calculated"),
        (convolution_without_weights, "has no weights"),
        (control_flow, "control flow"),
        (circle, "runs in a circle"),
    ],
)
def test_graph_that_is_not_the_network_is_refused(
    change: Callable[[onnx.ModelProto], None],
    message: str,
    exported: Callable[..., onnx.ModelProto],
    save: Callable[[onnx.ModelProto], Path],
) -> None:
    model = exported()
    change(model)
    with pytest.raises(ValueError, match=message):
        U2Net.from_pretrained(save(model))


def test_other_network_is_refused(save: Callable[[onnx.ModelProto], Path]) -> None:
    weight = numpy_helper.from_array(np.zeros((1, 3, 3, 3), np.float32), "w")
    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [weight],
    )
    with pytest.raises(ValueError, match=r"not of the U²-Net family.*expected an export of u2net or u2netp"):
        U2Net.from_pretrained(save(helper.make_model(graph)))


def test_batch_norm_elsewhere_is_refused(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported(folded=False)
    norm = first(model, "BatchNormalization")
    copy = onnx.NodeProto()
    copy.CopyFrom(norm)
    copy.input[0], copy.output[0] = norm.output[0], "twice"
    model.graph.node.insert(list(model.graph.node).index(norm) + 1, copy)
    with pytest.raises(ValueError, match="does not follow a convolution"):
        read_checkpoint(save(model))


def test_two_convolutions_on_the_same_maps_are_refused(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported()
    copy = onnx.NodeProto()
    copy.CopyFrom(first(model, "Conv"))
    copy.output[0] = "again"
    model.graph.node.append(copy)
    with pytest.raises(ValueError, match="two of its convolutions work on the same maps"):
        read_checkpoint(save(model))


def test_weight_of_another_shape_is_refused(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported()
    name = first(model, "Conv").input[1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(np.zeros((32, 3, 3, 3), np.float32), name))
    with pytest.raises(ValueError, match=r"stage1\.rebnconvin\.conv_s1\.weight \[32, 3, 3, 3\] instead of"):
        read_checkpoint(save(model))


def test_tensor_shorter_than_its_shape_is_refused(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    model = exported()
    model.graph.initializer[7].raw_data = model.graph.initializer[7].raw_data[:-4]
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(save(model))


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_truncated_file_is_refused(
    part: float, exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    path = save(exported())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"anything\.onnx"):
        read_checkpoint(path)


# The comparison of maps


def test_tampered_weight_in_the_network_is_found(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    path = save(exported())
    network = U2Net.from_pretrained(path)
    check_onnx(path, network, network.config)
    with torch.no_grad():
        network.get_parameter("stage2.rebnconv3.conv_s1.weight")[0, 0, 1, 1] += 1
    with pytest.raises(ValueError, match=r"expected at most 0\.0001"):
        check_onnx(path, network, network.config)


class OffInOnePixel(nn.Module):
    """A network whose fused map is off by a known amount in one pixel, on every processor alike.

    Where it is off in float32 only, the amount is what rounding does in networks with large weights.
    """

    def __init__(self, network: U2Net, *, in_float64: bool) -> None:
        super().__init__()
        self.network = network
        self.in_float64 = in_float64

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fused, *sides = self.network(x)
        if x.dtype == torch.float32 or self.in_float64:
            fused = fused.clone()
            fused.view(-1)[fused.abs().argmin()] += 0.01  # about .0025 of the map, 25 times the tolerance
        return fused, *sides


def test_difference_that_float32_itself_makes_is_accepted(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    path = save(exported())
    network = U2Net.from_pretrained(path)
    check_onnx(path, OffInOnePixel(network, in_float64=False), network.config)


def test_the_same_difference_is_refused_where_float64_makes_it_too(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    path = save(exported())
    network = U2Net.from_pretrained(path)
    with pytest.raises(ValueError, match="does not calculate"):
        check_onnx(path, OffInOnePixel(network, in_float64=True), network.config)


def test_network_that_gives_no_numbers_is_refused(
    exported: Callable[..., onnx.ModelProto], save: Callable[[onnx.ModelProto], Path]
) -> None:
    path = save(exported())
    network = U2Net.from_pretrained(path)
    with torch.no_grad():
        network.get_parameter("outconv.bias").fill_(float("nan"))
    with pytest.raises(ValueError, match="does not calculate"):
        check_onnx(path, network, network.config)
