"""The manifest of a long run, and a worker without a cluster."""

from __future__ import annotations

import errno
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_hub import U2Net, U2NetConfig, run_on_ray
from u2net_hub.config import Stage
from u2net_hub.hub import resolve
from u2net_hub.inference.cluster.compact_set import hash_names
from u2net_hub.inference.cluster.feed import BlockFeed
from u2net_hub.inference.cluster.lease import Lease
from u2net_hub.inference.cluster.manifest import Done, Manifest, PartWriter, failed_row
from u2net_hub.inference.cluster.photo_sources import Item, Shard, find_photos
from u2net_hub.inference.cluster.run import _check_destination
from u2net_hub.inference.cluster.shipped_weights import pack_weights, unpack_weights
from u2net_hub.inference.cluster.worker import Block, DestinationError, PhotoWorker, WorkerPlan
from u2net_hub.inference.plan import read_options

pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, which comes with ray[data]")

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="always")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return U2Net(CONFIG).save_pretrained(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("U2NET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(key: str) -> Any:
    return {**failed_row(key, "", output=f"{key}.png"), "status": "written", "error": None}


def test_a_part_is_read_back_without_what_failed(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path / "out"))
    writer = PartWriter(manifest.folder, "run-1")
    for row in (written("a"), failed_row("b", "broken"), written("c")):
        writer.add(row)
    writer.flush()
    done = manifest.load()
    assert done.count == len(done.keys) == len(done.targets) == 2
    (part,) = Path(manifest.folder).glob("*.parquet")
    assert pq.read_table(part)["path"].to_pylist() == ["a", "c"]


def test_a_part_of_failures_only_is_removed(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path / "out"))
    writer = PartWriter(manifest.folder, "run-1")
    writer.add(failed_row("b", "broken"))
    writer.flush()
    assert manifest.load().count == 0
    assert not list(Path(manifest.folder).glob("*.parquet"))


def test_names_that_are_no_utf_8_are_escaped_in_the_manifest_and_found_again(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path / "out"))
    writer = PartWriter(manifest.folder, "run-1")
    writer.add({**written("a"), "output": "\udcff.png"})
    writer.flush()
    (part,) = Path(manifest.folder).glob("*.parquet")
    assert pq.read_table(part)["output"].to_pylist() == [r"\udcff.png"]
    assert manifest.load().targets.contains(hash_names(["\udcff.png"])).all()


def test_settings_of_a_run_that_never_started_bind_nobody(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path / "out"))
    manifest.write_settings({"label": "cat"})
    assert _check_destination(manifest, {"label": "cat"}, "refuse")
    assert not _check_destination(manifest, {"label": None}, "refuse")
    writer = PartWriter(manifest.folder, "run-1")
    writer.add(written("a"))
    writer.flush()
    with pytest.raises(ValueError, match="label was 'cat', now None"):
        _check_destination(manifest, {"label": None}, "refuse")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path / "out"))
    Path(manifest.folder).mkdir(parents=True)
    (Path(manifest.folder) / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"x\.parquet is damaged"):
        manifest.load()


def test_photos_with_one_output_are_one_photo_and_failures() -> None:
    found = iter([[Item("a.jpg", "", "a.png"), Item("b.jpg", "", "b.png"), Item("a.png", "", "a.png")]])
    feed = BlockFeed(found, Done())
    feed.start()
    block = feed.take(1)
    assert block is not None
    assert isinstance(block.photos, tuple)
    assert [item.error for item in block.photos] == [
        None,
        None,
        "a.png: the output a.png is that of another photo too; rename one of the two",
    ]


def test_a_photo_that_is_listed_twice_is_processed_once() -> None:
    feed = BlockFeed(iter([[Item("a.jpg", "", "a.png")], [Item("a.jpg", "", "a.png")]]), Done())
    feed.start()
    while feed.total is None:
        pass
    block = feed.take(1)
    assert block is not None
    assert (len(block), feed.listed, feed.is_empty) == (1, 1, True)


def test_photos_are_counted_where_they_cannot_be_listed_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2net_hub.inference.cluster.feed._AHEAD", 2)
    monkeypatch.setattr("u2net_hub.inference.cluster.feed._SMALLEST", 1)

    def find() -> Any:
        return ([Item(f"{i}.jpg", "", f"{i}.png")] for i in range(9))

    feed = BlockFeed(find(), Done(), find)
    feed.start()
    while feed.total is None:
        pass
    assert (feed.total, feed.listed < 9) == (9, True)
    blocks = 0
    while not feed.is_empty:
        blocks += len(feed.take(1) or ())
    assert (blocks, feed.listed) == (9, 9)
    feed.close()


