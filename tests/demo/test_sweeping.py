"""What visitors leave behind does not stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra 'space' is not installed")

from u2net_hub.demo.sweeping import KEPT_SECONDS, SWEEP_SECONDS, shed, sweep, swept


def aged(path: Path) -> Path:
    """Make a path look as if it had not changed for longer than files are kept."""
    then = path.lstat().st_mtime - KEPT_SECONDS - 1
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def test_old_files_and_empty_folders_go_and_new_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "batch").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "tmpcut").write_bytes(b"a part of an upload")
    (tmp_path / "batch" / "old.zip").write_bytes(b"")
    (tmp_path / "batch" / "new.zip").write_bytes(b"")
    for name in ("empty", "tmpcut", "batch/old.zip"):
        aged(tmp_path / name)
    sweep(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "batch",
        "batch/new.zip",
    ]


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").write_bytes(b"")
    aged(tmp_path / "elsewhere" / "mine.txt")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link").symlink_to(tmp_path / "elsewhere")
    aged(tmp_path / "files" / "link")
    sweep(tmp_path / "files")
    assert not list((tmp_path / "files").iterdir())
    assert (tmp_path / "elsewhere" / "mine.txt").is_file()


def test_what_was_there_at_the_start_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "example.jpg").write_bytes(b"")
    aged(tmp_path / "example.jpg")
    (tmp_path / "undeletable").mkdir()
    monkeypatch.setattr("u2net_hub.demo.sweeping.SWEEP_SECONDS", 0.01)
    with swept(tmp_path):
        (tmp_path / "photo.jpg").write_bytes(b"")
        aged(tmp_path / "photo.jpg")
        while (tmp_path / "photo.jpg").exists():
            pass
    assert (tmp_path / "example.jpg").is_file()


def test_no_file_stays_longer_than_the_hour_that_the_page_promises() -> None:
    assert KEPT_SECONDS + SWEEP_SECONDS == 3600


def test_the_oldest_files_go_until_the_others_have_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"12345")
        os.utime(tmp_path / name / "a.png", (1000 - age, 1000 - age))
    (tmp_path / "example.jpg").write_bytes(b"x" * 100)
    os.utime(tmp_path / "example.jpg", (0, 0))
    kept = {tmp_path / "example.jpg"}
    assert shed(tmp_path, 12, 1, kept) == 10
    assert not (tmp_path / "oldest" / "a.png").exists()
    assert shed(tmp_path, 12, 7, kept) == 7  # now each file counts 7 bytes
    assert [path.parent.name for path in tmp_path.rglob("a.png")] == ["new"]
    assert (tmp_path / "example.jpg").exists()
