"""ONNX files with external data, and graphs that ask for too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_export import export

from u2net_hub import U2Net, open_engine
from u2net_hub.checkpoints import onnx_cost
from u2net_hub.checkpoints.onnx_files import external_data, load_onnx, onnx_bytes
from u2net_hub.hub import resolve

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Tiny = Callable[[int], U2Net]


@pytest.fixture(scope="module")
def graph(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return export(tmp_path_factory.mktemp("onnx") / "tiny.onnx", tiny(0)).SerializeToString()


def save(path: Path, graph: bytes, **external: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.ModelProto.FromString(graph)
    onnx.save(model, path, save_as_external_data=bool(external), size_threshold=0, **external)
    return path


def relocate(path: Path, **entries: str) -> None:
    """Change what the graph says of where its data lies."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_external_data_is_read_from_the_folder(graph: bytes, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = save(tmp_path / "tiny.onnx", graph, location="data/tiny.onnx_data")
    assert external_data(path) == ["data/tiny.onnx_data"]
    network = U2Net.from_pretrained(path, config=tiny(0).config)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(network(x)[0], tiny(0)(x)[0], atol=1e-5)


def test_external_data_is_read_over_links_as_in_the_cache_of_the_hub(graph: bytes, tmp_path: Path) -> None:
    blobs = save(tmp_path / "blobs" / "tiny.onnx", graph, location="tiny.onnx.data").parent
    folder = tmp_path / "snapshots"
    folder.mkdir()
    for name in ("tiny.onnx", "tiny.onnx.data"):
        (folder / name).symlink_to(blobs / name)
    assert load_onnx(folder / "tiny.onnx").graph.initializer[0].raw_data


def test_a_link_out_of_the_folder_is_not_followed(graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "tiny.onnx", graph, location="tiny.onnx.data")
    path.with_name("tiny.onnx.data").rename(tmp_path / "secret")
    path.with_name("tiny.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"a link .*out of its folder"):
        load_onnx(path)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret", ""]
)
def test_data_outside_the_folder_is_not_read(location: str, graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "tiny.onnx", graph, location="tiny.onnx.data")
    (tmp_path / "secret").write_bytes(bytes(10**5))
    relocate(path, location=location)
    with pytest.raises(ValueError, match="expected a file in its own folder"):
        load_onnx(path)


def test_data_that_is_not_there_is_named(graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", graph, location="tiny.onnx.data")
    path.with_name("tiny.onnx.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"'tiny\.onnx\.data', which is not beside it"):
        U2Net.from_pretrained(path)


@pytest.mark.parametrize(
    "entries", [{"offset": "10000000"}, {"offset": "-4"}, {"length": "99999999"}, {"offset": "x"}]
)
def test_data_that_is_too_short_is_refused(entries: dict[str, str], graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", graph, location="tiny.onnx.data")
    relocate(path, **entries)
    with pytest.raises(ValueError, match="does not hold the tensor"):
        load_onnx(path)


def test_data_that_is_read_again_and_again_is_refused(graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", graph, location="tiny.onnx_data")
    model = onnx.load(path, load_external_data=False)
    for i in range(3):
        tensor = model.graph.initializer.add(name=f"copy{i}", data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="tiny.onnx_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"reads all of 'tiny\.onnx_data' several times"):
        load_onnx(path)


def test_functions_which_hide_their_cost_are_refused(graph: bytes, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(graph)
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("mine", "Hidden", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    )
    (tmp_path / "tiny.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="has functions of its own"):
        load_onnx(tmp_path / "tiny.onnx")


def test_sparse_weights_are_refused(graph: bytes, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(graph)
    one, at = (numpy_helper.from_array(np.array([1], kind), kind) for kind in ("float32", "int64"))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(one, at, [10**5, 10**5]))
    (tmp_path / "tiny.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="has sparse weights"):
        load_onnx(tmp_path / "tiny.onnx")


def test_an_export_whose_data_was_moved_out_of_it_runs(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from u2net_hub import export as export_for_engines

    network = U2Net(tiny(0).config.replace(input_size=(40, 40))).eval()
    whole = export_for_engines(network, tmp_path / "whole.onnx")
    split = save(tmp_path / "split.onnx", whole.read_bytes(), location="split.onnx.data")
    x = np.random.default_rng(0).random((1, 3, 40, 40), np.float32)
    one, other = (open_engine(path, engine="onnxruntime", device="cpu")(x)[0] for path in (whole, split))
    assert np.array_equal(one, other)


def test_the_hash_is_that_of_all_files(graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", graph, location="tiny.onnx.data")
    before = resolve(path).sha256
    data = path.with_name("tiny.onnx.data")
    data.write_bytes(data.read_bytes()[::-1])
    assert resolve(path).sha256 != before


# What a graph asks for


def enlarge(graph: bytes, scale: float) -> bytes:
    """Put a Resize between the input and the first convolution."""
    model = onnx.ModelProto.FromString(graph)
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["enlarged" if each == name else each for each in node.input]
    scales = numpy_helper.from_array(np.float32([1, 1, scale, scale]), "enlarging")
    model.graph.initializer.append(scales)
    model.graph.node.insert(0, helper.make_node("Resize", [name, "", "enlarging"], ["enlarged"]))
    return model.SerializeToString()


def test_a_graph_that_enlarges_its_input_is_not_run(
    graph: bytes, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("u2net_hub.checkpoints.onnx_reader._run_onnx", None)
    path = tmp_path / "large.onnx"
    path.write_bytes(enlarge(graph, 60))
    with pytest.raises(ValueError, match="is not run"):
        U2Net.from_pretrained(path, config=tiny(0).config)


def test_what_a_file_says_of_its_sizes_is_not_believed(graph: bytes, tiny: Tiny, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(enlarge(graph, 60))
    model.graph.value_info.append(helper.make_tensor_value_info("enlarged", 1, [1, 3, 64, 64]))
    with pytest.raises(ValueError, match=r"contradict|is not run"):
        onnx_cost.check_onnx_cost(model, tmp_path / "x.onnx", tiny(0).config, (1, 3, 64, 64))


def test_a_size_that_cannot_be_told_is_refused(graph: bytes, tiny: Tiny, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(graph)
    node = helper.make_node("NonZero", [model.graph.input[0].name], ["places"])
    model.graph.node.append(node)
    with pytest.raises(ValueError, match="'NonZero' makes cannot be told"):
        onnx_cost.check_onnx_cost(model, tmp_path / "x.onnx", tiny(0).config, (1, 3, 64, 64))


def test_values_of_the_network_are_counted(tiny: Tiny) -> None:
    # tiny: three stages with L = 2, mid 2, out 3, and one level of pooling between the stages; by hand
    def stage(side: int) -> int:
        convs = 3 + 2 + 2 + 3  # rebnconvin, rebnconv1, rebnconv2, rebnconv1d
        return (convs + 4 + 3) * side**2  # and a concatenation of 2 + 2 channels, and the sum

    between = 3 * 4**2 + 3 * 8**2 + 6 * 8**2  # pooled, resized, concatenated
    heads = 8**2 + 4**2 + 8**2 + 2 * 8**2 + 8**2  # side1, side2, resized, concatenated, fused
    assert onnx_cost._count_values(tiny(0).config, 8, 8) == 2 * stage(8) + stage(4) + between + heads


def test_bytes_of_a_file_without_external_data_are_its_own(graph: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.onnx", graph)
    assert onnx_bytes(path) == path.read_bytes()
