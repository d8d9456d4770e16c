"""Measure runs on a Ray cluster of this machine: overhead, memory, a busy bucket, photos per second and core.

    python model_cards/cluster/measure.py                # all parts, about ten minutes on two cores
    python model_cards/cluster/measure.py memory --small # one part, in a size for a try
    python model_cards/cluster/measure.py --render       # the tables of docs/cluster.md from results.json

Each run has a process of its own. Its start (Ray, the network) is measured apart. The record is results.json
beside this file; parts that are not measured stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD, PAGE = HERE / "results.json", ROOT / "docs" / "cluster.md"
BEGIN = "<!-- cluster: begin (python model_cards/cluster/measure.py --render) -->"
END = "<!-- cluster: end -->"
PARTS = ("overhead", "memory", "bucket", "rates", "listing")
MB = 1e6

# The prices of the simulation in dollars: what large clouds asked in 2026, rounded
PRICES = {"core-hour": 0.04, "1000 PUT or LIST": 0.005, "1000 GET": 0.0004, "GB and month": 0.023}
PHOTOS = 10_000_000
# What S3 allows for each prefix and second, by its documentation
PUTS_PER_PREFIX = 3500
# An answer of S3 to a LIST from the same region
LIST_SECONDS = 0.2


def make_photos(folder: Path, count: int, size: tuple[int, int], distinct: int = 50) -> None:
    """Write JPEGs: crops of the examples, and hard links to them until there are enough.

    Args:
        folder: The folder, in which a subfolder holds at most a thousand.
        count: The number of photos.
        size: (width, height) in pixels.
        distinct: The number of different ones.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples").glob("*.jpg"))]
    made: list[Path] = []
    for i in range(count):
        path = folder / f"{i // 1000:03d}" / f"{i % 1000:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < distinct:
            source = sources[i % len(sources)]
            left, top = (int(random.integers(0, max(1, side // 4))) for side in source.size)
            source.crop((left, top, *source.size)).resize(size).save(path, quality=90)
            made.append(path)
        else:
            os.link(made[i % distinct], path)


def save_tiny(folder: Path) -> Path:
    """Save a network so small that it takes no time."""
    import torch

    from u2net_hub import U2Net, U2NetConfig
    from u2net_hub.config import Stage

    torch.manual_seed(0)
    stages = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
    config = U2NetConfig(variant="custom", stages=stages, input_size=(48, 48), minmax="always")
    return U2Net(config).save_pretrained(folder)


def in_process(task: str, **arguments: Any) -> dict[str, Any]:
    """Run one of the functions below in a process of its own, and return its answer."""
    words = [sys.executable, __file__, "--task", json.dumps({"task": task, **arguments})]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{task} {arguments} failed: {run.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def files_task(source: str, out: str, model: str, precision: str) -> dict[str, Any]:
    """Time `run_files`; the pipeline is open before."""
    from u2net_hub import SaliencyPipeline, run_files

    start = time.perf_counter()
    pipeline = SaliencyPipeline(model, precision=precision, device="cpu")  # type: ignore[arg-type]
    opened = time.perf_counter()
    summary = run_files(pipeline, source, out)
    seconds = time.perf_counter() - opened
    return {"photos": summary.count("written"), "start": opened - start, "seconds": seconds}


def ray_task(
    source: str, out: str, model: str, precision: str, workers: int, cpus: int, engine: str = "auto"
) -> dict[str, Any]:
    """Time `run_on_ray`, and sample the memory of the driver and of the workers each second."""
    import psutil

    from u2net_hub import run_on_ray

    me = psutil.Process()
    driver: list[float] = []
    actors: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(1.0):
            sizes = []
            for child in me.children(recursive=True):
                try:
                    if "ray::ClusterWorker" in " ".join(child.cmdline()):
                        sizes.append(child.memory_info().rss / MB)
                except psutil.Error:  # it has ended
                    continue
            if len(sizes) == workers:
                driver.append(me.memory_info().rss / MB)
                actors.append(max(sizes))

    thread = threading.Thread(target=sample)
    thread.start()
    start = time.perf_counter()
    summary = run_on_ray(
        source, out, model=model, precision=precision, engine=engine, device="cpu",  # type: ignore[arg-type]
        address="local", workers=workers, cpus_per_worker=cpus,
    )  # fmt: skip
    wall = time.perf_counter() - start
    ended.set()
    thread.join()
    memory = {
        name: {
            "second fifth": mean(sizes[len(sizes) // 5 : 2 * len(sizes) // 5]),
            "last fifth": mean(sizes[-len(sizes) // 5 :]),
            "peak": max(sizes),
        }
        for name, sizes in (("driver", driver), ("worker", actors))
        if len(sizes) > 5
    }
    return {
        "photos": summary.written, "failed": summary.failed, "start": wall - summary.seconds,
        "seconds": summary.seconds, "memory MB": memory,
    }  # fmt: skip


def measure_overhead(scratch: Path, small: bool) -> dict[str, Any]:
    """Time the same photos without Ray, and with it in two divisions of the cores."""
    count = 100 if small else 2000
    make_photos(scratch / "photos", count, (400, 300))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    network = {"source": str(scratch / "photos"), "model": "u2netp-168", "precision": "int8"}
    found: dict[str, Any] = {"photos": count, "network": "u2netp-168, int8", "cores": cores}
    found["run_files"] = in_process("files", out=str(scratch / "files"), **network)
    found[f"1 worker, {cores} cores"] = in_process(
        "ray", out=str(scratch / "one"), workers=1, cpus=cores, **network
    )
    found[f"{cores} workers, 1 core each"] = in_process(
        "ray", out=str(scratch / "each"), workers=cores, cpus=1, **network
    )
    return found


def measure_memory(scratch: Path, small: bool) -> dict[str, Any]:
    """Sample the memory over many small photos, with a network that takes no time."""
    make_photos(scratch / "photos", 1000 if small else 20_000, (64, 48))
    model = str(save_tiny(scratch / "tiny"))
    return in_process(
        "ray", source=str(scratch / "photos"), out=str(scratch / "out"), model=model, precision="exact",
        workers=2, cpus=1, engine="onnxruntime",
    )  # fmt: skip


def measure_bucket(scratch: Path, small: bool) -> dict[str, Any]:
    """Read from and write to a bucket on loopback that answers each 20th request with 503."""
    sys.path.insert(0, str(ROOT / "tests"))
    from bucket_server import BucketServer

    server = BucketServer()
    server.make_bucket("photos")
    make_photos(scratch / "photos", 1, (64, 48))
    content = (scratch / "photos/000/000.jpg").read_bytes()
    count = 100 if small else 5000
    for i in range(count):
        server.put("photos", f"in/{i:05d}.jpg", content)
    os.environ.update(
        AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="mine", AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=server.address,
    )  # fmt: skip
    server.busy_every = 20
    found = in_process(
        "ray", source="s3://photos/in", out="s3://photos/out", model=str(save_tiny(scratch / "tiny")),
        precision="exact", workers=2, cpus=1, engine="onnxruntime",
    )  # fmt: skip
    outputs = [key for key in server.contents("photos") if key.startswith("out/") and key.endswith(".png")]
    found |= {"requests": server.requests, "answered with 503": server.refused, "outputs": len(outputs)}
    server.close()
    return found


def measure_rates(scratch: Path, small: bool) -> dict[str, Any]:
    """Time the default network with a worker for each core, and weigh the outputs."""
    count = 24 if small else 200
    make_photos(scratch / "photos", count, (400, 300))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {"cores": cores, "size": "400 × 300 px"}
    for precision in ("exact", "fast", "int8"):
        out = scratch / precision
        run = in_process(
            "ray", source=str(scratch / "photos"), out=str(out), model="u2netp", precision=precision,
            workers=cores, cpus=1,
        )  # fmt: skip
        sizes = [path.stat().st_size for path in out.rglob("*.png")]
        found[precision] = {**run, "photos per second and core": run["photos"] / run["seconds"] / cores}
        found["bytes of a cutout"] = mean(sizes)
    return found


def measure_listing(scratch: Path, small: bool) -> dict[str, Any]:
    """List a folder of many names, as the driver does, and weigh what it keeps."""
    import psutil

    from u2net_hub.inference.cluster.feed import BlockFeed
    from u2net_hub.inference.cluster.manifest import Done
    from u2net_hub.inference.cluster.photo_sources import Item

    count = 100_000 if small else 2_000_000
    pages = (
        [Item(f"{i}/{j:03d}.jpg", f"s3://bucket/{i}/{j:03d}.jpg", f"{i}/{j:03d}.png", 1) for j in range(1000)]
        for i in range(count // 1000)
    )
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    feed = BlockFeed(pages, Done())
    feed.start()
    blocks = 0
    while not feed.is_empty:
        blocks += feed.take(64) is not None
    seconds = time.perf_counter() - start
    grown = psutil.Process().memory_info().rss - before
    return {
        "names": count,
        "blocks": blocks,
        "names per second": count / seconds,
        "bytes for each name": grown / count,
    }


def render(record: dict[str, Any]) -> str:
    """Write the tables of the page."""
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"Measured on {machine['usable cores']} cores of a {machine['cpu']}, Ray {versions['ray']}, Python "
        f"{versions['python']}.",
        "",
    ]
    if "overhead" in record:
        lines += _overhead_table(record["overhead"])
    if "memory" in record:
        lines += _memory_table(record["memory"])
    if "bucket" in record:
        bucket = record["bucket"]
        lines += [
            f"A bucket on this machine answered {bucket['answered with 503']:,} of {bucket['requests']:,} "
            f"requests with 503: {bucket['outputs']:,} of {bucket['photos']:,} outputs are there, and "
            f"{bucket['failed']} photos failed.",
            "",
        ]
    if "rates" in record and "listing" in record:
        lines += _simulation(record["rates"], record["listing"])
    return "\n".join(lines).rstrip() + "\n"


def _overhead_table(found: dict[str, Any]) -> list[str]:
    base = found["run_files"]["seconds"]
    lines = [
        f"{found['photos']:,} cutouts of 400 × 300 px by {found['network']}, on {found['cores']} cores:",
        "",
        "| | start (s) | photos (s) | against `run_files` |",
        "| --- | --- | --- | --- |",
    ]
    for name, run in found.items():
        if isinstance(run, dict):
            more = run["seconds"] / base - 1
            lines.append(f"| {name} | {run['start']:.1f} | {run['seconds']:.1f} | {more:+.0%} |")
    return [*lines, ""]


def _memory_table(found: dict[str, Any]) -> list[str]:
    lines = [
        f"Resident memory in MB over {found['photos']:,} photos of 64 × 48 px:",
        "",
        "| process | second fifth of the run | last fifth | peak |",
        "| --- | --- | --- | --- |",
    ]
    for name, sizes in found["memory MB"].items():
        columns = [f"{sizes[when]:.0f}" for when in ("second fifth", "last fifth", "peak")]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return [*lines, ""]


def _simulation(rates: dict[str, Any], listing: dict[str, Any]) -> list[str]:
    """Calculate time and cost of ten million photos; nothing here is measured but speed and size."""
    lines = [
        f"On paper, {PHOTOS:,} cutouts of {rates['size']} by `u2netp`, a core for ${PRICES['core-hour']} an "
        "hour:",
        "",
        "| precision | photos per second and core | core-hours | on 64 cores | on 512 cores | cores cost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for precision in ("exact", "fast", "int8"):
        rate = rates[precision]["photos per second and core"]
        hours = PHOTOS / rate / 3600
        columns = [f"{rate:.1f}", f"{hours:,.0f}", f"{hours / 64:.1f} h", f"{hours / 512:.1f} h"]
        lines.append(f"| {precision} | {' | '.join(columns)} | ${hours * PRICES['core-hour']:,.0f} |")
    put, get = PRICES["1000 PUT or LIST"], PRICES["1000 GET"]
    size = rates["bytes of a cutout"] * PHOTOS / 1e9
    files, shards = PHOTOS / 1000 * (put + get) + PHOTOS / 1e6 * put, PHOTOS / 512 / 1000 * (put + get)
    rate = rates["exact"]["photos per second and core"]
    kept = listing["bytes for each name"]
    return [
        *lines,
        "",
        f"- Requests, at ${put} for 1,000 PUT or LIST and ${get} for 1,000 GET: a file for each photo costs "
        f"${files:,.0f}; shards of 512 photos and a Parquet destination cost ${shards:,.2f}.",
        f"- Size: the cutouts take {size:,.0f} GB, ${size * PRICES['GB and month']:,.0f} a month.",
        f"- Writing: a prefix of S3 takes {PUTS_PER_PREFIX:,} PUT a second. {PUTS_PER_PREFIX / rate:,.0f} "
        "cores in `exact` reach that, if all outputs lie in one folder.",
        f"- Listing: 1,000 keys take about {LIST_SECONDS} s, and {1000 / LIST_SECONDS / rate:,.0f} "
        f"cores in `exact` are as fast. The driver itself takes {listing['names per second']:,.0f} names a "
        f"second, and keeps {kept:.0f} bytes for each: {kept * PHOTOS / MB:,.0f} MB.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help=f"what to measure: {', '.join(PARTS)}; by default all")
    parser.add_argument("--small", action="store_true", help="few photos, for a try; nothing is recorded")
    parser.add_argument("--render", action="store_true", help="only write the tables into docs/cluster.md")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        arguments = json.loads(chosen.task)
        print(json.dumps({"files": files_task, "ray": ray_task}[arguments.pop("task")](**arguments)))
        return
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if chosen.render and not record:
        parser.error(f"{RECORD} does not exist; measure first")
    if not chosen.render:
        measures = {
            "overhead": measure_overhead,
            "memory": measure_memory,
            "bucket": measure_bucket,
            "rates": measure_rates,
            "listing": measure_listing,
        }
        for part in chosen.parts or PARTS:
            with tempfile.TemporaryDirectory() as scratch:
                print(part, flush=True)
                record[part] = measures[part](Path(scratch), chosen.small)
                print(json.dumps(record[part], indent=1), flush=True)
        if chosen.small:
            return
        import ray

        from u2net_hub.benchmarks.machine import describe_machine

        record["machine"] = describe_machine("cpu")
        record["versions"] = {"python": platform.python_version(), "ray": ray.__version__}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{render(record)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
