"""Measures `u2net serve` beside `rembg s`; writes results.json and the tables of docs/serving.md.

Run it from the root of the checkout, on a machine that does nothing else, with the folder of ECSSD-100:

    python model_cards/serving/measure.py ECSSD-100/images --peer-python VENV_WITH_REMBG/bin/python

Servers run one after the other, on loopback, with the weights that `u2net export` writes for rembg. In each
round each server is started, warmed up, asked by one client and then by many. Then follow, for `u2net serve`,
clients that leave or send broken files, and the memory with photos of .1 to 12 megapixels; for rembg, a
shorter run of the memory. Results are written after each step, progress goes to standard error. A short try:

    ... --rounds 1 --requests 40 --single 10 --memory 40 --peer-memory 0 --faults 40 --out /tmp/results.json
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import table
from PIL import Image
from servers import Running, Server, running

from u2net_hub import SaliencyPipeline, export
from u2net_hub.benchmarks.machine import describe_machine, find_versions

LOAD = Path(__file__).with_name("load.py")
TOLERANCE = 2
"""A batch may round a pixel otherwise than a single photo; more than this, of 255, is another answer."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Measuring:
    """The settings, the record, and the steps that fill it."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        self.log = scratch / "servers.log"
        self.photos = sorted(arguments.photos.glob("*.jpg"))
        self.pipelines: dict[str, SaliencyPipeline] = {}
        self.expected: dict[tuple[str, Path], np.ndarray[Any, Any]] = {}
        settings = {
            key: getattr(arguments, key)
            for key in (
                "model",
                "rounds",
                "requests",
                "single",
                "clients",
                "memory",
                "peer_memory",
                "faults",
                "leave",
                "broken",
                "seed",
            )
        }
        self.record: dict[str, Any] = {
            "command": "python model_cards/serving/measure.py ECSSD-100/images --peer-python PYTHON",
            "date": date.today().isoformat(),
            "complete": False,
            "settings": settings | {"tolerance": TOLERANCE},
            "machine": describe_machine("cpu"),
            "versions": find_versions(arguments.peer_python),
            "rounds": [],
            "memory": [],
            "faults": [],
            "answers": {"answers": 0, "equal": 0, "largest": 0},
            "largest_processor_share": 0.0,
        }

    def save(self) -> None:
        self.arguments.out.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    def servers(self) -> list[Server]:
        """The peer, the server with the target's settings, and the one with the defaults."""
        model, found = self.arguments.model, []
        if self.arguments.peer_python is not None:
            onnx = export(model, self.scratch / f"{model}.onnx")
            python = str(self.arguments.peer_python)
            start = (
                "from rembg.cli import main; import sys; "
                "sys.argv = ['rembg', 's', '--no-ui', '-h', '127.0.0.1', '-p', 'PORT']; main()"
            )
            extras = quote(json.dumps({"model_path": str(onnx)}))
            found.append(
                Server(
                    table.PEER,
                    (python, "-c", start),
                    f"/api/remove?extras={extras}",
                    {"model": "u2net_custom"},
                    # rembg opens files of this folder only; it also starts a browser
                    {"U2NET_HOME": str(self.scratch), "BROWSER": "true"},
                )
            )
        for precision, edges in (("fast", "soft"), ("exact", "sharp")):
            options = {"precision": precision, "edges": edges}
            words = [word for key, value in options.items() for word in (f"--{key}", value)]
            found.append(
                Server(
                    f"u2net serve {' '.join(words)}",
                    (sys.executable, "-m", "u2net_hub", "serve", "--port", "PORT", "--model", model, *words),
                    pipeline=options,
                )
            )
        return found

    def load(
        self, run: Running, photos: Sequence[Path], order: Sequence[int], clients: int, **more: float
    ) -> dict[str, Any]:
        """Send requests from a process of their own, and check the answers after it."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            job = {
                "host": "127.0.0.1", "port": run.port, "path": run.server.path, "field": "file",
                "fields": run.server.fields, "photos": [str(path) for path in photos], "order": list(order),
                "clients": clients, "leave": 0, "broken": 0, "seed": self.arguments.seed,
                "answers": folder, "timeout": 300, **more,
            }  # fmt: skip
            with run.watched():
                report = json.loads(
                    subprocess.run(
                        [sys.executable, "-I", str(LOAD)],
                        input=json.dumps(job),
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    ).stdout
                )
            share = max(self.record["largest_processor_share"], report["processor_share"])
            self.record["largest_processor_share"] = round(share, 3)
            report["mixed up"] = self.check(run.server, photos, report["answers"], Path(folder))
        for failure in report["failures"]:
            say(f"  {failure}")
        return dict(report)

    def check(self, server: Server, photos: Sequence[Path], found: Sequence[Any], folder: Path) -> int:
        """Compare answers with the pipeline's own for the photo, and count those of another picture."""
        wrong, seen = 0, self.record["answers"]
        for index, name, times in found:
            with Image.open(folder / name) as picture:
                answer = np.asarray(picture.convert("RGBA"))
            if server.pipeline is None:  # a peer's pixels are its own
                with Image.open(photos[index]) as photo:
                    wrong += times * (photo.size[::-1] != answer.shape[:2])
                continue
            expected = self.expect(server, photos[index])
            if expected.shape != answer.shape:
                wrong += times
                continue
            largest = int(np.abs(expected.astype(np.int16) - answer).max())
            seen["answers"] += times
            seen["equal"] += times * (largest == 0)
            seen["largest"] = max(seen["largest"], largest)
            wrong += times * (largest > TOLERANCE)
        return wrong

    def expect(self, server: Server, photo: Path) -> np.ndarray[Any, Any]:
        """The cutout that the pipeline makes of a photo alone. That of a large photo is not kept."""
        assert server.pipeline is not None
        key = (server.name, photo)
        if key in self.expected:
            return self.expected[key]
        if server.name not in self.pipelines:
            self.pipelines[server.name] = SaliencyPipeline(
                self.arguments.model, device="cpu", precision=server.pipeline["precision"], batch_size=1
            )
        result = self.pipelines[server.name](photo)
        cutout = np.asarray(result.cutout(edges=server.pipeline["edges"]))
        if photo in self.photos:
            self.expected[key] = cutout
        return cutout

    def speed(self, server: Server, turn: int) -> None:
        """One round of one server: one client, then many."""
        arguments = self.arguments
        n = len(self.photos)
        with running(server, self.log) as run:
            warm = self.load(run, self.photos, [0], 1)
            self.load(run, self.photos, [i % n for i in range(arguments.clients)], arguments.clients)
            one = self.load(run, self.photos, [i % n for i in range(arguments.single)], 1)
            order = [i % n for i in range(arguments.requests)]
            random.Random(arguments.seed + turn).shuffle(order)
            many = self.load(run, self.photos, order, arguments.clients)
        assert warm["outcomes"].get("answered"), f"{server.name} did not answer, see {self.log}"
        lost = [report["outcomes"].get("lost", 0) + report["mixed up"] for report in (one, many)]
        latencies = sorted(many["latencies"])
        row = {
            "server": server.name, "round": turn,
            "one_rate": len(one["latencies"]) / one["seconds"],
            "one_p50": statistics.median(one["latencies"]),
            "many_rate": len(latencies) / many["seconds"],
            "many_p50": statistics.median(latencies),
            "many_p95": latencies[math.ceil(0.95 * len(latencies)) - 1],
            "lost_or_mixed_up": sum(lost),
            "refused": many["outcomes"].get("refused, queue full", 0),
            "processor_share_of_clients": many["processor_share"],
        }  # fmt: skip
        self.record["rounds"].append(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        )
        self.save()
        say(
            f"round {turn}, {server.name}: {row['one_rate']:.1f}/s; "
            f"{row['many_rate']:.1f}/s, p95 {row['many_p95']:.2f} s"
        )

    def memory(self, server: Server, requests: int) -> None:
        """Resident memory at rest after each half of the requests, and its peak."""
        photos = make_photos(self.photos, self.scratch / "mixed", self.arguments.seed)
        rng = random.Random(self.arguments.seed)
        row: dict[str, Any] = {"server": server.name, "requests": requests, "half_mb": None}
        with running(server, self.log) as run:
            self.load(run, self.photos, range(8), 4)
            time.sleep(1)
            row["start_mb"], run.peak = run.resident(), 0.0
            for half in ("half_mb", "end_mb"):
                order = [i % len(photos) for i in range(requests // 2)]
                rng.shuffle(order)
                report = self.load(run, photos, order, self.arguments.clients)
                time.sleep(1)
                row[half], row["peak_mb"] = run.resident(), run.peak
                row[half.replace("mb", "peak_mb")] = run.peak
                row[half.replace("mb", "outcomes")] = report["outcomes"] | {"mixed up": report["mixed up"]}
                say(f"memory, {server.name}: {row[half]:.0f} MB at rest, peak {run.peak:.0f} MB")
        self.record["memory"].append(row)
        self.save()

    def faults(self, server: Server) -> None:
        """Clients that leave in the middle, and broken files, between the others."""
        arguments = self.arguments
        order = [i % len(self.photos) for i in range(arguments.faults)]
        random.Random(arguments.seed).shuffle(order)
        with running(server, self.log) as run:
            shares = {"leave": arguments.leave, "broken": arguments.broken}
            report = self.load(run, self.photos, order, arguments.clients, **shares)
            after = self.load(run, self.photos, range(len(self.photos)), 4)
        row = {"server": server.name, "requests": len(order), **report["outcomes"]}
        row |= {
            "mixed up": report["mixed up"] + after["mixed up"],
            "lost afterwards": after["outcomes"].get("lost", 0),
        }
        self.record["faults"].append(row)
        self.save()
        say(f"faults, {server.name}: {row}")

    def run(self) -> None:
        servers = self.servers()
        for turn in range(1, self.arguments.rounds + 1):
            for server in servers:
                if turn == 1 or server.name in (table.PEER, table.TARGET):
                    self.speed(server, turn)
        own = [server for server in servers if server.pipeline is not None]
        if self.arguments.faults:
            self.faults(own[0])
        if self.arguments.memory:
            self.memory(own[0], self.arguments.memory)
        if self.arguments.peer_memory and servers[0].pipeline is None:
            self.memory(servers[0], self.arguments.peer_memory)
        self.record["complete"] = True
        self.save()


def make_photos(sources: Sequence[Path], folder: Path, seed: int, count: int = 40) -> list[Path]:
    """Write JPEGs of .1 to 12 megapixels, in equal steps of the logarithm, with the grain of a camera."""
    if folder.exists():
        return sorted(folder.iterdir())
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i, megapixels in enumerate(np.geomspace(0.1, 12, count)):
        aspect = rng.choice([1, 4 / 3, 3 / 2, 3 / 4, 16 / 9])
        width = round(math.sqrt(megapixels * 1e6 * aspect))
        size = (width, round(megapixels * 1e6 / width))
        with Image.open(sources[i % len(sources)]) as photo:
            large = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
        grain = rng.standard_normal((*large.shape[:2], 1), np.float32) * 2
        Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(
            folder / f"{i:02}.jpg", quality=90
        )
    return sorted(folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of JPEGs, images/ of ECSSD-100")
    parser.add_argument("--peer-python", type=Path, help="the Python that has rembg[cpu,cli]")
    parser.add_argument("--model", default="u2netp", help="a bundled model, 320 px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=160, help="requests of many clients in a round")
    parser.add_argument("--single", type=int, default=30, help="requests of one client in a round")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--memory", type=int, default=2000, help="requests with photos of mixed sizes")
    parser.add_argument("--peer-memory", type=int, default=64, help="the same, for rembg")
    parser.add_argument("--faults", type=int, default=400, help="requests with leaving clients, broken files")
    parser.add_argument("--leave", type=float, default=0.1, help="share of clients that leave")
    parser.add_argument("--broken", type=float, default=0.05, help="share of broken files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=table.RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            Measuring(arguments, Path(scratch)).run()
        except RuntimeError as e:
            log = Path(scratch) / "servers.log"
            sys.exit(f"{e}\n{log.read_text(errors='replace')[-4000:] if log.exists() else ''}")
    if arguments.out == table.RESULTS:
        table.main([])


if __name__ == "__main__":
    main()
