"""Repos that are laid out for other loaders: pushes keep their files in step with the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import WRITER, HubServer
from PIL import Image
from typer.testing import CliRunner, Result

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.cli import app
from u2net_hub.config import Stage
from u2net_hub.engines import keep_loaders
from u2net_hub.hub import LOADER_FILES, validate_card
from u2net_hub.hub.loaders import GRAPHS

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

CAT = Path(__file__).resolve().parents[2] / "examples" / "chelsea.jpg"
CODE = {"modeling_u2net.py", "u2net_network.py"}

Tiny = Callable[[int], U2Net]


def small(seed: int) -> U2Net:
    """A network that is large enough for graphs."""
    torch.manual_seed(seed)
    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))
    return U2Net(U2NetConfig(variant="custom", stages=stages, input_size=(40, 40))).eval()


def names(hub: HubServer) -> set[str]:
    return set(hub.repos["models", "org/a"].trees[hub.repos["models", "org/a"].head])


def config(hub: HubServer) -> dict[str, object]:
    return json.loads(hub.read("org/a", "config.json"))


def u2net(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_push_adds_the_files_of_a_loader_and_its_entries(hub: HubServer, tiny: Tiny) -> None:
    network = tiny(0)
    network.push_to_hub("org/a", token=WRITER, extra=keep_loaders(network, ["transformers"]))
    assert names(hub) >= CODE
    assert config(hub)["auto_map"]
    card = hub.read("org/a", "README.md").decode()
    validate_card(card)
    assert "**executes the Python files of this repo**" in card
    loaded = U2Net.from_pretrained("org/a")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


def test_second_push_makes_no_commit(hub: HubServer) -> None:
    network = small(0)
    extra = keep_loaders(network, ["transformers.js", "endpoints"])
    assert network.push_to_hub("org/a", token=WRITER, extra=extra).changed
    again = U2Net.from_pretrained("org/a")
    assert not again.push_to_hub("org/a", token=WRITER, extra=keep_loaders(again, [])).changed


def test_push_of_other_weights_makes_the_graphs_anew(hub: HubServer) -> None:
    first, second = small(0), small(1)
    first.push_to_hub("org/a", token=WRITER, extra=keep_loaders(first, ["transformers.js"]))
    before = hub.read("org/a", GRAPHS[0])
    second.push_to_hub("org/a", token=WRITER, extra=keep_loaders(second, []))
    assert names(hub) >= set(GRAPHS)
    assert hub.read("org/a", GRAPHS[0]) != before


def test_push_of_other_weights_without_loaders_deletes_the_graphs_and_says_so(
    hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    network = small(0)
    network.push_to_hub(
        "org/a", token=WRITER, extra=keep_loaders(network, ["transformers.js", "transformers"])
    )
    small(1).push_to_hub("org/a", token=WRITER)
    assert not names(hub) & set(GRAPHS)
    assert names(hub) >= CODE  # the code reads whatever weights are there
    assert config(hub)["u2net_hub.loaders"] == ["transformers"]
    assert "push with --for transformers.js" in caplog.text


def test_graph_of_someone_else_is_left_alone(hub: HubServer, tiny: Tiny) -> None:
    hub.add("org/a", {"onnx/model.onnx": b"theirs", "handler.py": b"theirs"})
    tiny(0).push_to_hub("org/a", token=WRITER)
    network = tiny(1)
    network.push_to_hub("org/a", token=WRITER, extra=keep_loaders(network, []))
    assert hub.read("org/a", "onnx/model.onnx") == hub.read("org/a", "handler.py") == b"theirs"


def test_entries_of_the_owner_are_kept_beside_ours(hub: HubServer, tiny: Tiny) -> None:
    network = tiny(0)
    network.config = network.config.replace(other={"base_model": "org/other"})
    network.push_to_hub("org/a", token=WRITER, extra=keep_loaders(network, ["transformers"]))
    assert config(hub)["base_model"] == "org/other"


def test_command_shows_the_files_of_a_loader_before_a_push(tmp_path: Path, tiny: Tiny) -> None:
    source = tiny(0).save_pretrained(tmp_path / "tiny")
    shown = u2net("push", "org/a", "--model", source, "--for", "endpoints", "--dry-run").stdout
    for name in LOADER_FILES["endpoints"]:
        assert re.search(rf"^{re.escape(name)} .* bytes$", shown, re.M)
    assert "Inference Endpoints" in shown


def test_command_lays_out_the_folder_of_a_card(tmp_path: Path, tiny: Tiny) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "tiny")
    u2net("card", "--model", folder, "--out", folder / "README.md", "--for", "transformers")
    assert {path.name for path in folder.iterdir()} >= CODE
    assert json.loads((folder / "config.json").read_text())["u2net_hub.loaders"] == ["transformers"]
    assert "AutoModelForImageSegmentation" in (folder / "README.md").read_text()
    u2net("card", "--model", folder, "--out", folder / "README.md", "--for", "transformers")  # ours: replaced


def test_command_keeps_a_file_that_it_did_not_make(tmp_path: Path, tiny: Tiny) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "tiny")
    (folder / "handler.py").write_text("mine")
    words = ("card", "--model", folder, "--out", folder / "README.md", "--for", "endpoints")
    with pytest.raises(FileExistsError, match=r"handler.py exists already"):
        u2net(*words)
    assert (folder / "handler.py").read_text() == "mine"
    assert not (folder / "u2net_network.py").exists()


def test_command_lays_out_no_folder_without_the_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not hold the weights of u2netp.*u2net convert"):
        u2net("card", "--model", "u2netp", "--out", tmp_path / "README.md", "--for", "endpoints")
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_an_unknown_loader_and_one_for_a_space() -> None:
    with pytest.raises(ValueError, match="unknown loader 'keras'"):
        u2net("push", "org/a", "--model", "u2netp", "--for", "keras", "--dry-run")
    with pytest.raises(ValueError, match="--for are for a model"):
        u2net("push", "org/a", "--space", "--for", "endpoints", "--dry-run")


def test_lines_of_the_card_for_onnx_runtime_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small(0).save_pretrained(tmp_path / "small")
    u2net("card", "--model", folder, "--out", folder / "README.md", "--for", "onnxruntime")
    text = (folder / "README.md").read_text()
    [code] = [each for each in re.findall(r"```python\n(.*?)```", text, re.S) if "onnxruntime" in each]
    monkeypatch.chdir(tmp_path)
    Image.open(CAT).save("photo.jpg")
    exec(code, {})
    cutout = Image.open("cutout.png")
    from u2net_hub import SaliencyPipeline

    expected = np.asarray(SaliencyPipeline(folder)("photo.jpg").mask(None), int)
    assert np.abs(np.asarray(cutout.getchannel("A"), int) - expected).mean() <= 0.002 * 255
