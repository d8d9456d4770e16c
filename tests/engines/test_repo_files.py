"""Files for loaders of other libraries: the code in them finds the library's maps, without the library."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import fill
from PIL import Image

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.engines import keep_loaders, loader_files
from u2net_hub.engines.repo_files import network_source

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

CAT = Path(__file__).resolve().parents[2] / "examples" / "chelsea.jpg"
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 40), minmax="always")


def small(**changes: object) -> U2Net:
    network = U2Net(CONFIG.replace(**changes))
    network.load_state_dict(fill(network.state_dict()))
    return network.eval()


def lay_out(network: U2Net, folder: Path, *loaders: str) -> Path:
    """The folder of a repo, as a push makes it."""
    made = loader_files(network, loaders)
    network.config = network.config.replace(other=made.config)
    network.save_pretrained(folder)
    for name, content in made.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def execute(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickles look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield lay_out(small(), tmp_path_factory.mktemp("endpoint"), "endpoints", "transformers")
    for name in ("u2net_network", "handler"):
        sys.modules.pop(name, None)


def expected(photo: Path | Image.Image) -> np.ndarray:
    return np.asarray(SaliencyPipeline(small(), engine="torch", device="cpu")(photo).mask(None), int)


def test_generated_network_has_the_maps_of_the_library(endpoint: Path) -> None:
    module = execute(endpoint / "u2net_network.py")
    network, config = module.load(endpoint)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 48, 40), np.float32))
    with torch.inference_mode():
        for found, wanted in zip(network(x), small()(x), strict=True):
            assert torch.equal(found, wanted)
    mask, _ = module.predict(network, config, Image.open(CAT))
    assert np.abs(np.asarray(mask, int) - expected(CAT)).max() <= 1


@pytest.mark.parametrize(
    "changes", [{"variant": "u2netp", "stages": None}, {"variant": "u2net", "stages": None}]
)
def test_generated_network_has_the_official_keys(changes: dict[str, object], endpoint: Path) -> None:
    module = execute(endpoint / "u2net_network.py")
    config = CONFIG.replace(**changes)
    with torch.device("meta"):
        found = module.U2Net(module.U2NetConfig(config.to_dict())).state_dict()
        wanted = U2Net(config).state_dict()
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in wanted.items()
    }


def test_generated_network_does_not_need_the_library() -> None:
    lines = [line for line in network_source().splitlines() if line.startswith(("import", "from"))]
    assert not [line for line in lines if "u2net_hub" in line or line.startswith("from .")]


def test_generated_steps_are_those_of_the_library(endpoint: Path) -> None:
    from u2net_hub.imaging import load, preprocess

    module = execute(endpoint / "u2net_network.py")
    rgba = Image.new("RGBA", (30, 90), (90, 20, 10, 100))
    rgba.paste((200, 220, 240, 255), (5, 5, 20, 70))
    for changes in ({}, {"scale": "255", "interpolation": "lanczos"}):
        config = CONFIG.replace(**changes)
        found = module.preprocess(module.upright_rgb(rgba), module.U2NetConfig(config.to_dict()))
        assert np.array_equal(found[0].numpy(), preprocess(load(rgba), config))


def test_a_damaged_exif_block_does_not_stop_the_generated_preprocessing(endpoint: Path) -> None:
    module = execute(endpoint / "u2net_network.py")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "abc"
    buffer = BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, "JPEG", exif=exif)
    good = buffer.getvalue()
    assert module.upright_rgb(Image.open(BytesIO(good))).size == (4, 6)
    damaged = good.replace(b"MM\x00*", b"MM\x01*").replace(b"II*\x00", b"II*\x01")
    assert damaged != good
    assert module.upright_rgb(Image.open(BytesIO(damaged))).size == (6, 4)


def test_handler_answers_as_the_platform_calls_it(endpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    handler = execute(endpoint / "handler.py").EndpointHandler(str(endpoint))
    wanted = expected(CAT)
    content = CAT.read_bytes()
    text = base64.b64encode(content).decode()
    for inputs in (
        Image.open(CAT),
        content,
        text,
        f"data:image/jpeg;base64,{text}",
        "\n".join((text[:76], text[76:])),
    ):
        [answer] = json.loads(json.dumps(handler({"inputs": inputs})))
        mask = Image.open(BytesIO(base64.b64decode(answer["mask"])))
        assert np.abs(np.asarray(mask, int) - wanted).max() <= 1
        assert 0 <= answer["score"] <= 1
    answer = handler({"inputs": content, "parameters": {"output": "cutout", "threshold": 0.5}})
    cutout = Image.open(BytesIO(base64.b64decode(answer["cutout"])))
    assert cutout.mode == "RGBA"
    assert cutout.size == Image.open(BytesIO(content)).size
    assert set(np.unique(np.asarray(cutout.getchannel("A")))) == {0, 255}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, 'no "inputs"'),
        ({"inputs": 5}, "is a int, expected a photo"),
        ({"inputs": "no base64"}, "not base64"),
        ({"inputs": b"no photo"}, "not a photo that can be read"),
        ({"inputs": CAT.read_bytes()[:5000]}, "damaged photo"),
        ({"inputs": Image.new("1", (10_000, 6_000))}, "expected at most 50 million"),
        ({"inputs": b"", "parameters": {"output": "video"}}, '"output" is'),
        ({"inputs": b"", "parameters": {"threshold": 2}}, '"threshold" is 2'),
        ({"inputs": b"", "parameters": {"threshold": True}}, '"threshold" is True'),
        ({"inputs": b"", "parameters": ["mask"]}, '"parameters" is'),
        ({"inputs": str(CAT)}, "not base64"),  # no file of the machine is read
    ],
)
def test_handler_refuses_in_words(data: dict[str, object], said: str, endpoint: Path) -> None:
    handler = execute(endpoint / "handler.py").EndpointHandler(str(endpoint))
    with pytest.raises(ValueError, match=said):
        handler(data)


def test_modeling_file_wraps_the_library_or_the_generated_network(
    endpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers itself is not installed here, so three of its names are stood in for."""

    class Config:
        def __init__(self, **entries: object) -> None:
            self.__dict__.update(entries)

        def to_dict(self) -> dict[str, object]:
            return self.__dict__

    class Model(torch.nn.Module):
        def __init__(self, config: Config) -> None:
            super().__init__()

        def post_init(self) -> None:
            pass

    transformers, outputs = ModuleType("transformers"), ModuleType("transformers.modeling_outputs")
    transformers.PretrainedConfig, transformers.PreTrainedModel = Config, Model  # type: ignore[attr-defined]
    outputs.SemanticSegmenterOutput = lambda **fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setitem(sys.modules, "transformers.modeling_outputs", outputs)
    package = ModuleType("laid")
    package.__path__ = [str(endpoint)]
    entries = json.loads((endpoint / "config.json").read_text())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 48, 40), np.float32))
    for installed in (True, False):
        for name in [name for name in sys.modules if name == "laid" or name.startswith("laid.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "laid", package)
        if not installed:
            monkeypatch.setitem(sys.modules, "u2net_hub", None)
        from importlib import import_module

        module = import_module("laid.modeling_u2net")
        assert (module.U2Net is U2Net) is installed
        model = module.U2NetForImageSegmentation(module.U2NetTransformersConfig(**entries)).eval()
        assert list(model.state_dict()) == list(small().state_dict())
        model.load_state_dict(small().state_dict())
        with torch.inference_mode():
            assert torch.equal(model(x)["logits"], small()(x)[0])
        assert np.abs(np.asarray(model.predict(Image.open(CAT)), int) - expected(CAT)).max() <= 1
    for name in [name for name in sys.modules if name.startswith("laid.")]:
        del sys.modules[name]


def test_files_for_transformers_js_have_its_names() -> None:
    made = loader_files(small(), ["transformers.js"])
    assert list(made.files) == [
        "onnx/model.onnx",
        "onnx/model_fp16.onnx",
        "onnx/model_quantized.onnx",
        "preprocessor_config.json",
    ]
    processor = json.loads(made.files["preprocessor_config.json"])
    assert not any(processor[step] for step in ("do_resize", "do_rescale", "do_normalize"))
    assert made.config["model_type"] == "isnet"


def test_library_loads_a_folder_that_is_laid_out_for_all(tmp_path: Path) -> None:
    folder = lay_out(small(), tmp_path, "transformers.js", "transformers", "endpoints", "onnxruntime")
    network = U2Net.from_pretrained(folder)
    assert network.config == CONFIG
    assert network.config.other["u2net_hub.loaders"] == [
        "onnxruntime", "transformers.js", "transformers", "endpoints",
    ]  # fmt: skip
    again = keep_loaders(network, [])(network.config.other)
    for name, content in again.files.items():
        assert (folder / name).read_bytes() == content  # so a second push changes nothing


@pytest.mark.parametrize(
    ("changes", "loaders", "said"),
    [
        ({}, ["keras"], "unknown loader 'keras', expected some of"),
        ({"in_channels": 1, "mean": (0.5,), "std": (0.5,)}, ["endpoints"], "takes 1 channels"),
        ({"out_channels": 3, "activation": "softmax"}, ["endpoints"], "has 3 classes"),
    ],
)
def test_loaders_that_cannot_use_the_network_are_refused_before_work(
    changes: dict[str, object], loaders: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        keep_loaders(small(**changes), loaders)
