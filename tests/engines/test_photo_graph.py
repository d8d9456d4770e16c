"""Exported files that take photos: their maps are the pipeline's, by ONNX Runtime alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import fill
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, export
from u2net_hub.cli import app
from u2net_hub.config import Stage
from u2net_hub.engines import photo_check, photo_graph
from u2net_hub.imaging import Photo, postprocess, preprocess

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = [ROOT / "examples" / name for name in ("chelsea.jpg", "coffee.jpg")]
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CLOSE = 1e-3


def small(**changes: object) -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40)).replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    [found] = onnxruntime.InferenceSession(path).run(None, inputs)
    return found


def as_input(photo: Path | np.ndarray) -> np.ndarray:
    """RGB uint8 (1, 3, H, W)."""
    pixels = np.asarray(Image.open(photo).convert("RGB")) if isinstance(photo, Path) else photo
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("minmax", ["auto", "always", "never"])
def test_file_with_preprocessing_gives_the_map_of_the_pipeline(minmax: str, tmp_path: Path) -> None:
    network = small(minmax=minmax)
    path = export(network, tmp_path / "photo.onnx", part="whole")
    pipeline = SaliencyPipeline(network, engine="torch", device="cpu")
    for photo in PHOTOS:
        found = run(path, image=as_input(photo))
        expected = pipeline(photo).saliency
        assert found.shape == (1, 1, *expected.shape)
        # an input pixel may differ by one grey level, and min–max stretches the flat maps of these weights
        assert np.abs(found[0, 0] - expected).mean() <= 0.002


@pytest.mark.parametrize("size", [(31, 90), (90, 31), (7, 7), (1, 1), (200, 20), (20, 200)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocessing_equals_pillow_at_any_size(
    size: tuple[int, int], interpolation: str, tmp_path: Path
) -> None:
    config = U2NetConfig(input_size=(48, 40), interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3)
    config = config.replace(scale="255")
    graph = photo_graph.build_photo_graph(config, {}, "preprocessing").SerializeToString()
    (tmp_path / "before.onnx").write_bytes(graph)
    pixels = noise(*size, 3)
    x = run(tmp_path / "before.onnx", image=as_input(pixels))
    expected = preprocess(Photo(Image.fromarray(pixels)), config)
    levels = np.abs(x[0] - expected) * 255
    assert levels.max() <= 1.01
    assert levels.mean() <= 0.02


def test_black_photo_is_not_divided_by_zero(tmp_path: Path) -> None:
    path = export(small(), tmp_path / "before.onnx", part="preprocessing")
    x = run(path, image=np.zeros((1, 3, 9, 5), np.uint8))
    expected = -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(x[0] - expected[:, None, None]).max() < 1e-6


def test_dark_photo_is_divided_by_its_own_maximum(tmp_path: Path) -> None:
    network = small(mean=(0.0,) * 3, std=(1.0,) * 3)
    path = export(network, tmp_path / "before.onnx", part="preprocessing")
    assert run(path, image=np.full((1, 3, 9, 5), 40, np.uint8)).max() == 1


def test_float_photos_give_what_uint8_photos_give(tmp_path: Path) -> None:
    network = small()
    paths = [
        export(network, tmp_path / f"{kind}.onnx", part="whole", input_type=kind)
        for kind in ("uint8", "float32")
    ]
    image = as_input(noise(50, 60, 3))
    assert (run(paths[0], image=image) == run(paths[1], image=image.astype(np.float32))).all()


def test_chain_of_the_parts_gives_the_map_of_the_pipeline(tmp_path: Path) -> None:
    network = small(minmax="always")
    before, alone, after = (
        export(network, tmp_path / f"{part}.onnx", part=part)
        for part in ("preprocessing", "network", "postprocessing")
    )
    x = run(before, image=as_input(PHOTOS[0]))
    found = run(after, map=run(alone, input=x), size=np.array([300, 451]))
    whole = run(export(network, tmp_path / "whole.onnx", part="whole"), image=as_input(PHOTOS[0]))
    assert np.abs(found - whole).max() <= CLOSE
    assert np.abs(found[0, 0] - SaliencyPipeline(network)(PHOTOS[0]).saliency).mean() <= 0.002


@pytest.mark.parametrize(
    ("map_", "minmax", "expected"),
    [
        ([[0.2, 0.6]], "never", [[0.2, 0.6]]),
        ([[0.2, 0.6]], "always", [[0.0, 1.0]]),
        ([[0.2, 0.6]], "auto", [[0.0, 1.0]]),  # what is in the upper half has a mean of 0.6
        ([[0.1, 0.4]], "auto", [[0.0, 0.0]]),  # a mean of 0.4 is no object
        ([[0.7, 0.7]], "always", [[0.0, 0.0]]),
        ([[0.7, 0.7]], "auto", [[0.0, 0.0]]),
    ],
)
def test_min_max_is_that_of_the_pipeline(
    map_: list[list[float]], minmax: str, expected: list[list[float]], tmp_path: Path
) -> None:
    config = U2NetConfig(minmax=minmax)
    path = tmp_path / "after.onnx"
    path.write_bytes(photo_graph.build_photo_graph(config, {}, "postprocessing").SerializeToString())
    values = np.array(map_, np.float32)
    found = run(path, map=values[None, None], size=np.array([1, 2]))[0, 0]
    assert np.abs(found - expected).max() < 1e-6
    assert np.abs(found - postprocess(values, (1, 2), minmax=minmax)).max() < 1e-6


@pytest.mark.parametrize("size", [(9, 7), (96, 80), (300, 20), (1, 1)])
def test_maps_are_resized_as_in_the_pipeline(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "after.onnx"
    graph = photo_graph.build_photo_graph(U2NetConfig(minmax="never"), {}, "postprocessing")
    path.write_bytes(graph.SerializeToString())
    values = np.random.default_rng(0).random((48, 40), np.float32)
    found = run(path, map=values[None, None], size=np.array(size))[0, 0]
    assert np.abs(found - postprocess(values, size, minmax="never")).max() < 1e-5


def test_drawings_are_inverted_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "after.onnx"
    config = U2NetConfig(minmax="never", invert=True)
    path.write_bytes(photo_graph.build_photo_graph(config, {}, "postprocessing").SerializeToString())
    found = run(path, map=np.full((1, 1, 2, 2), 0.3, np.float32), size=np.array([2, 2]))
    assert np.abs(found - 0.7).max() < 1e-6


def test_classes_keep_their_probabilities(tmp_path: Path) -> None:
    network = small(out_channels=3, activation="softmax")
    path = export(network, tmp_path / "classes.onnx", part="whole")
    found = run(path, image=as_input(PHOTOS[0]))
    assert found.shape[1] == 3
    assert np.abs(found.sum(1) - 1).max() <= CLOSE


def test_grey_network_takes_grey_photos(tmp_path: Path) -> None:
    network = small(in_channels=1, mean=(0.5,), std=(0.5,), minmax="never")
    path = export(network, tmp_path / "grey.onnx", part="whole")
    grey = Image.open(PHOTOS[0]).convert("L")
    found = run(path, image=np.asarray(grey)[None, None])
    expected = SaliencyPipeline(network, engine="torch", device="cpu")(grey).saliency
    assert np.abs(found[0, 0] - expected).mean() <= 0.002


@pytest.mark.parametrize(("weights", "share"), [("float16", 0.5), ("int8", 0.25)])
def test_smaller_weights_make_a_smaller_file_of_nearly_the_same_maps(
    weights: str, share: float, tmp_path: Path
) -> None:
    network = small()
    exact = export(network, tmp_path / "exact.onnx")
    path = export(network, tmp_path / "small.onnx", weights=weights)
    sizes = [
        sum(len(tensor.raw_data) for tensor in onnx.load(each).graph.initializer) for each in (exact, path)
    ]
    assert share <= sizes[1] / sizes[0] <= share + 0.15  # biases and scales stay float32
    x = np.random.default_rng(0).standard_normal((1, 3, 48, 40)).astype(np.float32)
    assert 0 < np.abs(run(path, input=x) - run(exact, input=x)).mean() <= 0.004


def test_int8_weights_that_ruin_the_maps_are_refused(tmp_path: Path) -> None:
    network = small()
    conv = network.stage1.rebnconvin.conv_s1
    conv.weight.data[:, 0, 0, 0] *= 1e3  # the other weights of each filter are lost in its scale
    with pytest.raises(ValueError, match=r"with int8 weights the maps differ by .* or 'float16'"):
        export(network, tmp_path / "small.onnx", weights="int8")
    assert list(tmp_path.iterdir()) == []


def test_file_whose_preprocessing_differs_is_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(photo_graph._MODES, "bilinear", {"mode": "cubic"})
    with pytest.raises(ValueError, match=r"the preprocessing of the exported file differs from Pillow"):
        export(small(), tmp_path / "photo.onnx", part="whole")
    assert list(tmp_path.iterdir()) == []


def test_whole_that_differs_from_its_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small()
    build = photo_graph.build_photo_graph
    config = network.config
    from u2net_hub.checkpoints import fold
    from u2net_hub.engines.exporting import build_network
    from u2net_hub.engines.precision import float32_state

    convs = fold(config, float32_state(network))
    wrong = {name: conv._replace(bias=conv.bias + 0.5) for name, conv in convs.items()}
    graphs = {
        part: build(config, convs, part).SerializeToString() for part in ("preprocessing", "postprocessing")
    }
    graphs["whole"] = build(config, wrong, "whole").SerializeToString()
    with pytest.raises(ValueError, match=r"the whole graph of the exported file differs from its parts"):
        photo_check.check_photo_graphs(config, graphs, build_network(network), "uint8")


def test_its_metadata_says_what_it_takes(tmp_path: Path) -> None:
    network = small()
    model = onnx.load(export(network, tmp_path / "photo.onnx", part="whole", weights="float16"))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["takes"] == "photos"
    assert U2NetConfig.from_dict(json.loads(said["photo_config"])) == network.config


def test_library_says_that_such_a_file_is_for_other_programs(tmp_path: Path) -> None:
    path = export(small(), tmp_path / "photo.onnx", part="whole")
    for load in (SaliencyPipeline, U2Net.from_pretrained):
        with pytest.raises(ValueError, match=r"photo.onnx does its own preprocessing .*exported from"):
            load(path)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("net.xml", {"part": "whole"}, r"are for ONNX, and the format is 'openvino'"),
        ("net.xml", {"weights": "float16"}, r"are for ONNX"),
        ("net.onnx", {"part": "all"}, r"unknown part 'all', expected one of"),
        ("net.onnx", {"weights": "int4"}, r"unknown weights 'int4'"),
        ("net.onnx", {"part": "whole", "input_type": "int32"}, r"unknown input_type 'int32'"),
        ("net.onnx", {"part": "whole", "minmax": "yes"}, r"unknown minmax 'yes'"),
        ("net.onnx", {"input_type": "float32"}, r"input_type is not in a file of part 'network'"),
        ("net.onnx", {"part": "preprocessing", "minmax": "auto"}, r"minmax is not in a file"),
        ("net.onnx", {"part": "preprocessing", "weights": "int8"}, r"weights are not in a file"),
        ("net.onnx", {"part": "whole", "side_outputs": True}, r"side outputs are not in a file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    name: str, arguments: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        export("no-such-source", tmp_path / name, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interpolation": "lanczos"}, r"ONNX cannot resize photos as 'lanczos'"),
        ({"in_channels": 4, "mean": (0.5,) * 4, "std": (0.5,) * 4}, r"the network takes 4 channels"),
    ],
)
def test_config_that_a_graph_cannot_express_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        export(small(**changes), tmp_path / "net.onnx", part="preprocessing")


def test_command_writes_each_part(tmp_path: Path) -> None:
    source = str(small().save_pretrained(tmp_path / "small"))
    for words, inputs in (
        (["--with-preprocessing", "--input-type", "float32", "--minmax", "always"], ["image"]),
        (["--only", "preprocessing"], ["image"]),
        (["--only", "postprocessing"], ["map", "size"]),
    ):
        out = tmp_path / f"{len(words)}{words[-1]}.onnx"
        result = CliRunner().invoke(app, ["export", "--model", source, "--out", str(out), *words])
        assert result.exit_code == 0, result.output
        assert [value.name for value in onnxruntime.InferenceSession(out).get_inputs()] == inputs


def test_command_refuses_two_parts_at_once(tmp_path: Path) -> None:
    words = ["export", "--model", "u2netp", "--out", str(tmp_path / "x.onnx"), "--with-preprocessing"]
    result = CliRunner().invoke(app, [*words, "--only", "preprocessing"])
    assert isinstance(result.exception, ValueError)
    assert "give one of them" in str(result.exception)
