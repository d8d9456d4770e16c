"""Measures the files for phones, and writes model_cards/phones/results.json.

Run it from the root of the checkout. Each format has an environment of its own, with u2net-hub[litert,eval]
or with u2net-hub[coreml,eval], and the command measures what the environment has:

    python model_cards/phones/measure.py --data ECSSD-100 --photos DUTS-TR
    python model_cards/phones/measure.py --speed --photos DUTS-TR
    python model_cards/phones/measure.py --render

The first line exports each file, and compares it on the photos of ECSSD-100 with the network in torch: the
largest and the mean difference of the maps at the size of the network, and the S-measure. Whether int8 is
good enough to be written is judged on photos of DUTS-TR, never on those of ECSSD. Core ML does not run on
Linux: the operations of the package are carried out in torch, and each value that it holds in float16 is
rounded. The second line times LiteRT on a machine that does nothing else. The third one writes the table
into docs/phones.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from u2net_hub import U2Net, export
from u2net_hub.benchmarks.machine import describe_machine
from u2net_hub.engines.phones import PHONE_SUFFIXES, Reference, read_pixels
from u2net_hub.hub import resolve
from u2net_hub.imaging import postprocess

OUT = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "phones.md"
BEGIN, END = "<!-- phones: begin (python model_cards/phones/measure.py --render) -->", "<!-- phones: end -->"
PACKAGES = {"litert": "ai_edge_litert", "coreml": "coremltools"}
RUNS = 30


class File(NamedTuple):
    model: str
    format: str
    weights: str

    @property
    def name(self) -> str:
        return f"{self.model} {self.format} {self.weights}"


FILES = (
    File("u2netp", "litert", "float32"),
    File("u2netp", "litert", "float16"),
    File("u2netp", "litert", "int8"),
    File("u2netp", "coreml", "float16"),
    File("u2netp-168", "litert", "float16"),
    File("u2netp-168", "litert", "int8"),
    File("u2netp-168", "coreml", "float16"),
)


def make(file: File, folder: Path, photos: Path | None) -> Path:
    """Export one file."""
    out = folder / f"{file.model}-{file.weights}{PHONE_SUFFIXES[file.format]}"
    if file.weights == "int8":
        return export(file.model, out, precision="int8", data=photos)
    return export(file.model, out, weights=file.weights)


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def open_file(path: Path) -> Any:
    """A function that runs a file."""
    if path.suffix == ".tflite":
        from u2net_hub.engines.litert import open_litert

        return open_litert(path.read_bytes())
    from u2net_hub.engines.coreml import open_coreml

    return open_coreml(path, rounded=True)


def pairs(data: Path) -> Iterator[tuple[Path, NDArray[np.bool_]]]:
    """The photos of a data set with their masks."""
    for path in sorted((data / "images").iterdir()):
        with Image.open(data / "masks" / f"{path.stem}.png") as mask:
            yield path, np.asarray(mask.convert("L")) >= 128


class Score:
    """The mean S-measure of maps, as `u2net eval` finds it."""

    def __init__(self) -> None:
        from py_sod_metrics import Smeasure

        self._measure = Smeasure()

    def add(self, map_: NDArray[np.float32], gt: NDArray[np.bool_]) -> None:
        height, width = gt.shape
        saliency = postprocess(map_, (height, width), minmax="always")
        self._measure.step(np.rint(saliency * 255).astype(np.uint8), gt.astype(np.uint8) * 255)

    def mean(self) -> float:
        return float(self._measure.get_results()["sm"])


def compare(model: str, runs: Mapping[str, Any], data: Path) -> dict[str, dict[str, float]]:
    """Compare files of one network with torch: file -> S-measure, largest and mean difference."""
    network = U2Net.from_pretrained(model)
    reference = Reference(network)
    scores = {name: Score() for name in ("torch", *runs)}
    largest, means = dict.fromkeys(runs, 0.0), {name: [] for name in runs}
    for path, gt in pairs(data):
        pixels = read_pixels(path, network.config)
        wanted = reference(pixels)[0][0]
        scores["torch"].add(wanted, gt)
        for name, run in runs.items():
            found = run(pixels)["saliency"][0]
            difference = np.abs(found - wanted)
            largest[name] = max(largest[name], float(difference.max()))
            means[name].append(float(difference.mean()))
            scores[name].add(found, gt)
    return {
        name: {
            "s_measure_torch": round(scores["torch"].mean(), 5),
            "s_measure": round(scores[name].mean(), 5),
            "largest": round(largest[name], 6),
            "mean": round(float(np.mean(means[name])), 7),
            "n": len(means[name]),
        }
        for name in runs
    }


def milliseconds(content: bytes, size: tuple[int, int], threads: int) -> float:
    """The median time that LiteRT takes for one photo, in milliseconds."""
    from u2net_hub.engines.litert import open_litert

    run = open_litert(content, threads)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    times = []
    for _ in range(RUNS + 3):
        begin = time.perf_counter()
        run(pixels)
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times[3:]) * 1000, 1)


def versions() -> dict[str, str]:
    found = {}
    for package in ("ai-edge-litert", "coremltools", "torch", "u2net-hub"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def table(record: Mapping[str, Any]) -> str:
    """The table of the page."""
    rows = [
        "| file | what was run | S-measure (change) | largest difference | mean difference | MB "
        "| ms, 1 thread | 2 threads |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for file in FILES:
        row = record["files"].get(file.name)
        if row is None:
            continue
        label = f"{file.model}, {'LiteRT' if file.format == 'litert' else 'Core ML'}, {file.weights}"
        how = "LiteRT on the CPU" if file.format == "litert" else "its operations, in torch"
        change = round(row["s_measure"] - row["s_measure_torch"], 4) or 0.0  # no -0.0000
        times = [f"{row[key]:.0f}" if key in row else "–" for key in ("ms_1_thread", "ms_2_threads")]
        rows.append(
            f"| {label} | {how} | {row['s_measure']:.4f} ({change:+.4f}) | {row['largest']:.4f} "
            f"| {row['mean']:.5f} | {row['bytes'] / 1e6:.1f} | {' | '.join(times)} |"
        )
    browser = record.get("browser")
    if browser:
        how = f"LiteRT.js {browser['litert.js']} in Chromium, one photo, against LiteRT"
        rows.append(
            f"| u2netp, LiteRT, float16 | {how} | – | {browser['largest']:.4f} | {browser['mean']:.5f} "
            f"| {browser['bytes'] / 1e6:.1f} | – | – |"
        )
    machine = record.get("machine")
    said = f"\n\nProcessor: {machine['cpu']}." if machine else ""
    return "\n".join(rows) + said


def render(record: Mapping[str, Any], page: str) -> str:
    """Put the table into the page."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(record)}\n\n{END}{after}"


