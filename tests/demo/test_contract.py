"""What a call of the page may hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from u2net_hub.demo.contract import Contract, _is_number


def taken(folder: Path, path: str) -> bool:
    page: Any = SimpleNamespace(fns={})
    return Contract(page, folder)._is_file({"path": path, "meta": {"_type": "gradio.FileData"}})


@pytest.mark.parametrize("path", [".", "photo.png/x", "x" * 300, "../photo.png"])
def test_what_gradio_could_not_delete_is_no_upload(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "photo.png").write_bytes(b"")
    (tmp_path / "photo.png").write_bytes(b"")
    assert not taken(folder, f"{folder}/{path}")


@pytest.mark.parametrize("path", ["photo.png", "deleted.png"])
def test_an_upload_is_taken_and_the_handler_says_if_it_was_deleted(path: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    assert taken(tmp_path, f"{tmp_path}/{path}")


@pytest.mark.parametrize(
    "value", [pytest.param(10**400, id="400 digits"), float("inf"), float("nan"), True, "1"]
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    assert not _is_number(value)
