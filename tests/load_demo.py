"""Many visitors at once: are all answered, and does the demo's memory stay flat?

By hand, from the checkout: python tests/load_demo.py --requests 500 --visitors 32
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image


@dataclass
class Report:
    """What became of the requests."""

    answered: Counter[str] = field(default_factory=Counter)
    """Endpoint -> how many."""
    failures: list[str] = field(default_factory=list)
    visitors: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each answer, waiting included."""
    memory: list[float] = field(default_factory=list)
    """Resident memory of the server in MiB: at the start, and after each tenth of the requests."""

    @property
    def growth(self) -> float:
        """MiB that the server took in the second half of the requests."""
        return self.memory[-1] - self.memory[len(self.memory) // 2]


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def make_photo(folder: Path, number: int, longest: int) -> str:
    """A photo unlike all others: a blot on a noisy ground, of a size of its own, up to `longest` pixels."""
    rng = np.random.default_rng(number)
    width, height = (int(side) for side in rng.integers(longest // 4, longest, 2))
    y, x = np.mgrid[:height, :width]
    blot = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2 < rng.uniform(0.02, 0.1))[..., None]
    ground = rng.integers(0, 80, (height, width, 3)) + rng.integers(0, 60, 3)
    path = folder / f"{number}.jpg"
    Image.fromarray(np.where(blot, 255 - ground, ground).astype(np.uint8)).save(path)
    return str(path)


def call(client: Client, folder: Path, number: int, model: str, longest: int) -> str:
    """One request of one kind or another; the endpoint."""
    photo = handle_file(make_photo(folder, number, longest))
    kind = number % 5
    if kind == 3:
        pictures, _ = client.predict(photo, model, api_name="/inside")
        assert len(pictures) > 1
        return "/inside"
    if kind == 4:
        photos = [photo, *(handle_file(make_photo(folder, number * 10_000 + i, longest)) for i in (1, 2))]
        _, report = client.predict(photos, model, api_name="/batch")
        assert [each["error"] for each in report] == [None] * 3
        return "/batch"
    background = ("transparent", "blur", "colour")[kind]
    png, facts = client.predict(photo, model, background=background, crop=number % 2 == 0, api_name="/cutout")
    with Image.open(png) as picture:
        assert picture.mode == ("RGBA" if kind == 0 else "RGB")
        assert number % 2 == 0 or picture.size == (facts["width"], facts["height"])
    return "/cutout"


def load(address: str, pid: int, *, requests: int, visitors: int, model: str, longest: int = 1200) -> Report:
    """Send requests to a server and its process from several visitors at once, each with a session."""
    report, lock, local = Report(), threading.Lock(), threading.local()
    report.memory.append(resident(pid))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gathered = threading.Barrier(visitors)

        def arrive() -> None:
            # httpx gives up after 5 seconds, which a busy machine takes to read what all send at once
            # each visitor has an address of its own
            with lock:
                report.visitors += 1
                headers = {"X-Forwarded-For": f"10.1.{report.visitors // 250}.{report.visitors % 250 + 1}"}
            local.client = Client(
                address,
                verbose=False,
                download_files=str(folder),
                headers=headers,
                httpx_kwargs={"timeout": 120},
            )
            gathered.wait(timeout=120)

        def ask(number: int) -> None:
            start = time.perf_counter()
            try:
                endpoint = call(local.client, folder, number, model, longest)
            except Exception as e:  # whatever it is, it is what this looks for
                with lock:
                    report.failures.append(f"{number}: {type(e).__name__}: {e}")
                return
            with lock:
                report.seconds.append(time.perf_counter() - start)
                report.answered[endpoint] += 1
                done = len(report.seconds) + len(report.failures)
                if done % max(1, requests // 10) == 0:
                    report.memory.append(resident(pid))
                    failed = len(report.failures)
                    print(
                        f"{done} of {requests}, {failed} failed, {report.memory[-1]:.0f} MiB", file=sys.stderr
                    )

        order = list(range(requests))
        random.Random(0).shuffle(order)
        with ThreadPoolExecutor(visitors, initializer=arrive) as pool:
            list(pool.map(ask, order))
    return report


def main() -> None:
    """Start the demo, load it, and print what became of the requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--visitors", type=int, default=32)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "u2net_hub", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            report = load(
                address,
                process.pid,
                requests=arguments.requests,
                visitors=arguments.visitors,
                model="u2netp",
            )
        finally:
            process.terminate()
    seconds = sorted(report.seconds) or [0.0]
    print(f"answered  {sum(report.answered.values())}: {dict(report.answered)}")
    print(f"failed    {len(report.failures)}: {report.failures[:5]}")
    print(f"seconds   median {seconds[len(seconds) // 2]:.1f}, longest {seconds[-1]:.1f}, waiting included")
    print(f"MiB       {[round(value) for value in report.memory]}, second half {report.growth:+.0f}")
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