def test_an_error_of_the_listing_is_raised() -> None:
    feed = BlockFeed(find_photos("/no/such/folder", "png"), Done())
    with pytest.raises(FileNotFoundError):
        feed.start()


def worker_for(tmp_path: Path, weights: Path, **changes: Any) -> tuple[PhotoWorker, Lease]:
    manifest = Manifest(str(tmp_path / "out"))
    lease = Lease(manifest.folder, "run")
    shipped, _ = pack_weights(resolve(weights))
    options = read_options(None, format="png", **changes)
    pipeline = {"engine": "torch", "device": "cpu"}
    return PhotoWorker(WorkerPlan("run", manifest, shipped, options, None, pipeline), 1, []), lease


def photos(folder: Path, count: int) -> tuple[Item, ...]:
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tuple(Item(f"{i}.png", str(folder / f"{i}.png"), f"{i}.png", 1) for i in range(count))


@pytest.fixture
def opened(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoWorker:
    """A worker in this process, with its network; the weights are in the cache."""
    pytest.importorskip("ray", reason="the worker counts in Ray's metrics")
    worker, _ = worker_for(tmp_path, weights)
    monkeypatch.setattr(worker, "_fetch_weights", lambda: pack_weights(resolve(weights))[1])
    monkeypatch.setattr("u2net_hub.inference.cluster.worker.limit_threads", lambda cores: None)
    monkeypatch.setattr("u2net_hub.inference.cluster.worker._metric", lambda: lambda status: None)
    worker.open()
    return worker


def test_a_photo_that_was_alone_at_two_deaths_is_given_up(tmp_path: Path, opened: PhotoWorker) -> None:
    note = tmp_path / "out/_manifest/_attempts-run-00000007.json"
    note.write_text(json.dumps({"deaths": {"1.png": 1}, "current": "1.png"}))
    counts = opened.run(Block(7, photos(tmp_path / "in", 3), attempt=3))
    assert (counts.written, counts.failed) == (2, 1)
    assert counts.errors == [("1.png", "1.png: the process of its worker died 2 times")]
    assert not note.exists()


def test_a_second_attempt_leaves_out_the_rows_of_the_first(tmp_path: Path, opened: PhotoWorker) -> None:
    writer = PartWriter(str(tmp_path / "out/_manifest"), "run-00000007")
    writer.add(written("0.png"))
    writer.flush()
    counts = opened.run(Block(7, photos(tmp_path / "in", 2), attempt=2))
    assert counts.written == 2
    assert not (tmp_path / "out/0.png").exists()
    assert (tmp_path / "out/1.png").exists()


def shards_left(manifest: Manifest, folder: Path) -> tuple[BlockFeed, list[Any]]:
    """What the next run of a folder of shards finds, and the shards that it gives to its workers."""
    feed = BlockFeed(find_photos(str(folder), "png"), manifest.load())
    feed.start()
    shards = []
    while feed.has_work():
        block = feed.take(1)
        assert block is not None
        shards.append(block.photos)
    return feed, shards


def test_a_tar_file_that_is_done_is_not_read_again(tmp_path: Path, opened: PhotoWorker) -> None:
    items = photos(tmp_path / "in", 3)
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "a.tar", "w") as tar:
        for item in items:
            tar.add(item.address, item.key)
    manifest = Manifest(str(tmp_path / "out"))
    (shard,) = find_photos(str(shards), "png")
    assert isinstance(shard, Shard)
    assert opened.run(Block(1, shard)).written == 3
    feed, left = shards_left(manifest, shards)
    assert (left, feed.skipped, feed.total) == ([], 3, 3)

    with tarfile.open(shards / "a.tar", "a") as tar:  # another file of the same name
        tar.add(items[0].address, "new.png")
    feed, left = shards_left(manifest, shards)
    assert (len(left), feed.skipped, feed.total) == (1, 3, None)
    counts = opened.run(Block(2, left[0]))
    assert (counts.written, counts.failed) == (1, 0)
    assert shards_left(manifest, shards)[1] == []


def test_a_tar_file_with_a_failed_photo_is_read_again(tmp_path: Path, opened: PhotoWorker) -> None:
    (item,) = photos(tmp_path / "in", 1)
    (tmp_path / "in/broken.png").write_bytes(b"broken")
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "a.tar", "w") as tar:
        tar.add(item.address, item.key)
        tar.add(tmp_path / "in/broken.png", "broken.png")
    manifest = Manifest(str(tmp_path / "out"))
    for number in range(2):
        _, (shard,) = shards_left(manifest, shards)
        counts = opened.run(Block(number, shard))
        assert (counts.written, counts.failed) == (1 - number, 1)
    assert manifest.load().whole_shards == {}


