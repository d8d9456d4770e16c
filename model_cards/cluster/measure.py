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
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD, PAGE = HERE / "results.json", ROOT / "docs" / "cluster.md"
BEGIN = "<!-- cluster: begin (python model_cards/cluster/measure.py --render) -->"
END = "<!-- cluster: end -->"
PARTS = ("malloc", "overhead", "memory", "bucket", "rates", "listing")
MB = 1e6

# The prices of the simulation in dollars: what large clouds asked in 2026, rounded
PRICES = {"core-hour": 0.04, "1000 PUT or LIST": 0.005, "1000 GET": 0.0004, "GB and month": 0.023}
PHOTOS = 10_000_000
# What S3 allows for each prefix and second, by its documentation
PUTS_PER_PREFIX = 3500
# A part of a Parquet destination holds at most so much (inference/cluster/worker.py)
PART_ROWS, PART_BYTES = 512, 64 << 20
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


def in_process(task: str, environment: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Run one of the functions below in a process of its own, and return its answer."""
    words = [sys.executable, __file__, "--task", json.dumps({"task": task, **arguments})]
    variables = {**os.environ, **(environment or {})}
    run = subprocess.run(words, capture_output=True, text=True, check=False, env=variables)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        "photos": summary.count("written"), "start": opened - start, "seconds": seconds, "peak MB": peak,
    }  # fmt: skip


def ray_task(
    source: str,
    out: str,
    model: str,
    precision: str,
    workers: int,
    cpus: int,
    engine: str = "auto",
    format: str = "png",
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
        format=format, address="local", workers=workers, cpus_per_worker=cpus,
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


def measure_malloc(scratch: Path, small: bool) -> dict[str, Any]:
    """Time `run_files` by turns with malloc's own settings and with those of `u2net cutout`."""
    from u2net_hub.inference.malloc import MALLOC_ENVIRONMENT

    count, rounds = (20, 1) if small else (200, 5)
    make_photos(scratch / "photos", count, (400, 300))
    network = {"source": str(scratch / "photos"), "model": "u2netp-168", "precision": "int8"}
    runs: dict[str, list[dict[str, Any]]] = {"default": [], "tuned": []}
    for turn in range(rounds):
        for name, environment in (("default", {}), ("tuned", MALLOC_ENVIRONMENT)):
            run = in_process("files", environment, out=str(scratch / f"{name}-{turn}"), **network)
            runs[name].append(run)
    found: dict[str, Any] = {"photos": count, "network": "u2netp-168, int8", "rounds": rounds}
    for name, each in runs.items():
        found[name] = {key: median(run[key] for run in each) for key in ("seconds", "peak MB")}
    return found


def measure_overhead(scratch: Path, small: bool) -> dict[str, Any]:
    """Time the same photos without Ray, with it in two divisions of the cores, and again without.

    All have the same settings of malloc.
    """
    from u2net_hub.inference.malloc import MALLOC_ENVIRONMENT

    count = 100 if small else 2000
    make_photos(scratch / "photos", count, (400, 300))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    network = {"source": str(scratch / "photos"), "model": "u2netp-168", "precision": "int8"}
    found: dict[str, Any] = {"photos": count, "network": "u2netp-168, int8", "cores": cores}
    found["run_files"] = None  # comes first in the table
    files = [in_process("files", MALLOC_ENVIRONMENT, out=str(scratch / "files"), **network)]
    found[f"1 worker, {cores} cores"] = in_process(
        "ray", out=str(scratch / "one"), workers=1, cpus=cores, **network
    )
    found[f"{cores} workers, 1 core each"] = in_process(
        "ray", out=str(scratch / "each"), workers=cores, cpus=1, **network
    )
    files.append(in_process("files", MALLOC_ENVIRONMENT, out=str(scratch / "again"), **network))
    found["run_files"] = {key: mean(run[key] for run in files) for key in files[0]}
    found["seconds of run_files, before and after"] = [run["seconds"] for run in files]
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
    """Time the default network with a worker for each core, and weigh the outputs as PNG and as WebP."""
    count = 24 if small else 200
    make_photos(scratch / "photos", count, (400, 300))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {"cores": cores, "size": "400 × 300 px"}
    for precision, format in (("exact", "png"), ("fast", "png"), ("int8", "png"), ("int8", "webp")):
        out = scratch / f"{precision}-{format}"
        run = in_process(
            "ray", source=str(scratch / "photos"), out=str(out), model="u2netp", precision=precision,
            workers=cores, cpus=1, format=format,
        )  # fmt: skip
        run["photos per second and core"] = run["photos"] / run["seconds"] / cores
        run["bytes of a cutout"] = mean(path.stat().st_size for path in out.rglob(f"*.{format}"))
        found[precision if format == "png" else f"{precision}, {format}"] = run
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
    while feed.has_work():
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
        f"Measured on {machine['usable cores']} cores ({machine['cpu']}), Ray {versions['ray']}, Python "
        f"{versions['python']}.",
        "",
    ]
    if "overhead" in record:
        lines += _overhead_table(record["overhead"])
    if "memory" in record:
        lines += _memory_table(record["memory"])
        lines += _malloc_lines(record["malloc"], record["overhead"])
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


