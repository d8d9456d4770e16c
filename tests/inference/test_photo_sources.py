"""Photos of folders, lists and shards, page by page."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from u2net_hub.inference.cluster.compact_set import CompactSet, hash_names
from u2net_hub.inference.cluster.photo_sources import Item, Shard, find_photos, read_shard

pa = pytest.importorskip("pyarrow", reason="needs pyarrow, which comes with ray[data]")
pq = pytest.importorskip("pyarrow.parquet")


def items(source: Path, suffix: str = "png") -> list[Item]:
    return [item for page in find_photos(str(source), suffix) if isinstance(page, list) for item in page]


def shards(source: Path, column: str | None = None) -> list[Shard]:
    return [page for page in find_photos(str(source), "png", column=column) if isinstance(page, Shard)]


def tar_of(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return path


def test_a_folder_gives_pages_with_outputs_of_the_same_tree(tmp_path: Path) -> None:
    for name in ("a.v2.jpg", "b/c.PNG", ".hidden.jpg", "notes.txt", "b/meta.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    assert [item[:4] for item in items(tmp_path, "webp")] == [
        ("a.v2.jpg", str(tmp_path / "a.v2.jpg"), "a.v2.webp", 2),
        ("b/c.PNG", str(tmp_path / "b/c.PNG"), "b/c.webp", 2),
    ]


def test_a_name_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    name = b"\xff.jpg"
    try:
        (Path(bytes(tmp_path).decode()) / name.decode("utf-8", "surrogateescape")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    (item,) = items(tmp_path)
    assert item.key == "\\udcff.jpg"
    assert Path(item.address).exists()


def test_a_source_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture in"):
        items(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        items(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        items(tmp_path / "nothing.txt")


def test_a_file_of_an_unknown_kind_is_named_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "photos.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match=r"photos\.tar\.gz is a file of an unknown kind, .*\.tar.*; unpack"):
        items(tmp_path / "photos.tar.gz")


def test_a_list_holds_paths_and_urls(tmp_path: Path) -> None:
    lines = ["a b.jpg", "", "/data/c.jpg", "s3://bucket/d#1.jpg", "../e.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    first, second, third, outside = items(tmp_path / "list.txt")
    assert first[:3] == ("a b.jpg", str(tmp_path / "a b.jpg"), "a b.png")
    assert second[:3] == ("/data/c.jpg", "/data/c.jpg", "data/c.png")
    assert third[:3] == ("s3://bucket/d#1.jpg", "s3://bucket/d#1.jpg", "bucket/d#1.png")
    assert str(outside.error).startswith("../e.jpg leads out of the destination")


def test_a_parquet_file_of_text_is_a_list(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "path": ["a.jpg", "b.jpg"]}), tmp_path / "list.parquet")
    assert [item.key for item in items(tmp_path / "list.parquet")] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_a_parquet_file_of_pictures_is_a_shard_for_each_row_group(tmp_path: Path, kind: str) -> None:
    pictures = [b"one", b"two", None]
    cells = pictures if kind == "bytes" else [{"bytes": each, "path": "same.jpg"} for each in pictures]
    pq.write_table(pa.table({"name": ["x"] * 3, "image": cells}), tmp_path / "a.parquet", row_group_size=2)
    first, second = shards(tmp_path)
    assert (first.count, second.count, second.first) == (2, 1, 2)
    rows = [row for shard in (first, second) for row in read_shard(shard, "png")]
    found = [(item.key, item.target, content) for item, content in rows]
    assert found == [
        ("a.parquet/000000000", "a.parquet/000000000.png", b"one"),
        ("a.parquet/000000001", "a.parquet/000000001.png", b"two"),
        ("a.parquet/000000002", "a.parquet/000000002.png", b""),
    ]


def test_a_cell_that_holds_only_a_path_says_so(tmp_path: Path) -> None:
    cells = [{"bytes": b"one", "path": "1.jpg"}, {"bytes": None, "path": "/data/2.jpg"}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    (shard,) = shards(tmp_path)
    (one, content), (two, nothing) = read_shard(shard, "png")
    assert (one.error, content, nothing) == (None, b"one", b"")
    assert two.error is not None
    assert "holds no bytes, only the path /data/2.jpg; write" in two.error


def test_several_columns_need_a_choice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": [b"l"], "right": [b"r"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"several columns of pictures \['left', 'right'\]; .*--column"):
        shards(tmp_path)
    (shard,) = shards(tmp_path, "right")
    assert [content for _, content in read_shard(shard, "png")] == [b"r"]
    with pytest.raises(ValueError, match="no column 'up'"):
        shards(tmp_path, "up")


def test_a_tar_file_is_a_shard_with_its_pictures(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", "./0.jpg", "0.json", "1/2.png", "0.PNG")
    (shard,) = shards(tmp_path)
    found = [(item.key, item.target, content, item.error) for item, content in read_shard(shard, "png")]
    assert found[:2] == [
        ("a.tar/0.jpg", "a.tar/0.png", b"./0.jpg", None),
        ("a.tar/1/2.png", "a.tar/1/2.png", b"1/2.png", None),
    ]
    assert (
        found[2][3]
        == "a.tar/0.PNG: the output a.tar/0.png is that of another photo too; rename one of the two"
    )


def test_a_tar_file_without_pictures_is_an_error(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", "0.json")
    with pytest.raises(ValueError, match=r"no picture in .*a\.tar \(looked for .*\.jpg"):
        list(read_shard(Shard(str(tmp_path / "a.tar"), "a.tar"), "png"))


def test_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "a.tar", "0.jpg", "1.jpg").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:700])
    with pytest.raises((ValueError, OSError)):
        list(read_shard(Shard(str(tmp_path / "a.tar"), "a.tar"), "png"))
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"b\.parquet is not a Parquet file"):
        shards(tmp_path / "b.parquet")


def test_a_compact_set_finds_what_was_added() -> None:
    names = CompactSet()
    assert names.add(hash_names(["a", "b", "a"])).tolist() == [True, True, False]
    assert names.add(hash_names(["b", "c"])).tolist() == [False, True]
    assert names.contains(hash_names(["a", "c", "d"])).tolist() == [True, True, False]
    assert len(names) == 3
    assert names.add(hash_names([])).tolist() == []


def test_a_compact_set_takes_eight_bytes_for_a_name() -> None:
    names = CompactSet()
    random = np.random.default_rng(0)
    for _ in range(100):
        names.add(random.integers(0, 2**63, 1000, np.uint64))
    assert len(names) == 100_000
    assert sum(run.nbytes for run in names._runs) == 800_000
    assert len(names._runs) <= 17


def test_a_tar_file_that_was_cut_off_is_an_error_after_its_whole_photos(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "whole.tar", "a.jpg", "b.jpg").read_bytes()
    path = tmp_path / "cut.tar"
    for size in (1024, 1100):  # each member takes 1024 bytes: between two members, and in a header
        path.write_bytes(whole[:size])
        photos = read_shard(Shard(str(path), "cut.tar"), "png")
        assert next(photos)[0].key == "cut.tar/a.jpg"
        with pytest.raises(ValueError, match=r"cut\.tar is damaged"):
            next(photos)


def test_a_name_that_a_tar_file_holds_twice_fails_the_second_time(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "s.tar", "a.jpg", "a.jpg")
    first, second = (item.error for item, _ in read_shard(Shard(str(path), "s.tar"), "png"))
    assert first is None
    assert "that of another photo too" in str(second)


def test_a_parquet_file_without_rows_holds_no_picture(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no picture in"):
        shards(tmp_path / "none.parquet")
