"""Files for phones: what is refused, and that they give torch's maps where their packages are installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fill
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import U2Net, U2NetConfig, export
from u2net_hub.checkpoints import fold
from u2net_hub.checkpoints.topology import Folded
from u2net_hub.cli import app
from u2net_hub.config import Stage
from u2net_hub.engines import phones
from u2net_hub.engines.phone_graph import describe, fits_float16, round_float16
from u2net_hub.engines.precision import float32_state
from u2net_hub.imaging import preprocess

ROOT = Path(__file__).resolve().parents[2]
CAT = ROOT / "examples" / "chelsea.jpg"
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
NAMES = ["saliency", "side1", "side2"]
ODD = (37, 50)  # halves of an odd side are rounded up
EXTRAS = {"litert": "ai_edge_litert", "coreml": "coremltools"}
SUFFIXES = {"litert": ".tflite", "coreml": ".mlpackage"}

# coremltools leaves its temporary folders to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning")

both = pytest.mark.parametrize("kind", ["litert", "coreml"])


def small(**changes: object) -> U2Net:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=ODD).replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def needs(kind: str) -> None:
    if importlib.util.find_spec(EXTRAS[kind]) is None:
        pytest.skip(f"{EXTRAS[kind]} has an environment of its own")


def picture(network: U2Net, seed: int = 0, top: int = 200) -> np.ndarray:
    """Noise on a ramp, with a known maximum."""
    height, width = network.config.input_size
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, top - 40, width)[None, :, None]
    pixels = ramp + rng.uniform(0, 39, (height, width, network.config.in_channels))
    pixels[0, 0, 0] = top
    return pixels.astype(np.uint8)


def expected(network: U2Net, pixels: np.ndarray) -> list[np.ndarray]:
    """The maps by torch, with the preprocessing of the official data_loader.py written out."""
    config = network.config
    divisor = max(pixels.max(), 1) if config.scale == "image_max" else 255
    x = (pixels / np.float64(divisor) - config.mean) / config.std
    with torch.inference_mode():
        outputs = network(torch.from_numpy(x.astype(np.float32).transpose(2, 0, 1)[None].copy()))
    if config.activation == "softmax":
        return [logits[0].softmax(0).numpy() for logits in outputs]
    return [logits[0].sigmoid().numpy() for logits in outputs]


def run(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of a file, each (out, h, w): of LiteRT by its own interpreter."""
    if path.suffix == ".mlpackage":
        from u2net_hub.engines.coreml import open_coreml

        return open_coreml(path)(pixels)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    found = interpreter.get_signature_runner("serving_default")(image=pixels[None])
    return {name: value[0].transpose(2, 0, 1) for name, value in found.items()}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("net.tflite", {"format": "coreml"}, r"cannot write coreml to net.tflite, expected the suffix .mlp"),
        ("net.tflite", {"precision": "int8"}, r"on photos: u2net export --format litert .*--data FOLDER"),
        ("net.tflite", {"precision": "int8", "data": ".", "weights": "float16"}, r"weights of int8, and not"),
        ("net.tflite", {"precision": "fast"}, r"chosen when a file is run"),
        ("net.tflite", {"weights": "int8"}, r"int8 weights for phones go with int8 arithmetic, in LiteRT"),
        ("net.tflite", {"weights": "bfloat16"}, r"unknown weights 'bfloat16', expected one of"),
        ("net.tflite", {"data": "."}, r"data is for precision 'int8'"),
        ("net.mlpackage", {"precision": "int8", "data": "."}, r"Core ML files hold float32 or float16"),
        ("net.xml", {"weights": "float16"}, r"smaller weights are for ONNX, and the format is 'openvino'"),
        ("net.tflite", {"part": "whole"}, r"postprocessing .* are for ONNX, and the format is 'litert'"),
        ("net.mlpackage", {"input_type": "float32"}, r"input_type is not in a file of part 'network'"),
        ("net.mlpackage", {"minmax": "auto"}, r"minmax is not in a file of part 'network'"),
    ],
)
def test_a_request_that_a_format_cannot_carry_says_so(
    name: str, arguments: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        export(small(), tmp_path / name, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@both
def test_without_its_package_the_error_names_the_command(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, EXTRAS[kind], None)
    monkeypatch.setitem(sys.modules, f"{EXTRAS[kind]}.interpreter", None)
    source = small().save_pretrained(tmp_path / "small")
    words = ["export", "--model", str(source), "--out", str(tmp_path / f"net{SUFFIXES[kind]}")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ImportError)
    assert f"pip install 'u2net-hub[{kind}]'" in str(result.exception)


def test_a_network_of_four_channels_is_refused_since_photos_have_none(tmp_path: Path) -> None:
    four = small(in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(ValueError, match=r"takes 4 channels, expected 3 \(RGB\) or 1 \(grey\)"):
        phones.write_phone_file(four, tmp_path / "net.tflite", weights="float16")
    assert list(tmp_path.iterdir()) == []


def test_maps_of_the_network_pass_the_comparison() -> None:
    network = small()
    phones.compare_maps(network, lambda pixels: dict(zip(NAMES, expected(network, pixels))), NAMES)  # noqa: B905


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: {**found, "side1": found["side1"] + 0.002},
            r"differ from those of torch by up to 0.002",
        ),
        (lambda found: {**found, "saliency": found["saliency"] * np.nan}, r"differ from those of torch"),
        (lambda found: {"map": found["saliency"]}, r"gives maps of the shapes {'map'"),
        (lambda found: {name: value[:, 1:] for name, value in found.items()}, r"gives maps of the shapes"),
    ],
)
def test_other_maps_are_refused(
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], said: str
) -> None:
    network = small()
    with pytest.raises(ValueError, match=said):
        phones.compare_maps(
            network,
            lambda pixels: change(dict(zip(NAMES, expected(network, pixels), strict=True))),
            NAMES,
        )