def _malloc_lines(found: dict[str, Any], overhead: dict[str, Any]) -> list[str]:
    default, tuned = found["default"], found["tuned"]
    one = next(run for name, run in overhead.items() if name.startswith("1 worker"))
    sizes = one["memory MB"]["worker"]
    return [
        f"Over the {overhead['photos']:,} cutouts above, the one worker held {sizes['second fifth']:.0f} MB "
        f"in the second fifth and {sizes['last fifth']:.0f} MB in the last. Workers and `u2net cutout` set "
        f"malloc so that it keeps few arenas: {found['photos']} photos took {tuned['seconds']:.1f} s with it "
        f"and {default['seconds']:.1f} s without (medians of {found['rounds']} runs by turns), with peaks of "
        f"{tuned['peak MB']:.0f} and {default['peak MB']:.0f} MB.",
        "",
    ]


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
    """Calculate time and cost of ten million photos; nothing here is measured but speed, size and memory."""
    lines = [
        f"On paper, {PHOTOS:,} cutouts of {rates['size']} by `u2netp`, a core for ${PRICES['core-hour']} an "
        "hour:",
        "",
        "| precision, format | photos per second and core | memory of a worker (MB) | kB of a cutout "
        "| core-hours | on 64 cores | on 512 cores | cores cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    runs = {name: run for name, run in rates.items() if isinstance(run, dict)}
    for name, run in runs.items():
        rate = run["photos per second and core"]
        hours = PHOTOS / rate / 3600
        peak = run["memory MB"]["worker"]["peak"]
        columns = [
            name if "," in name else f"{name}, png", f"{rate:.1f}", f"{peak:.0f}",
            f"{run['bytes of a cutout'] / 1000:.0f}", f"{hours:,.0f}", f"{hours / 64:.1f} h",
            f"{hours / 512:.1f} h", f"${hours * PRICES['core-hour']:,.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    put, get = PRICES["1000 PUT or LIST"], PRICES["1000 GET"]
    png, webp = (rates[name]["bytes of a cutout"] for name in ("int8", "int8, webp"))
    in_part = min(PART_ROWS, PART_BYTES / png)
    files = PHOTOS / 1000 * (put + get) + PHOTOS / 1e6 * put
    shards = PHOTOS / in_part / 1000 * put + PHOTOS / PART_ROWS / 1000 * get
    exact, int8 = (rates[name]["photos per second and core"] for name in ("exact", "int8"))
    kept = listing["bytes for each name"]
    return [
        *lines,
        "",
        f"- Requests, at ${put} for 1,000 PUT or LIST and ${get} for 1,000 GET: a file for each photo costs "
        f"${files:,.0f}; shards of {PART_ROWS} photos as the source and a Parquet destination, whose parts "
        f"hold {in_part:.0f} such cutouts, cost ${shards:,.2f}.",
        f"- Size: the cutouts take {_gb(png)} as PNG and {_gb(webp)} as WebP. 512 cores in `int8` write "
        f"{512 * int8 * png / MB:,.0f} MB of PNG a second.",
        f"- Writing: a prefix of S3 takes {PUTS_PER_PREFIX:,} PUT a second. {PUTS_PER_PREFIX / exact:,.0f} "
        f"cores in `exact` or {PUTS_PER_PREFIX / int8:,.0f} in `int8` reach that, if all outputs lie in one "
        "folder.",
        f"- Listing: 1,000 keys take about {LIST_SECONDS} s, and {1000 / LIST_SECONDS / exact:,.0f} cores in "
        f"`exact` or {1000 / LIST_SECONDS / int8:,.0f} in `int8` are as fast. The driver itself takes "
        f"{listing['names per second']:,.0f} names a second, and keeps {kept:.0f} bytes for each: "
        f"{kept * PHOTOS / MB:,.0f} MB.",
        "",
    ]


def _gb(size: float) -> str:
    total = size * PHOTOS / 1e9
    return f"{total:,.0f} GB (${total * PRICES['GB and month']:,.0f} a month)"


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
            "malloc": measure_malloc,
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
