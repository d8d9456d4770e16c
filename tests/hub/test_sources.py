"""Weights on this machine: what a source may be, loading, saving, and the verbs that show and convert."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import fill
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from u2net_hub import U2Net, U2NetConfig, __version__, cli, list_bundled
from u2net_hub.config import Stage
from u2net_hub.hub import bundled as bundled_models, fetching
from u2net_hub.hub.family import FAMILY
from u2net_hub.hub.sources import resolve

TABLE = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(
    variant="custom",
    stages=TABLE,
    out_channels=3,
    activation="softmax",
    input_size=(64, 96),
    labels=("a", "b", "c"),
)


@pytest.fixture
def network() -> U2Net:
    model = U2Net(CONFIG).eval()
    model.load_state_dict(fill(model.state_dict()))
    return model


@pytest.fixture
def folder(network: U2Net, tmp_path: Path) -> Path:
    return network.save_pretrained(tmp_path / "model")


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, network: U2Net, tmp_path: Path) -> Path:
    """One bundled model, "small", in the place of those of the library."""
    weights = tmp_path / "weights"
    network.save_pretrained(weights / "small")
    card = (
        "---\nlicense: mit\n---\n<!-- u2net-hub: begin intro (generated) -->\n\n# U²-Net\n\n"
        "The small one.\n\n"
        "<!-- u2net-hub: end intro -->\n\n# Small\n\nFinds nothing,\nand quickly.\n\n## Use\n"
    )
    (weights / "small" / "README.md").write_text(card)
    monkeypatch.setattr(bundled_models, "WEIGHTS_DIR", weights)
    return weights / "small"


def same_weights(a: U2Net, b: U2Net) -> bool:
    state = b.state_dict()
    return all(torch.equal(value, state[key]) for key, value in a.state_dict().items())


# What a source may be


def test_folder_loads_with_its_config_in_eval_mode(folder: Path, network: U2Net) -> None:
    loaded = U2Net.from_pretrained(folder)
    assert loaded.config == CONFIG
    assert not any(module.training for module in loaded.modules())
    assert same_weights(loaded, network)
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())


def test_loaded_network_gives_the_same_maps(folder: Path, network: U2Net) -> None:
    x = torch.rand(1, 3, 33, 40)
    with torch.inference_mode():
        assert all(
            torch.equal(a, b) for a, b in zip(U2Net.from_pretrained(folder)(x), network(x), strict=True)
        )


def test_weights_file_of_a_folder_takes_the_config_beside_it(folder: Path) -> None:
    assert U2Net.from_pretrained(str(folder / "model.safetensors")).config == CONFIG


def test_file_of_another_name_has_no_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert resolve(folder / "other.safetensors").config_path is None


def test_config_in_a_call_goes_before_the_file(folder: Path) -> None:
    config = CONFIG.replace(input_size=(32, 32))
    assert U2Net.from_pretrained(folder, config=config).config == config


def test_bundled_name_goes_before_a_path(
    bundled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder.rename(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    assert resolve("small").kind == "bundled"
    assert resolve("small").weights_path == bundled / "model.safetensors"
    assert resolve("./small").kind == "folder"
    assert resolve(Path("small")).kind == "folder"


def test_a_local_folder_that_a_bundled_name_hides_is_named(
    bundled: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    resolve("small")
    assert not caplog.records
    folder.rename(tmp_path / "small")
    resolve("small")
    assert "is the bundled model" in caplog.text
    assert "'./small'" in caplog.text


def test_the_bundled_folder_itself_is_not_hidden(
    bundled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(bundled.parent)
    resolve("small")
    assert not caplog.records


@pytest.mark.parametrize("source", ["./nothing", "../nothing", "a/../b", "a/.b", "a--b/c"])
def test_a_name_that_no_repo_can_have_is_not_looked_for_on_the_hub(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "open_repo", None)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        resolve(source)


def test_path_goes_before_a_model_on_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "org").mkdir()
    folder.rename(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name").kind == "folder"


def test_home_folder_may_be_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/model").weights_path == folder / "model.safetensors"


def test_hash_is_that_of_the_weights(folder: Path) -> None:
    import hashlib

    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert resolve(folder).sha256 == expected


@pytest.mark.parametrize("source", ["nothing", "not here", "a/b/c", "org/", "", "Größe"])
def test_source_that_is_nothing_raises_with_all_three_kinds(
    source: str, bundled: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"bundled name \['small'\].* existing path .*org/name or org/name@revision"
    ):
        resolve(source)


@pytest.mark.parametrize("source", ["u2net.pth", "org/u2net.pth", "weights/model.safetensors", "maps/a.onnx"])
def test_missing_file_is_not_looked_for_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "open_repo", None)
    with pytest.raises(FileNotFoundError, match=f"no weights at '{source}'"):
        resolve(source)


@pytest.mark.parametrize("name", FAMILY)
def test_a_member_of_the_family_loads_by_the_command_in_the_error(
    name: str, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, origin, config = FAMILY[name]
    with pytest.raises(FileNotFoundError, match=origin) as caught:
        U2Net.from_pretrained(name.replace("_", "-"))
    (command,) = re.findall(r"u2net (convert .*)$", str(caught.value))
    monkeypatch.chdir(tmp_path)
    # the same channels in a small table: what the names of files and configs lead to is tested here
    small = config.replace(variant="custom", stages=TABLE)
    monkeypatch.setitem(FAMILY, name, FAMILY[name]._replace(config=small))
    torch.save(U2Net(small).state_dict(), file)
    extra = [] if "--config" in command else ["--config", name]
    assert U2Net.from_pretrained(run(*shlex.split(command), *extra).strip()).config == small


@pytest.mark.parametrize("name", ["u2net", "u2netp"])
def test_variant_that_is_not_bundled_gives_the_line_that_converts_it(name: str, bundled: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"{name}' is not bundled.*u2net convert --model {name}\.pth --out {name}"
    ):
        U2Net.from_pretrained(name)


def test_revision_of_a_local_path_raises(folder: Path) -> None:
    with pytest.raises(ValueError, match="is for a model on the Hub"):
        resolve(folder, revision="main")


def test_file_of_another_kind_raises(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"photo\.jpg is no checkpoint by its suffix, expected \.safetensors"
    ):
        resolve(tmp_path / "photo.jpg")


def test_openvino_file_is_a_source_but_not_of_a_network(tmp_path: Path) -> None:
    (tmp_path / "network.xml").write_text("<net/>")
    assert resolve(tmp_path / "network.xml").format == "xml"
    with pytest.raises(ValueError, match="OpenVINO graph, which SaliencyPipeline runs"):
        U2Net.from_pretrained(tmp_path / "network.xml")


# Folders


def test_folder_without_weights_raises_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors; it holds \['notes\.txt'\]"):
        resolve(tmp_path)


def test_folder_with_several_weights_raises_with_their_names(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"\['a\.safetensors', 'b\.safetensors'\]; name the file to use"):
        resolve(tmp_path)


def test_folder_with_a_pickle_alone_loads_on_request(network: U2Net, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "network.pth")
    CONFIG.save(tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"only as a pickle \('network\.pth'\).*allow_pickle=True"):
        U2Net.from_pretrained(tmp_path)
    assert same_weights(U2Net.from_pretrained(tmp_path, allow_pickle=True), network)


def test_pickle_named_by_its_path_is_asked_for(
    filled: Callable[[str], U2Net], tmp_path: Path, assert_golden: Callable[..., None]
) -> None:
    torch.save(filled("u2netp").state_dict(), tmp_path / "u2netp.pth")
    assert_golden("u2netp", U2Net.from_pretrained(tmp_path / "u2netp.pth"), ("64x64",))


def test_safetensors_go_before_pickles(folder: Path) -> None:
    (folder / "other.pth").touch()
    assert resolve(folder, allow_pickle=True).format == "safetensors"


def test_config_of_another_library_raises(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ValueError, match=r"config\.json: .*another library"):
        U2Net.from_pretrained(folder)


def test_weights_that_do_not_fit_the_config_raise(folder: Path) -> None:
    U2NetConfig(variant="u2net").save(folder / "config.json")
    with pytest.raises(ValueError, match="does not fit 'u2net', its config: of 798 tensors"):
        U2Net.from_pretrained(folder)


def test_config_that_asks_for_too_much_costs_no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tuple(stage._replace(mid=4096, out=4096) for stage in TABLE)  # 20 GB of weights
    U2NetConfig(variant="custom", stages=wide).save(folder / "config.json")
    monkeypatch.setattr(U2Net, "__init__", None)
    with pytest.raises(ValueError, match="does not fit 'custom', its config"):
        U2Net.from_pretrained(folder)


def test_authors_weights_load_and_come_back(shared: Path, tmp_path: Path) -> None:
    loaded = U2Net.from_pretrained(shared / "reference" / "u2netp_author.safetensors")
    assert loaded.config == U2NetConfig()
    again = U2Net.from_pretrained(loaded.save_pretrained(tmp_path))
    assert same_weights(again, loaded)
    assert "U-2-Net authors" in again.notes["derived_from"]


# Saving


def test_saved_file_says_pytorch_and_who_wrote_it(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {"format": "pt", "library_name": "u2net-hub", "library_version": __version__}
    assert U2NetConfig.load(folder / "config.json") == CONFIG
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_same_network_makes_the_same_bytes(network: U2Net, folder: Path, tmp_path: Path) -> None:
    again = U2Net.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("dtype", ["float16", torch.float16, "bfloat16", torch.bfloat16])
def test_half_precision_is_for_convolutions_alone(
    dtype: str | torch.dtype, network: U2Net, tmp_path: Path
) -> None:
    network.save_pretrained(tmp_path, dtype=dtype)  # type: ignore[arg-type]
    half = getattr(torch, str(dtype).removeprefix("torch."))
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        kinds = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert {kind for key, kind in kinds.items() if ".bn_s1." not in key} == {half}
    assert {kind for key, kind in kinds.items() if ".bn_s1." in key} == {torch.float32, torch.int64}
    loaded = U2Net.from_pretrained(tmp_path).state_dict()
    for key, value in network.state_dict().items():
        expected = value if ".bn_s1." in key else value.to(half).float()
        assert torch.equal(loaded[key], expected)


def test_network_in_half_precision_is_saved_as_float32_unless_told(network: U2Net, tmp_path: Path) -> None:
    network.half().save_pretrained(tmp_path)
    assert U2Net.from_pretrained(tmp_path).notes["precision"] == "float32"


def test_channels_last_network_saves_the_same_file(network: U2Net, folder: Path, tmp_path: Path) -> None:
    network.to(memory_format=torch.channels_last).save_pretrained(tmp_path / "last")
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("dtype", ["float64", "int8", "half", torch.float64])
def test_other_precisions_raise(dtype: str, network: U2Net, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected float32, float16 or bfloat16"):
        network.save_pretrained(tmp_path / "none", dtype=dtype)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_weight_beyond_float16_raises_and_leaves_the_folder_as_it_was(network: U2Net, folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        network.get_parameter("outconv.weight").fill_(1e6)
    with pytest.raises(ValueError, match=r"outconv\.weight holds values that are not finite in float16"):
        network.save_pretrained(folder, dtype="float16")
    assert (folder / "model.safetensors").read_bytes() == before


def test_fused_network_is_not_saved(network: U2Net, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no batch norm left to save"):
        network.fuse().save_pretrained(tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_write_that_fails_leaves_the_old_files_and_nothing_else(
    network: U2Net, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    network.config = CONFIG.replace(input_size=(32, 32))
    with torch.no_grad():
        network.get_parameter("outconv.weight").zero_()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        network.save_pretrained(folder)
    assert caught.value.filename == str(folder)
    assert "free some space" in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_files_have_the_permissions_of_any_new_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    usual = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {usual}


def test_foreign_file_is_named_in_what_is_made_of_it(filled: Callable[[str], U2Net], tmp_path: Path) -> None:
    save_file(filled("u2netp").state_dict(), tmp_path / "u2netp.safetensors")
    first = U2Net.from_pretrained(tmp_path / "u2netp.safetensors").save_pretrained(tmp_path / "first")
    second = U2Net.from_pretrained(first).save_pretrained(tmp_path / "second")
    sha256 = resolve(tmp_path / "u2netp.safetensors").sha256
    expected = f"u2netp.safetensors (SHA-256 {sha256})"
    assert U2Net.from_pretrained(second).notes == {
        "format": "safetensors",
        "precision": "float32",
        "made_by": f"u2net-hub {__version__}",
        "derived_from": expected,
    }


# Bundled models


def test_bundled_models_are_listed_with_the_first_words_of_their_card(bundled: Path) -> None:
    (model,) = list_bundled()
    assert model[:3] == ("small", "custom", "Finds nothing, and quickly.")


def test_a_card_without_words_of_people_is_described_by_its_first_ones(bundled: Path) -> None:
    card = bundled / "README.md"
    card.write_text(card.read_text().partition("# Small")[0])
    (model,) = list_bundled()
    assert model.description == "The small one."


def test_no_two_bundled_models_have_the_same_description() -> None:
    descriptions = [model.description for model in list_bundled()]
    assert len(set(descriptions)) == len(descriptions) > 1


def test_every_listed_model_loads() -> None:
    for model in list_bundled():
        assert U2Net.from_pretrained(model.name).config.variant == model.variant


# The verbs


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_shows_the_bundled_models(bundled: Path) -> None:
    shown = run("list")
    assert shown.splitlines()[1].split()[:5] == ["small", "custom", "64", "×", "96"]
    assert "small: Finds nothing, and quickly." in shown


def test_info_tells_what_a_checkpoint_is(folder: Path) -> None:
    facts = json.loads(run("info", "--model", folder, "--json"))
    assert facts["variant"] == "custom"
    one_map, side, fusion_of_one, fusion_of_three = 6245, 73, 3, 21  # the first as counted in test_model.py
    assert facts["parameters"] == one_map + 2 * 2 * side - fusion_of_one + fusion_of_three
    assert facts["precision"] == "float32"
    assert facts["made_by"] == f"u2net-hub {__version__}"
    assert facts["sha256"] == resolve(folder).sha256
    assert facts["config"] == CONFIG.to_dict()


def test_info_is_readable_without_json(folder: Path) -> None:
    lines = run("info", "--model", folder).splitlines()
    for line in ("variant         custom", "precision       float32", "input size      [64, 96]"):
        assert line in lines
    assert not any(line.startswith("revision") for line in lines)


def test_info_sends_no_orders_to_a_terminal(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_type": "\x1b]0;evil\x07"}))
    assert all(line.isprintable() for line in run("info", "--model", folder).splitlines())


def test_errors_send_no_orders_to_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "\x1b[2Jevil.pth"
    path.write_bytes(b"x")
    monkeypatch.setattr(sys, "argv", ["u2net", "info", "--model", str(path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.strip().isprintable()


def test_convert_makes_a_folder_that_loads(
    filled: Callable[[str], U2Net], tmp_path: Path, assert_golden: Callable[..., None]
) -> None:
    torch.save({"state_dict": filled("u2netp").state_dict()}, tmp_path / "u2netp.pth")
    out = tmp_path / "a" / "b"
    assert run("convert", "--model", tmp_path / "u2netp.pth", "--out", out).strip() == str(out)
    assert_golden("u2netp", U2Net.from_pretrained(out), ("97x61",))


def test_convert_takes_precision_and_config(folder: Path, tmp_path: Path) -> None:
    changed = CONFIG.replace(input_size=(128, 128))
    changed.save(tmp_path / "changed.json")
    out = tmp_path / "out"
    run(
        "convert",
        "--model",
        folder,
        "--out",
        out,
        "--dtype",
        "float16",
        "--config",
        tmp_path / "changed.json",
    )
    loaded = U2Net.from_pretrained(out)
    assert loaded.config == changed
    assert loaded.notes["precision"] == "float16 and float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "--model", "nothing"], "u2net: no weights at 'nothing'"),
        (
            ["convert", "--model", "photo.jpg", "--out", "x"],
            "u2net: photo.jpg is no checkpoint by its suffix",
        ),
        (["info", "--model", "empty.pth"], "u2net: empty.pth is empty"),
        (["convert", "--model", "model", "--out", "x", "--dtype", "int8"], "u2net: dtype is 'int8'"),
        (["convert", "--model", "model", "--out", "photo.jpg"], "u2net: "),
    ],
)
def test_expected_error_is_one_line_and_exit_code_one(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("photo.jpg").write_bytes(b"x")
    Path("empty.pth").touch()
    monkeypatch.setattr(sys, "argv", ["u2net", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output = capsys.readouterr()
    assert stopped.value.code == 1
    assert output.out == ""
    assert output.err.startswith(message)
    assert output.err.count("\n") == 1