def test_maps_with_weights_in_float16_are_compared_with_rounded_weights() -> None:
    network = small()
    rounded = small()
    name = "stage1d.rebnconv1d"
    for each in (network, rounded):
        with torch.no_grad():
            each.get_submodule(name).conv_s1.weight.mul_(100)
    fused = rounded.fuse()
    weight = fused.get_submodule(name).conv_s1.weight
    with torch.no_grad():
        weight.copy_(weight.half().float())

    def of_rounded(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(NAMES, expected(fused, pixels), strict=True))

    convs = fold(network.config, float32_state(network))
    phones.compare_maps(network, of_rounded, NAMES, halved={name: convs[name]}, limit=1e-4)
    with pytest.raises(ValueError, match="differ from those of torch"):
        phones.compare_maps(network, of_rounded, NAMES, limit=1e-4)


def test_int8_is_judged_by_the_mean_difference_on_photos() -> None:
    network = small()
    photos = [picture(network)]
    for change, passes in ((0.003, True), (0.005, False)):

        def shifted(pixels: np.ndarray, change: float = change) -> dict[str, np.ndarray]:
            return {"saliency": expected(network, pixels)[0] + np.float32(change)}

        if passes:
            phones.compare_int8(network, shifted, photos, ["saliency"])
        else:
            with pytest.raises(ValueError, match=r"int8 changes this network's maps of 1 photos by 0.005"):
                phones.compare_int8(network, shifted, photos, ["saliency"])


def test_pixels_are_those_that_preprocessing_divides() -> None:
    config = U2NetConfig()
    pixels = phones.read_pixels(CAT, config)
    assert pixels.dtype == np.uint8
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    x = (pixels / np.float32(pixels.max()) - mean) / std
    assert np.abs(x.transpose(2, 0, 1) - preprocess(phones.load(CAT), config)).max() <= 1e-5


def test_float16_holds_what_it_can_and_says_what_it_cannot() -> None:
    assert fits_float16(np.array([0.1, 65504], np.float32))
    assert not fits_float16(np.array([70000], np.float32))
    assert fits_float16(np.array([0.5, 1361], np.float32), exactly=True)
    assert not fits_float16(np.array([0.1], np.float32), exactly=True)
    assert round_float16(np.array([2049], np.float32)) == 2048  # spacing 2 from there on


def test_metadata_says_what_the_pixels_must_be() -> None:
    said = describe(U2NetConfig(invert=True), "float16", "abc")
    assert U2NetConfig.from_dict(json.loads(said["config"])) == U2NetConfig(invert=True)
    assert "RGB pixels from 0 to 255, resized to 320 x 320 px" in said["preprocessing"]
    assert said["postprocessing"] == "the saliency is 1 minus the output"
    assert (said["weights"], said["weights_sha256"]) == ("float16", "abc")


def test_the_table_of_the_page_is_that_of_the_record() -> None:
    script = ROOT / "model_cards" / "phones" / "measure.py"
    spec = importlib.util.spec_from_file_location("measure_phones", script)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    page = (ROOT / "docs" / "phones.md").read_text(encoding="utf-8")
    record = json.loads(measure.OUT.read_text(encoding="utf-8"))
    assert measure.render(record, page) == page, "python model_cards/phones/measure.py --render"


@both
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale": "255"},
        {"out_channels": 3, "activation": "softmax"},
        {"in_channels": 1, "mean": (0.4,), "std": (0.3,)},
    ],
    ids=["default", "255", "classes", "grey"],
)
def test_a_file_gives_the_maps_of_torch(kind: str, changes: dict[str, object], tmp_path: Path) -> None:
    needs(kind)
    network = small(**changes)
    path = export(network, tmp_path / f"net{SUFFIXES[kind]}", weights="float32", side_outputs=True)
    for pixels in (picture(network), picture(network, 1, top=90), 0 * picture(network)):
        found = run(path, pixels)
        assert sorted(found) == NAMES
        for name, wanted in zip(NAMES, expected(network, pixels), strict=True):
            assert np.abs(found[name] - wanted).max() <= 1e-4


