"""Photos on a real Ray cluster, which these tests start: two cores, and machines that come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("ray", reason="needs ray, which has no wheel for this Python")
pytest.importorskip("moto", reason="needs moto[server]")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")
pytest.importorskip("s3fs", reason="needs s3fs")

import psutil
import pyarrow.dataset
import pyarrow.parquet
import ray
from bucket_server import BucketServer
from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from u2net_hub import CutoutBatch, MaskBatch, SaliencyPipeline, U2Net, U2NetConfig, run_files, run_on_ray
from u2net_hub.cli import app
from u2net_hub.config import Stage
from u2net_hub.inference import Progress
from u2net_hub.inference.cluster import pool, remote_files

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 48), minmax="always")
PHOTOS, BROKEN = 300, 10
ENGINE: Any = "onnxruntime"  # which takes least time to start

pytestmark = pytest.mark.filterwarnings(
    # Ray leaves pipes and files of the processes that it starts to the garbage collector
    "ignore:unclosed:ResourceWarning",
    r"ignore:subprocess \d+ is still running:ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    # Ray 2.5x says that the variable for accelerators will change
    "ignore:Tip. In future versions of Ray:FutureWarning",
    "ignore:`use_.*` is deprecated:DeprecationWarning",  # by Ray Data itself
)


class House(NamedTuple):
    """What all tests share."""

    cluster: Cluster
    server: BucketServer
    weights: Path
    photos: Path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A cluster of one machine with two cores, a bucket, weights of a tiny network, and photos."""
    folder = tmp_path_factory.mktemp("house")
    torch.manual_seed(0)
    U2Net(CONFIG).save_pretrained(folder / "weights")
    make_photos(folder / "photos", PHOTOS, BROKEN)
    server = BucketServer()
    server.make_bucket("photos")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "mine",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.address,
            "U2NET_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "4",
        }.items():
            patch.setenv(name, value)
        remote_files._file_system.cache_clear()
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20}
        )
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield House(cluster, server, folder / "weights", folder / "photos")
        ray.shutdown()
        cluster.shutdown()
    server.close()


def make_photos(
    folder: Path, count: int, broken: int = 0, size: tuple[int, int] = (64, 48), *, slow: bool = False
) -> None:
    """Write smooth photos, of which the first ones are broken; of slow ones, edges="hair" takes long."""
    random = np.random.default_rng(0)
    coarse = size if slow else (4, 3)
    for i in range(count):
        path = folder / f"{i % 3}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < broken:
            path.write_bytes(b"" if i % 2 else b"no picture")
        else:
            pixels = random.integers(0, 256, (coarse[1], coarse[0], 3), np.uint8)
            Image.fromarray(pixels).resize(size).save(path)


def rows_of(manifest: str | Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(str(manifest), exclude_invalid_files=True).to_table().to_pylist()


def each_once(rows: list[dict[str, Any]]) -> bool:
    return set(Counter(row["path"] for row in rows).values()) == {1}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.png")
        if "_manifest" not in path.parts
    }