def main() -> None:
    """Measure what this environment has, and update the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="ECSSD-100, with images/ and masks/")
    parser.add_argument("--photos", type=Path, help="DUTS-TR, on which int8 is judged")
    parser.add_argument("--speed", action="store_true", help="time LiteRT")
    parser.add_argument("--render", action="store_true", help="write the table into docs/phones.md")
    parser.add_argument("--only", help="the name of one file, e.g. 'u2netp litert int8'")
    given = parser.parse_args()
    files = [
        file
        for file in FILES
        if find_spec(PACKAGES[file.format]) is not None and given.only in (None, file.name)
    ]
    found: dict[str, dict[str, Any]] = {}
    folder = Path(tempfile.mkdtemp(prefix="u2net-phones-"))
    try:
        for model in dict.fromkeys(file.model for file in files):
            made = {
                file.name: make(file, folder, given.photos)
                for file in files
                if file.model == model and (given.data or (given.speed and file.format == "litert"))
            }
            found |= {name: {"bytes": size_of(path)} for name, path in made.items()}
            if given.data:
                runs = {name: open_file(path) for name, path in made.items()}
                for name, scores in compare(model, runs, given.data).items():
                    found[name] |= scores | {"weights_sha256": resolve(model).sha256}
                    found[name] |= {"versions": versions(), "date": date.today().isoformat()}
            if given.speed:
                size = resolve(model).config().input_size  # type: ignore[union-attr]
                for name, path in made.items():
                    content = path.read_bytes()
                    found[name] |= {
                        f"ms_{n}_thread{'s' * (n > 1)}": milliseconds(content, size, n) for n in (1, 2)
                    }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # read only now: the other environment may have written meanwhile
    record: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"files": {}}
    for name, row in found.items():
        record["files"].setdefault(name, {}).update(row)
    if given.speed:
        record["machine"] = describe_machine("cpu")
    record["commands"] = [
        "python model_cards/phones/measure.py --data ECSSD-100 --photos DUTS-TR",
        "python model_cards/phones/measure.py --speed --photos DUTS-TR",
    ]
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.render:
        PAGE.write_text(render(record, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
