"""Files are written whole or not at all, and hashed."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from u2net_hub import atomic
from u2net_hub.atomic import content_hash, write_file, write_files, write_folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full_disk(monkeypatch):
    """Make the disk full from the second file on."""
    write, written = atomic._write, []

    def fill(file, content, sync):
        written.append(file)
        if len(written) > 1:
            file.write(content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content, sync)

    monkeypatch.setattr(atomic, "_write", fill)


@pytest.fixture
def no_hard_links(monkeypatch):
    """A file system such as exFAT."""

    def refuse(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_a_file_is_written_with_its_folder(tmp_path):
    write_file(tmp_path / "a/b/c.txt", b"content")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"content"
    assert names_in(tmp_path / "a/b") == ["c.txt"]


def test_an_existing_file_is_replaced(tmp_path):
    (tmp_path / "a").write_bytes(b"longer than the new content")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_files_have_the_mode_that_the_umask_gives(tmp_path, umask, mode, overwrite):
    before = os.umask(umask)
    try:
        write_files(tmp_path, {"a": b"1", "b": b"2"}, overwrite=overwrite)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, full_disk, overwrite):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_files(tmp_path, {"a": b"new", "b": b"new"}, overwrite=overwrite)
    assert names_in(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_an_existing_file_is_refused_and_no_other_file_is_written(tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError, match="b"):
        write_files(tmp_path, {"a": b"new", "b": b"new"}, overwrite=False)
    assert names_in(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_link_to_nowhere_counts_as_an_existing_file(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", b"new", overwrite=False)
    assert (tmp_path / "a").is_symlink()


def test_without_hard_links_a_new_file_is_written(tmp_path, no_hard_links):
    write_file(tmp_path / "a", b"new", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names_in(tmp_path) == ["a"]


def test_without_hard_links_an_existing_file_is_refused(tmp_path, no_hard_links):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_files(tmp_path, {"a": b"new", "b": b"new"}, overwrite=False)
    assert names_in(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    name = "n" * 255
    write_file(tmp_path / name, b"new")
    assert names_in(tmp_path) == [name]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"a file")
    with pytest.raises(OSError, match="a"):
        write_file(tmp_path / "a/b", b"new")


def test_the_hash_of_bytes_and_of_a_file_is_sha256(tmp_path):
    # the test vector "abc" of FIPS 180-4
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert content_hash(b"abc") == content_hash(tmp_path / "abc") == expected


def test_the_hash_of_git_is_that_of_git_hash_object(tmp_path):
    # printf 'test content\n' | git hash-object --stdin, from the Git book
    assert content_hash(b"test content\n", git=True) == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"


def test_a_folder_is_written_with_what_is_in_it(tmp_path):
    write_folder(
        tmp_path / "new" / "net.mlpackage", {"Manifest.json": b"{}", "Data/weights/weight.bin": b"1"}
    )
    folder = tmp_path / "new" / "net.mlpackage"
    assert (folder / "Data" / "weights" / "weight.bin").read_bytes() == b"1"
    assert names_in(folder.parent) == ["net.mlpackage"]


def test_a_folder_that_is_replaced_keeps_no_old_file(tmp_path):
    write_folder(tmp_path / "net", {"a": b"1", "old": b"2"})
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "net", {"a": b"3"})
    write_folder(tmp_path / "net", {"a": b"3"}, overwrite=True)
    assert names_in(tmp_path / "net") == ["a"]
    assert names_in(tmp_path) == ["net"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "diary.txt").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "net", {"a": b"3"}, overwrite=True)
    assert names_in(tmp_path / "net") == ["diary.txt"]


def test_a_folder_stays_as_it_was_when_the_disk_is_full(tmp_path, full_disk):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="free some space"):
        write_folder(tmp_path / "net", {"a": b"1", "b": b"2"}, overwrite=True)
    assert (tmp_path / "net" / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["net"]