def test_a_failed_photo_of_a_changed_tar_file_is_tried_again(tmp_path: Path, opened: PhotoWorker) -> None:
    items = photos(tmp_path / "in", 3)
    (tmp_path / "in/broken.png").write_bytes(b"broken")
    shards = tmp_path / "shards"
    shards.mkdir()
    manifest = Manifest(str(tmp_path / "out"))
    for number, names in enumerate([[item.key for item in items], ["0.png", "broken.png"]]):
        with tarfile.open(shards / "a.tar", "w") as tar:
            for name in names:
                tar.add(tmp_path / "in" / name, name)
        _, (shard,) = shards_left(manifest, shards)
        opened.run(Block(number, shard))
    for number in (2, 3):  # more photos are done than the new file holds
        _, (shard,) = shards_left(manifest, shards)
        assert opened.run(Block(number, shard)).failed == 1


def test_an_output_never_replaces_its_photo(tmp_path: Path, opened: PhotoWorker) -> None:
    (item,) = photos(tmp_path / "in", 1)
    (tmp_path / "out/0.png").hardlink_to(item.address)
    before = Path(item.address).read_bytes()
    counts = opened.run(Block(1, (item,)))
    assert "would replace the photo" in counts.errors[0][1]
    assert Path(item.address).read_bytes() == before


def test_a_full_disk_ends_the_run_not_one_photo(
    tmp_path: Path, opened: PhotoWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(address: str, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", address)

    monkeypatch.setattr("u2net_hub.inference.cluster.worker.write_bytes", full)
    with pytest.raises(DestinationError, match="No space left on device; repeat the command to continue"):
        opened.run(Block(1, photos(tmp_path / "in", 1)))


def test_a_worker_that_does_not_see_the_destination_says_so(tmp_path: Path, weights: Path) -> None:
    worker, lease = worker_for(tmp_path, weights)
    lease.__exit__(None, None, None)
    with pytest.raises(FileNotFoundError, match="a folder that all machines share"):
        worker.open()


def test_weights_are_fetched_once_and_again_if_they_are_damaged(weights: Path, cache: Path) -> None:
    shipped, contents = pack_weights(resolve(weights))
    fetched: list[int] = []

    def fetch() -> dict[str, bytes]:
        fetched.append(1)
        return contents

    first = unpack_weights(shipped, fetch)
    assert unpack_weights(shipped, fetch) == first
    assert len(fetched) == 1
    assert first.sha256 == resolve(weights).sha256
    assert first.config() == CONFIG
    first.weights_path.write_bytes(b"damaged")
    again = unpack_weights(shipped, fetch)
    assert again.weights_path.read_bytes() == (weights / "model.safetensors").read_bytes()
    assert len(fetched) == 2
    first.weights_path.unlink()
    with pytest.raises(ValueError, match="damaged on its way"):
        unpack_weights(shipped, lambda: dict.fromkeys(contents, b"other"))


def test_bundled_weights_are_those_of_the_machine(cache: Path) -> None:
    shipped, _ = pack_weights(resolve("u2netp"))
    assert unpack_weights(shipped, dict).weights_path == resolve("u2netp").weights_path
    assert {name for name in shipped.hashes if "int8" in name}


@pytest.mark.parametrize(
    ("source", "out", "settings", "error", "match"),
    [
        ("in", "full", {}, FileExistsError, r"holds files already, e\.g\. a\.txt, but no manifest"),
        ("in", "full/a.txt", {}, FileExistsError, r"a\.txt is a file, expected a folder"),
        ("in", "in", {}, ValueError, "choose another destination"),
        ("in/sub", "in", {}, ValueError, "choose another destination"),
        ("in", "hf://datasets/a/b", {}, ValueError, "one commit for each photo"),
        ("nothing", "out", {}, FileNotFoundError, "nothing does not exist"),
        ("empty", "out", {}, ValueError, r"no picture in .*empty"),
        ("in", "out", {"workers": 0}, ValueError, "workers is 0"),
        ("in", "out", {"gpus_per_worker": -1}, ValueError, "gpus_per_worker is -1"),
        ("in", "out", {"model": "no-such"}, FileNotFoundError, "no weights at 'no-such'"),
        ("in", "out", {"format": "jpg"}, ValueError, "JPEG has no transparency"),
        ("in", "out", {"address": "nowhere"}, ValueError, "unknown address 'nowhere'"),
    ],
)
def test_what_cannot_work_is_refused_before_work_starts(
    source: str,
    out: str,
    settings: Any,
    error: type[Exception],
    match: str,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "in", 1)
    (tmp_path / "in/sub").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").touch()
    with pytest.raises(error, match=match):
        run_on_ray(source, out, **{"model": weights, **settings})
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["0.png", "sub"]