def workers_of(driver: int) -> list[int]:
    """The processes of the actors, among all that descend from a process."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "ray::ClusterWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:  # it has ended
            continue
    return found


def assert_equals_a_run_without_a_cluster(
    house: House, photos: Path, engine: Any, out: Path, workers: int
) -> None:
    pipeline = SaliencyPipeline(house.weights, engine=engine, device="cpu")
    expected = run_files(pipeline, photos, out / "expected")
    summary = run_on_ray(
        photos, out / "found", model=house.weights, engine=engine, device="cpu", workers=workers
    )
    assert summary.engine == engine
    assert (summary.written, summary.failed) == (expected.count("written"), expected.count("failed"))
    assert summary.failed > 0
    rows = rows_of(summary.manifest)
    assert each_once(rows)
    assert len(rows) == len(expected.files)
    assert files_in(out / "found").keys() == files_in(out / "expected").keys()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_outputs_are_byte_for_byte_those_of_a_run_without_a_cluster(
    house: House, engine: str, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    assert_equals_a_run_without_a_cluster(house, house.photos, engine, tmp_path, 2)
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")


def test_outputs_of_torch_are_within_one_grey_level(house: House, tmp_path: Path) -> None:
    assert_equals_a_run_without_a_cluster(house, house.photos / "0", "torch", tmp_path, 1)
    for name in files_in(tmp_path / "found"):
        one, other = (
            np.asarray(Image.open(tmp_path / kind / name), np.int16) for kind in ("expected", "found")
        )
        assert np.abs(one - other).max() <= 1


def test_a_row_says_what_the_pipeline_says(house: House, tmp_path: Path) -> None:
    pipeline = SaliencyPipeline(house.weights, engine=ENGINE, device="cpu")
    make_photos(tmp_path / "in", 2, 1)
    run = {"model": house.weights, "engine": ENGINE, "device": "cpu", "workers": 1, "kind": "mask"}
    summary = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    rows = {row["path"]: row for row in rows_of(summary.manifest)}
    result = pipeline(tmp_path / "in/1/001.png")
    row = rows["1/001.png"]
    assert (row["status"], row["height"], row["width"], row["error"]) == ("written", 48, 64, None)
    assert row["confidence"] == pytest.approx(result.confidence, abs=1e-5)
    assert tuple(row["box"]) == result.bbox()
    assert row["output"] == "1/001.png"
    assert row["weights_sha256"] == pipeline.weights_sha256
    assert row["seconds"] > 0
    assert "no picture" in rows["0/000.png"]["error"] or "not a picture" in rows["0/000.png"]["error"]


def test_a_repeated_run_does_what_failed_and_what_is_new(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 6, 2)
    run: dict[str, Any] = {"model": house.weights, "engine": ENGINE, "device": "cpu", "workers": 1}
    first = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    assert (first.written, first.failed) == (4, 2)
    again = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    assert (again.written, again.failed, again.skipped) == (0, 2, 4)
    make_photos(tmp_path / "in", 7)
    before = files_in(tmp_path / "out")
    last = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    assert (last.written, last.failed, last.skipped) == (3, 0, 4)
    assert each_once(rows_of(last.manifest))
    assert before.items() <= files_in(tmp_path / "out").items()
    nothing = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    assert (nothing.written, nothing.skipped, nothing.engine) == (0, 7, "-")


def test_a_killed_worker_loses_no_photo_and_repeats_none(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_POLLED_EVERY", 0.2)
    killed: list[int] = []
    arenas: list[str | None] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.written > 0:
            killed.extend(workers_of(os.getpid())[:1])
            arenas.extend(psutil.Process(pid).environ().get("MALLOC_ARENA_MAX") for pid in killed)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    make_photos(tmp_path / "in", 60, size=(150, 110), slow=True)
    summary = run_on_ray(
        tmp_path / "in",
        tmp_path / "out",
        model=house.weights,
        engine=ENGINE,
        device="cpu",
        workers=2,
        edges="hair",
        on_progress=kill,
    )
    assert killed
    assert arenas == ["2"]  # or the memory of workers grows with each block
    rows = rows_of(summary.manifest)
    assert each_once(rows)
    assert summary.written == len(rows) == len(files_in(tmp_path / "out")) == 60


def test_a_photo_that_kills_its_worker_is_given_up(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 12)
    make_photos(tmp_path / "big", 1, size=(400, 300), slow=True)
    (tmp_path / "big/0/000.png").rename(tmp_path / "in/poison.png")
    manifest = tmp_path / "out/_manifest"
    ended = threading.Event()
    deaths: list[int] = []

    def kill() -> None:
        """Kill the worker when it has begun, and each time it says that it has the large photo alone."""
        seen = 0
        while not ended.wait(0.01):
            begun = list((tmp_path / "out").glob("*/*.png"))
            for note in manifest.glob("_attempts-*.json"):
                changed = note.stat().st_mtime_ns
                if changed > seen and "poison" in note.read_text().partition('"current"')[2]:
                    seen = changed
                    begun = begun[:1]
                    break
            else:
                begun = begun if not deaths else []
            if begun:
                deaths.extend(pid for pid in workers_of(os.getpid()) if pid not in deaths)
                os.kill(deaths[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        summary = run_on_ray(
            tmp_path / "in",
            tmp_path / "out",
            model=house.weights,
            engine=ENGINE,
            device="cpu",
            workers=1,
            edges="hair",
            batch_size=1,
        )
    finally:
        ended.set()
        thread.join()
    assert len(deaths) == 3
    assert (summary.written, summary.failed) == (12, 1)
    rows = rows_of(summary.manifest)
    assert each_once(rows)
    assert [row["path"] for row in rows if row["status"] == "failed"] == ["poison.png"]


def test_a_killed_driver_leaves_a_run_that_can_be_continued(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 80, size=(150, 110), slow=True)
    run = {
        "model": str(house.weights),
        "engine": ENGINE,
        "device": "cpu",
        "workers": 2,
        "edges": "hair",
        "batch_size": 2,
    }
    run_here = {**run, "address": house.cluster.address}
    code = f"from u2net_hub import run_on_ray; run_on_ray('in', 'out', **{run_here!r})"
    driver = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path)
    manifest = tmp_path / "out/_manifest"
    deadline = time.monotonic() + 120
    while not list(manifest.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    done = {row["path"] for row in rows_of(manifest)}
    assert 0 < len(done) < 80
    written_at = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_in(tmp_path / "out")}
    summary = run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    # a worker may have written a part after its driver was killed
    assert summary.skipped >= len(done)
    assert summary.written == 80 - summary.skipped
    rows = rows_of(manifest)
    assert each_once(rows)
    assert len(rows) == len(files_in(tmp_path / "out")) == 80
    for name in done:
        assert (tmp_path / "out" / name).stat().st_mtime_ns == written_at[name]


def test_machines_may_join_and_get_lost(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_SCALED_EVERY", 0.5)
    monkeypatch.setattr(pool, "_POLLED_EVERY", 0.2)
    make_photos(tmp_path / "in", 200, size=(150, 110), slow=True)
    seen: list[int] = []
    nodes: list[Any] = []

    def change(progress: Progress) -> None:
        seen.append(progress.workers)
        if not nodes:
            nodes.append(house.cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
        elif progress.workers == 3 and len(nodes) == 1 and seen.count(3) > 2:
            nodes.append(None)
            house.cluster.remove_node(nodes[0], allow_graceful=False)

    summary = run_on_ray(
        tmp_path / "in",
        tmp_path / "out",
        model=house.weights,
        engine=ENGINE,
        device="cpu",
        edges="hair",
        on_progress=change,
    )
    assert max(seen) == 3
    assert len(nodes) == 2
    rows = rows_of(summary.manifest)
    assert each_once(rows)
    assert summary.written == len(rows) == len(files_in(tmp_path / "out")) == 200


def test_a_bucket_keeps_its_tree_in_another_and_may_be_busy(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 12)
    for path in (tmp_path / "in").rglob("*.png"):
        house.server.put("photos", f"in/{path.relative_to(tmp_path / 'in').as_posix()}", path.read_bytes())
    house.server.put("photos", "in/ä #1%20.png", (tmp_path / "in/1/001.png").read_bytes())
    house.server.busy_every, house.server.refused = 7, 0
    run: dict[str, Any] = {"model": house.weights, "engine": ENGINE, "device": "cpu", "workers": 1}
    try:
        summary = run_on_ray("s3://photos/in", "s3://photos/out", **run)
        assert (summary.written, summary.failed) == (13, 0)
        assert house.server.refused > 3
        assert run_on_ray("s3://photos/in", "s3://photos/out", **run).skipped == 13
    finally:
        house.server.busy_every = 0
    pipeline = SaliencyPipeline(house.weights, engine=ENGINE, device="cpu")
    run_files(pipeline, tmp_path / "in", tmp_path / "out")
    found = house.server.contents("photos")
    for name, content in files_in(tmp_path / "out").items():
        assert found[f"out/{name}"] == content
    assert "out/ä #1%20.png" in found


def test_wrong_credentials_are_one_error_before_work_starts(house: House) -> None:
    house.server.denies = True
    try:
        with pytest.raises(OSError, match="s3://photos/"):
            run_on_ray("s3://photos/in", "s3://photos/denied", model=house.weights)
    finally:
        house.server.denies = False
    assert not [key for key in house.server.contents("photos") if key.startswith("denied")]


def test_shards_become_a_parquet_data_set(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 10, 1)
    files = sorted((tmp_path / "in").rglob("*.png"))
    table = pyarrow.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in files]})
    (tmp_path / "shards").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "shards/a.parquet", row_group_size=4)
    run: dict[str, Any] = {"model": house.weights, "engine": ENGINE, "device": "cpu", "workers": 1}
    summary = run_on_ray(tmp_path / "shards", tmp_path / "out.parquet", kind="mask", **run)
    assert (summary.written, summary.failed) == (9, 1)
    pictures = {row["path"]: row["picture"] for row in rows_of(tmp_path / "out.parquet")}
    assert sorted(pictures) == [f"a.parquet/{i:09d}" for i in range(10)]
    pipeline = SaliencyPipeline(house.weights, engine=ENGINE, device="cpu")
    run_files(pipeline, tmp_path / "in", tmp_path / "out", kind="mask")
    expected = files_in(tmp_path / "out")
    for i, path in enumerate(files):
        name = path.relative_to(tmp_path / "in").as_posix()
        assert pictures[f"a.parquet/{i:09d}"] == expected.get(name)
    again = run_on_ray(tmp_path / "shards", tmp_path / "out.parquet", kind="mask", **run)
    assert (again.written, again.failed, again.skipped) == (0, 1, 9)


@pytest.mark.parametrize(("callable_class", "name"), [(CutoutBatch, "cutout"), (MaskBatch, "mask")])
def test_the_callable_works_in_a_pipeline_of_ray_data(
    house: House, callable_class: type, name: str, tmp_path: Path
) -> None:
    ray_data = pytest.importorskip("ray.data")
    ray_data.DataContext.get_current().enable_progress_bars = False
    make_photos(tmp_path / "in", 6, 2)
    photos = ray_data.read_binary_files(str(tmp_path / "in"), include_paths=True)
    settings = {"model": str(house.weights), "engine": ENGINE, "device": "cpu"}
    made = photos.map_batches(
        callable_class, fn_constructor_kwargs=settings, batch_size=3, concurrency=1, num_cpus=1
    )
    rows = {Path(row["path"]).name: row for row in made.take_all()}
    assert [row["status"] for _, row in sorted(rows.items())] == ["failed"] * 2 + ["written"] * 4
    pipeline = SaliencyPipeline(house.weights, engine=ENGINE, device="cpu")
    run_files(pipeline, tmp_path / "in", tmp_path / "out", kind=name)  # type: ignore[arg-type]
    for path, content in files_in(tmp_path / "out").items():
        assert rows[Path(path).name][name] == content


def test_other_settings_need_another_destination_or_overwriting(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 2)
    run: dict[str, Any] = {"model": house.weights, "engine": ENGINE, "device": "cpu", "workers": 1}
    run_on_ray(tmp_path / "in", tmp_path / "out", **run)
    with pytest.raises(ValueError, match=r"other settings: edges was 'sharp', now 'soft'; .*--overwrite"):
        run_on_ray(tmp_path / "in", tmp_path / "out", edges="soft", **run)
    summary = run_on_ray(tmp_path / "in", tmp_path / "out", edges="soft", existing="overwrite", **run)
    assert (summary.written, summary.skipped) == (2, 0)
    assert each_once(rows_of(summary.manifest))


def test_an_error_of_a_worker_at_the_start_is_the_error_of_the_run(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 1)
    with pytest.raises(ValueError, match="the network has one output"):
        run_on_ray(tmp_path / "in", tmp_path / "out", model=house.weights, label="cat", workers=1)


def test_the_command_shows_a_summary_and_fails_if_a_photo_failed(house: House, tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 3, 1)
    words = ["--model", house.weights, "--engine", ENGINE, "--device", "cpu", "--ray", "auto", "--workers", 1]
    line = ["cutout", tmp_path / "in", "--out", tmp_path / "out", *words]
    result = CliRunner().invoke(app, [str(word) for word in line])
    assert result.exit_code == 1
    assert "0/000.png" in result.stderr
    assert "2 written, 1 failed on cpu, onnxruntime, exact" in result.stderr
