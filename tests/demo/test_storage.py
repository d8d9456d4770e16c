"""No visitor fills the disk of the demo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra 'space' is not installed")

from u2net_hub.demo import storage as storage_module
from u2net_hub.demo.storage import FILE_BYTES, SHARE, Storage

MB = 1_000_000


def test_an_address_may_store_its_share_and_no_more(tmp_path: Path) -> None:
    storage = Storage(tmp_path, 10 * MB * SHARE)
    storage.charge("one", 6 * MB)
    with pytest.raises(ValueError, match=r"have 6\.0 MB, this one has 5\.0 MB, expected at most 10\.0 MB"):
        storage.charge("one", 5 * MB)
    storage.charge("one", 4 * MB)
    storage.charge("other", 10 * MB)


def test_an_address_may_store_again_when_its_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(storage_module.time, "monotonic", lambda: now)
    storage = Storage(tmp_path, MB * SHARE)
    storage.charge("one", MB)
    with pytest.raises(ValueError, match="try again later"):
        storage.charge("one", MB)
    now = 3601.0
    storage.charge("one", MB)


def test_a_small_file_counts_as_much_as_its_place_on_the_disk(tmp_path: Path) -> None:
    storage = Storage(tmp_path, 2 * FILE_BYTES * SHARE)
    storage.charge("one", 1)
    storage.charge("one", 1)
    with pytest.raises(ValueError, match="try again later"):
        storage.charge("one", 1)


def test_when_all_have_stored_too_much_the_oldest_files_make_room(tmp_path: Path) -> None:
    storage = Storage(tmp_path, 10 * FILE_BYTES)
    for number in range(11):
        file = tmp_path / f"{number}.png"
        storage.charge(f"address {number}", FILE_BYTES)
        file.write_bytes(b"")
        os.utime(file, (number, number))
    # before the eleventh, the ten had to shrink to eight tenths together with it
    assert {int(path.stem) for path in tmp_path.iterdir()} == {3, 4, 5, 6, 7, 8, 9, 10}


def test_half_of_a_small_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module.shutil, "disk_usage", lambda folder: os.statvfs_result)
    monkeypatch.setattr(os.statvfs_result, "free", 20 * MB, raising=False)
    storage = Storage(tmp_path)
    with pytest.raises(ValueError, match=r"expected at most 2\.0 MB"):
        storage.charge("one", 3 * MB)