@both
def test_float16_weights_halve_the_file_and_hardly_change_the_maps(kind: str, tmp_path: Path) -> None:
    needs(kind)
    network = U2Net(U2NetConfig(stages=None, input_size=(33, 33))) if kind == "litert" else small()
    network.load_state_dict(fill(network.state_dict()))
    paths = [
        export(network.eval(), tmp_path / f"{weights}{SUFFIXES[kind]}", weights=weights)
        for weights in ("float16", "float32")
    ]
    pixels = picture(network)
    half, full = (run(path, pixels)["saliency"] for path in paths)
    assert 0 < np.abs(half - full).mean() <= 0.004
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    assert kind == "coreml" or sizes[0] < 0.6 * sizes[1]


def test_int8_has_weights_of_one_byte_and_is_judged_on_photos(tmp_path: Path) -> None:
    needs("litert")
    from ai_edge_litert import schema_py_generated as schema

    network = small()
    path = export(network, tmp_path / "net.tflite", precision="int8", data=ROOT / "examples")
    pixels = picture(network)
    assert np.abs(run(path, pixels)["saliency"] - expected(network, pixels)[0]).mean() <= 0.02
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    kinds = {tensor.name.decode(): tensor.type for tensor in model.subgraphs[0].tensors}
    assert kinds["stage1.rebnconv1.weight"] == schema.TensorType.INT8
    assert kinds["outconv.weight.float16"] == schema.TensorType.FLOAT16


def test_weights_that_read_large_values_stay_out_of_int8() -> None:
    needs("litert")
    from u2net_hub.engines.litert_builder import build_litert

    network = small()
    convs = fold(network.config, float32_state(network))
    weight, bias = convs["stage2.rebnconv1d"]
    convs["stage2.rebnconv1d"] = Folded(weight, bias + 1000)
    _, types = build_litert(network.config, convs, weights="int8")
    # stage2 is added up, resized and joined to the skip connection of stage1d
    assert types["stage2.rebnconv1d"] == "float32"
    assert types["stage1d.rebnconvin"] == "float16"
    assert types["stage1d.rebnconv1"] == types["stage2.rebnconv1"] == "int8"


@both
def test_the_metadata_is_in_the_file(kind: str, tmp_path: Path) -> None:
    needs(kind)
    source = small().save_pretrained(tmp_path / "small")
    path = export(source, tmp_path / f"net{SUFFIXES[kind]}")
    if kind == "litert":
        from u2net_hub.engines.litert import read_litert_metadata

        said = read_litert_metadata(path.read_bytes())
    else:
        import coremltools

        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        user = model.user_defined_metadata
        said = {name.removeprefix("u2net_hub."): user[name] for name in user}
    assert U2NetConfig.from_dict(json.loads(said["config"])).input_size == ODD
    assert len(said["weights_sha256"]) == 64
    assert said["weights"] == "float16"


def test_core_ml_takes_a_picture_and_gives_an_array() -> None:
    needs("coreml")
    import tempfile

    import coremltools

    with tempfile.TemporaryDirectory() as folder:
        path = export(small(), Path(folder, "net.mlpackage"))
        spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    (image,), (saliency,) = spec.description.input, spec.description.output
    assert (image.name, image.type.imageType.height, image.type.imageType.width) == ("image", *ODD)
    assert spec.description.input[0].type.imageType.colorSpace == 20  # RGB in FeatureTypes.proto
    assert (saliency.name, list(saliency.type.multiArrayType.shape)) == ("saliency", [1, 1, *ODD])
    assert spec.specificationVersion == 6  # iOS 15


@both
def test_a_file_that_differs_is_not_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(kind)

    def wrong(*args: object) -> dict[str, Folded]:
        convs = fold(*args)  # type: ignore[arg-type]
        weight, bias = convs["stage1d.rebnconv1d"]
        return {**convs, "stage1d.rebnconv1d": Folded(weight, bias + 0.5)}

    monkeypatch.setattr(phones, "fold", wrong)
    with pytest.raises(ValueError, match=r"differ from those of torch by up to .*nothing was written"):
        export(small(), tmp_path / f"net{SUFFIXES[kind]}")
    assert list(tmp_path.iterdir()) == []


@both
def test_a_file_that_is_there_stays_unless_told_otherwise(kind: str, tmp_path: Path) -> None:
    needs(kind)
    path = export(small(), tmp_path / f"net{SUFFIXES[kind]}")
    before = {each: each.read_bytes() for each in [path, *path.rglob("*")] if each.is_file()}
    with pytest.raises(FileExistsError, match="is there"):
        export(small(), path)
    assert {each: each.read_bytes() for each in before} == before
    other = small(mean=(0.2, 0.3, 0.4))
    export(other, path, overwrite=True, weights="float32")
    pixels = picture(other)
    assert np.abs(run(path, pixels)["saliency"] - expected(other, pixels)[0]).max() <= 1e-4
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_photo_of_the_input_size_is_the_input(tmp_path: Path) -> None:
    network = small()
    pixels = picture(network)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    assert (phones.read_pixels(tmp_path / "photo.png", network.config) == pixels).all()
