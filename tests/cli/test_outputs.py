"""The rule of every verb that writes: an output that exists is not replaced without --overwrite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import HubServer
from PIL import Image
from typer.testing import CliRunner

from u2net_hub import U2Net, cli


def run(*arguments: object) -> None:
    """Run a verb; an expected error is raised, as `main` gets to see it."""
    CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture
def folder(tiny: Callable[[int], U2Net], tmp_path: Path) -> Path:
    return tiny(0).save_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_convert_replaces_nothing_unless_told(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run("convert", "--model", folder, "--out", out)
    assert [path.name for path in out.iterdir()] == [name]
    run("convert", "--model", folder, "--out", out, "--overwrite")
    assert (out / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_download_replaces_only_its_own_files_and_only_if_told(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/a", {"config.json": b"theirs"})
    for name in ("config.json", "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds config\.json already.*--overwrite"):
        run("download", "--model", "org/a", "--out", tmp_path)
    run("download", "--model", "org/a", "--out", tmp_path, "--overwrite")
    assert [(tmp_path / name).read_text() for name in ("config.json", "notes.txt")] == ["theirs", "mine"]


def test_other_files_in_the_folder_do_not_stop_a_download(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/a", {"config.json": b"theirs"})
    (tmp_path / "notes.txt").write_text("mine")
    run("download", "--model", "org/a", "--out", tmp_path)
    assert (tmp_path / "config.json").read_text() == "theirs"


@pytest.mark.parametrize("name", ["results.json", "curves.npz"])
def test_eval_refuses_before_it_looks_for_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run("eval", "--model", "nothing", "--data", "nowhere", "--out", tmp_path)
    with pytest.raises(FileNotFoundError):
        run("eval", "--model", "nothing", "--data", "nowhere", "--out", tmp_path, "--overwrite")


def test_check_data_refuses_before_it_reads(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run("check-data", "--data", "nowhere", "--out", tmp_path)


def test_card_updates_a_card_and_keeps_the_text_of_people(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    run("card", "--model", folder, "--name", "org/a", "--out", out)
    out.write_text(out.read_text(encoding="utf-8") + "\nWritten by hand.\n", encoding="utf-8")
    run("card", "--model", folder, "--name", "org/a", "--out", out)
    assert "Written by hand." in out.read_text(encoding="utf-8")


def test_card_leaves_a_file_that_is_no_card_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    out.write_text("# My notes\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run("card", "--model", folder, "--out", out)
    assert out.read_text(encoding="utf-8") == "# My notes\n"
    run("card", "--model", folder, "--out", out, "--overwrite")
    assert "library_name: u2net-hub" in out.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:clean_edges is deprecated:DeprecationWarning")
def test_clean_edges_still_clean_soft_edges(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "photo.png"
    Image.effect_noise((32, 32), 90).convert("RGB").save(source)
    soft = ("cutout", source, "--model", folder, "--device", "cpu", "--minmax", "always", "--edges", "soft")
    run(*soft, "--out", tmp_path / "soft.png")
    run(*soft, "--out", tmp_path / "clean.png", "--clean-edges")
    left, clean = (Image.open(tmp_path / name).convert("RGB") for name in ("soft.png", "clean.png"))
    assert left.tobytes() == Image.open(source).tobytes() != clean.tobytes()
