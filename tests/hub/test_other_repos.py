"""Repos as other people upload U²-Net: each loads with equal maps, or the error gives the command to run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from onnx_export import export
from safetensors.torch import save as to_safetensors
from torch import Tensor
from typer.testing import CliRunner

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig, cli
from u2net_hub.hub.downloads import download
from u2net_hub.hub.errors import MissingFileError, NotCachedError, UnusableRepoError
from u2net_hub.hub.sources import name_weights, resolve

State = dict[str, Tensor]
Tiny = Callable[[int], U2Net]


def as_pickle(content: object, folder: Path) -> bytes:
    torch.save(content, folder / "pickle")
    return (folder / "pickle").read_bytes()


@pytest.fixture(scope="module")
def network(filled: Callable[[str], U2Net]) -> U2Net:
    return filled("u2netp")


@pytest.fixture(scope="module")
def state(network: U2Net) -> State:
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def graph(network: U2Net, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    return export(tmp_path_factory.mktemp("graph") / "u2netp.onnx", network).SerializeToString()


def mixin(state: State, folder: Path) -> dict[str, bytes]:
    """PyTorchModelHubMixin: the arguments of __init__ in config.json."""
    config = {"in_ch": 3, "out_ch": 1}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": to_safetensors(state)}


def bare_pth(state: State, folder: Path) -> dict[str, bytes]:
    return {"u2netp.pth": as_pickle(state, folder), "README.md": b"# weights\n"}


def two_pth(state: State, folder: Path) -> dict[str, bytes]:
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    return {"epoch_10.pth": as_pickle(state, folder), "epoch_20.pth": as_pickle(other, folder)}


def lightning(state: State, folder: Path) -> dict[str, bytes]:
    content = {
        "epoch": 3,
        "global_step": 900,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{key}": value for key, value in state.items()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": {"lr": 1e-3},
    }
    return {"last.ckpt": as_pickle(content, folder), "hparams.yaml": b"lr: 0.001\n"}


def prefix(state: State, folder: Path) -> dict[str, bytes]:
    return {"model.safetensors": to_safetensors({f"model.{key}": value for key, value in state.items()})}


def transformers(state: State, folder: Path) -> dict[str, bytes]:
    config = {
        "architectures": ["U2NetForSegmentation"],
        "auto_map": {"AutoModelForImageSegmentation": "modeling_u2net.U2NetForSegmentation"},
        "model_type": "u2net",
        "torch_dtype": "float32",
        "transformers_version": "5.2.0",
    }
    return {
        "config.json": json.dumps(config).encode(),
        "preprocessor_config.json": b'{"size": {"height": 320, "width": 320}}',
        "modeling_u2net.py": b"1 / 0\n",
        "model.safetensors": to_safetensors({f"u2net.{key}": value for key, value in state.items()}),
        "training_args.bin": b"not weights",
    }


def shards(state: State, folder: Path) -> dict[str, bytes]:
    files, weight_map = {}, {}
    for i in (1, 2):
        name = f"model-{i:05}-of-00002.safetensors"
        part = dict(list(state.items())[i - 1 :: 2])
        files[name] = to_safetensors(part)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 4_700_000}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}


def pickled_shards(state: State, folder: Path) -> dict[str, bytes]:
    files, weight_map = {}, {}
    for i in (1, 2):
        name = f"pytorch_model-{i:05}-of-00002.bin"
        part = dict(list(state.items())[i - 1 :: 2])
        files[name] = as_pickle(part, folder)
        weight_map |= dict.fromkeys(part, name)
    return {**files, "pytorch_model.bin.index.json": json.dumps({"weight_map": weight_map}).encode()}


def half(state: State, folder: Path) -> dict[str, bytes]:
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    return {"u2netp.fp16.safetensors": to_safetensors(halves)}


def beside_a_graph(state: State, folder: Path) -> dict[str, bytes]:
    """The weights of OpenVINO have the suffix of a pickle."""
    return {"openvino/net.xml": b"<net/>", "net.xml": b"<net/>", "net.bin": b"x", **bare_pth(state, folder)}


def assert_maps(loaded: U2Net, expected: U2Net, tolerance: float = 0.0) -> None:
    x = torch.rand(1, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for got, wanted in zip(loaded(x), expected(x), strict=True):
            assert (got.sigmoid() - wanted.sigmoid()).abs().max() <= tolerance


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def load_as_told(source: str) -> U2Net:
    """Load a source by the one command in the error that it gives."""
    with pytest.raises((ValueError, OSError), match=r"u2net convert") as caught:
        U2Net.from_pretrained(source)
    (command,) = re.findall(r"u2net (convert .*?)$", str(caught.value))
    return U2Net.from_pretrained(run(*shlex.split(command)))


@pytest.mark.parametrize("layout", [mixin, prefix, transformers, shards])
def test_a_repo_of_others_loads(
    layout: Callable[[State, Path], dict[str, bytes]],
    hub: HubServer,
    network: U2Net,
    state: State,
    tmp_path: Path,
) -> None:
    hub.add("org/x", layout(state, tmp_path))
    assert_maps(U2Net.from_pretrained("org/x"), network)


@pytest.mark.parametrize("layout", [bare_pth, two_pth, lightning, pickled_shards, beside_a_graph])
def test_a_repo_of_others_loads_by_the_command_in_the_error(
    layout: Callable[[State, Path], dict[str, bytes]],
    hub: HubServer,
    network: U2Net,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.add("org/x", layout(state, tmp_path))
    assert_maps(load_as_told("org/x"), network)


def test_weights_in_half_precision_load(hub: HubServer, state: State, tmp_path: Path) -> None:
    hub.add("org/x", half(state, tmp_path))
    loaded = U2Net.from_pretrained("org/x").state_dict()
    for key, value in state.items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded[key], expected)


def test_a_folder_of_graphs_loads_by_the_command_in_the_error(
    hub: HubServer, network: U2Net, graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "isnet", "transformers.js_config": {"dtype": "fp32"}}
    files = {
        "config.json": json.dumps(config).encode(),
        "onnx/model.onnx": graph,
        "onnx/model_q.onnx": b"another",
    }
    hub.add("org/x", files)
    assert_maps(load_as_told("org/x"), network, 1e-4)
    assert_maps(U2Net.from_pretrained("org/x", subfolder="onnx", filename="model.onnx"), network, 1e-4)


def test_a_graph_with_external_data_loads(
    hub: HubServer, network: U2Net, graph: bytes, tmp_path: Path
) -> None:
    import onnx

    model = onnx.ModelProto.FromString(graph)
    onnx.save(
        model, tmp_path / "u.onnx", save_as_external_data=True, size_threshold=0, location="u.onnx_data"
    )
    files = {name: (tmp_path / name).read_bytes() for name in ("u.onnx", "u.onnx_data")}
    assert len(files["u.onnx"]) < 300_000
    hub.add("org/x", files)
    assert_maps(U2Net.from_pretrained("org/x"), network, 1e-4)
    hub.add("org/y", {"u.onnx": files["u.onnx"]})
    with pytest.raises(UnusableRepoError, match=r"u\.onnx needs u\.onnx_data, which is not in the repo"):
        U2Net.from_pretrained("org/y")


# A file among several


@pytest.fixture
def two(hub: HubServer, tiny: Tiny, tmp_path: Path) -> str:
    """A repo with two pickles of small networks, and the config of the library; its first commit."""
    files = {f"weights/{i}.pth": as_pickle(tiny(i).state_dict(), tmp_path) for i in (1, 2)}
    commit = hub.add("org/x", {"config.json": tiny(0).config.to_json().encode(), **files})
    hub.repos["models", "org/x"].refs["refs/heads/run/1"] = commit
    hub.add("org/x", {"weights/2.pth": b"not weights any more"})
    return commit


def same(a: U2Net, b: U2Net) -> bool:
    state = b.state_dict()
    return all(torch.equal(value, state[key]) for key, value in a.state_dict().items())


def test_the_command_names_the_revision_too(
    two: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert same(load_as_told("org/x@run/1"), tiny(1))
    assert not (tmp_path / "x-converted").exists()  # it is called like the file


@pytest.mark.parametrize("start", ["", "hf://", "hf://models/", "hf-hub:"])
def test_a_file_of_a_repo_is_a_source(start: str, two: str, tiny: Tiny) -> None:
    assert same(U2Net.from_pretrained(f"{start}org/x/weights/1.pth"), tiny(1))
    assert same(U2Net.from_pretrained(f"{start}org/x@{two}/weights/2.pth"), tiny(2))
    assert same(U2Net.from_pretrained(f"{start}org/x/weights/2.pth@run/1"), tiny(2))


def test_filename_subfolder_and_revision_name_a_file_too(two: str, tiny: Tiny) -> None:
    for options in (
        {"filename": "weights/2.pth"},
        {"subfolder": "weights", "filename": "2.pth"},
        {"subfolder": "weights/", "filename": "2.pth"},
    ):
        assert same(U2Net.from_pretrained("org/x", revision=two, **options), tiny(2))  # type: ignore[arg-type]


def test_the_address_of_a_page_is_a_source(hub: HubServer, two: str, tiny: Tiny) -> None:
    page = f"{hub.endpoint}/org/x"
    for form in ("/blob/run%2F1/weights/2.pth", f"/resolve/{two}/weights/2.pth?download=true"):
        assert same(U2Net.from_pretrained(page + form), tiny(2))
    for form in ("", "/", "/tree/main", f"/commit/{two}"):
        with pytest.raises(ValueError, match=r"only in folders: \['weights/1\.pth', 'weights/2\.pth'\]"):
            U2Net.from_pretrained(page + form)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/u2net.pth", "is not on the Hub; download the file"),
        ("https://huggingface.co/datasets/org/x", "not the page of a model"),
        ("https://huggingface.co/org", "not the page of a model"),
        ("https://huggingface.co/org/x/discussions/1", "not the page of a model"),
        ("hf://datasets/org/x", "is a Space or a data set"),
        ("hf://spaces/org/x", "is a Space or a data set"),
    ],
)
def test_other_addresses_are_refused(source: str, message: str, hub: HubServer) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(source)
    assert not hub.log


@pytest.mark.parametrize("source", ["hf://org", "hf-hub:", "hf://org/a/../b", "org/x/../u.pth", "hf://a b/c"])
def test_names_that_no_repo_can_have_are_refused(source: str, hub: HubServer) -> None:
    with pytest.raises(FileNotFoundError, match="no weights at"):
        resolve(source)
    assert not hub.log


def test_two_revisions_or_two_files_are_refused(hub: HubServer) -> None:
    with pytest.raises(ValueError, match="give one"):
        resolve("org/x@v1/u.pth", revision="v2")
    with pytest.raises(ValueError, match="give one"):
        resolve("org/x/u.pth", filename="v.pth")
    assert not hub.log


def test_a_file_that_is_not_in_the_repo_is_told(two: str) -> None:
    with pytest.raises(MissingFileError, match=r"weights/3\.pth: no such file in the repo; it holds"):
        U2Net.from_pretrained("org/x/weights/3.pth")


def test_a_hub_file_loads_offline_after_one_load(
    two: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    U2Net.from_pretrained("org/x/weights/1.pth")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(U2Net.from_pretrained("org/x/weights/1.pth"), tiny(1))
    with pytest.raises(NotCachedError, match="u2net download --model org/x@main"):
        U2Net.from_pretrained("org/x/weights/2.pth")


def test_a_file_of_a_local_folder_is_named_alike(tiny: Tiny, tmp_path: Path) -> None:
    for i in (1, 2):
        tiny(i).save_pretrained(tmp_path / "run" / str(i))
    assert same(U2Net.from_pretrained(tmp_path / "run", subfolder="2"), tiny(2))
    with pytest.raises(FileNotFoundError, match=r"there is no '3' in"):
        U2Net.from_pretrained(tmp_path / "run", subfolder="3")


def test_the_command_that_fills_the_cache_lets_the_model_load_offline(
    two: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotCachedError) as caught:
        U2Net.from_pretrained(f"org/x@{two}/weights/2.pth", local_files_only=True)
    (command,) = re.findall(r"with: u2net (download .*)$", str(caught.value))
    run(*shlex.split(command))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(U2Net.from_pretrained(f"org/x@{two}/weights/2.pth"), tiny(2))


def test_a_bundled_model_has_no_other_file() -> None:
    with pytest.raises(ValueError, match=r"'u2netp' is bundled.*leave out 'x\.pth'"):
        resolve("u2netp", filename="x.pth")


# Configs


def test_a_config_in_the_call_goes_before_that_of_the_repo(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    weights = (tiny(0).save_pretrained(tmp_path) / "model.safetensors").read_bytes()
    config = tiny(0).config.replace(input_size=(48, 48))
    for i, content in enumerate((b"{}", b"not JSON", b'{"library_name": "u2net-hub", "format_version": 99}')):
        hub.add(f"org/x{i}", {"config.json": content, "model.safetensors": weights})
        assert U2Net.from_pretrained(f"org/x{i}", config=config).config == config
        assert SaliencyPipeline.from_pretrained(f"org/x{i}", config=config).config == config


def test_a_network_of_others_runs_in_every_engine(hub: HubServer, state: State, tmp_path: Path) -> None:
    hub.add("org/x", prefix(state, tmp_path))
    assert SaliencyPipeline.from_pretrained("org/x").config == U2NetConfig()


# Pickles, in every verb


def test_naming_the_pickle_of_a_repo_is_enough_for_every_verb(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    pickle = as_pickle(tiny(1).state_dict(), tmp_path)
    commit = hub.add("org/x", {"config.json": tiny(0).config.to_json().encode(), "u.pth": pickle})
    assert name_weights("org/x") == f"org/x@{commit}/u.pth"
    assert same(U2Net.from_pretrained(name_weights("org/x")), tiny(1))
    assert name_weights("u2netp") == "u2netp"


def test_every_verb_that_takes_weights_takes_pickles() -> None:
    for verb in (
        "cutout",
        "mask",
        "train",
        "eval",
        "bench",
        "info",
        "convert",
        "export",
        "download",
        "card",
        "push",
        "demo",
    ):
        assert "--allow-pickle" in run(verb, "--help"), verb


# Downloads


def test_any_repo_is_downloaded_whole_and_checked(hub: HubServer, tmp_path: Path) -> None:
    files = {"a/b/c.bin": b"anything", "notes.txt": b"words", "config.json": b"[", ".hidden": b"no"}
    hub.add("org/x", {**files, "../evil": b"no", "a/.git/hooks/x": b"no", "\x1b[2J": b"no"})
    folder = tmp_path / "out"
    assert download("org/x", out=folder) == folder
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert found == {name: content for name, content in files.items() if name != ".hidden"}


def test_one_file_or_folder_is_downloaded(two: str, hub: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = download("org/x/weights/1.pth", out=out)
    assert path == out / "weights" / "1.pth"
    assert path.is_file()
    assert [file.name for file in out.rglob("*") if file.is_file()] == ["1.pth"]
    assert sorted(p.name for p in download("org/x", subfolder="weights").iterdir()) == ["1.pth", "2.pth"]
    assert not hub.served("*config.json")
    with pytest.raises(MissingFileError, match=r"none\.pth: no such file in the repo"):
        download("org/x", filename="none.pth")


@pytest.mark.parametrize("given", [Path("weights/1.pth"), "./weights/1.pth", "/weights/1.pth"])
def test_a_file_is_named_as_a_path_or_text(given: Path | str, two: str, hub: HubServer) -> None:
    assert resolve("org/x", filename=given).weights_path.name == "1.pth"
    assert download("org/x", filename=given).name == "1.pth"


@pytest.mark.parametrize("load", [resolve, download])
@pytest.mark.parametrize("given", ["../1.pth", "weights/../../1.pth", "weights\\1.pth"])
def test_a_file_outside_the_repo_is_refused(load: Callable[..., object], given: str, hub: HubServer) -> None:
    with pytest.raises(ValueError, match="expected a path inside, with / between folders"):
        load("org/x", filename=given)
    assert not hub.log


@pytest.mark.parametrize(
    ("given", "problem"),
    [("none", "'none' is not in it; it holds"), ("config.json", "'config.json' is no file of weights")],
)
def test_a_folder_that_is_none_is_named(given: str, problem: str, two: str) -> None:
    with pytest.raises(MissingFileError, match=problem):
        resolve("org/x", subfolder=given)


def test_a_folder_without_weights_says_where_they_are(two: str, hub: HubServer) -> None:
    hub.add("org/x", {"docs/a.md": b"text"})
    with pytest.raises(ValueError, match=r"only elsewhere: \['weights/1\.pth', 'weights/2\.pth'\]"):
        resolve("hf://org/x/docs")


@pytest.mark.parametrize("source", ["org/x/weights", "org/x/weights/", "huggingface.co/org/x"])
def test_the_full_name_in_a_hint_works_as_printed(source: str, two: str) -> None:
    for load in (resolve, download):
        with pytest.raises((FileNotFoundError, ValueError)) as caught:
            load(source)
        full = str(caught.value).rpartition("if it is on the Hub, write ")[2]
        assert download(full).is_dir()


@pytest.mark.parametrize("source", ["org/x/../../etc/passwd", "hf://../x"])
def test_no_full_name_is_made_up(source: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        resolve(source)
    assert "if it is on the Hub, write" not in str(caught.value)


def test_the_command_that_makes_a_folder_for_a_card_works_as_printed(
    hub: HubServer, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"my net.pth": as_pickle(tiny(0).state_dict(), tmp_path)}
    hub.add("org/x", {"config.json": tiny(0).config.to_json().encode(), **files})
    monkeypatch.chdir(tmp_path)
    arguments = ["card", "--model", "org/x/my net.pth", "--out", "README.md"]
    line = str(CliRunner().invoke(cli.app, arguments).exception).rpartition("; run: u2net ")[2]
    assert CliRunner().invoke(cli.app, shlex.split(line)).exit_code == 0
    assert (tmp_path / "my net-converted" / "model.safetensors").is_file()


def test_a_damaged_file_is_not_downloaded(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/x", {"a.txt": b"one" * 9, "b.txt": b"two" * 9})
    hub.fault("get:b.txt", "corrupt", times=100)
    with pytest.raises(OSError, match=r"b\.txt: its hash is"):
        download("org/x", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_force_download_asks_for_every_file_again(hub: HubServer, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(0).save_pretrained(tmp_path)
    hub.add("org/x", {path.name: path.read_bytes() for path in folder.iterdir()})
    U2Net.from_pretrained("org/x")
    hub.log.clear()
    assert same(U2Net.from_pretrained("org/x", force_download=True), tiny(0))
    assert len(hub.served("cdn:model.safetensors")) == 1
    with pytest.raises(ValueError, match="force_download=True asks the Hub"):
        U2Net.from_pretrained("org/x", force_download=True, local_files_only=True)
