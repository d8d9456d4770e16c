"""Writes the README's tables of speed from what `u2net bench` measured, in model_cards/speed.

Run it from the root of the checkout; with --check it writes nothing, and fails if the README is not up to
date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from u2net_hub.benchmarks.results import (
    PLAIN,
    REMBG,
    Benchmark,
    FolderTiming,
    Timing,
    folder_speed_up,
    quartiles,
)
from u2net_hub.tables import markdown_table

FOLDER = Path("model_cards/speed")
BEGIN, END = "<!-- speed: begin (python model_cards/speed.py) -->", "<!-- speed: end -->"
NAMES = {"u2netp": "U²-Net†", "u2net": "U²-Net"}
ENGINES = {PLAIN: "official code, eager", REMBG: "**rembg's session**", "torch": "torch"}
ENGINES |= {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def load(name: str) -> Benchmark:
    return Benchmark.from_dict(json.loads((FOLDER / name / "benchmark.json").read_text(encoding="utf-8")))


def kind(timing: Timing) -> tuple[str, str]:
    return timing.setup.engine, timing.setup.precision


def speeds(timings: Sequence[Timing]) -> list[str]:
    """Each engine at its best batch: images per second, and how often that of rembg's session."""
    ran = [timing for timing in timings if timing.seconds]
    rows = []
    for engine, precision in dict.fromkeys(map(kind, ran)):
        cells = [ENGINES[engine], precision]
        for network in NAMES:
            mine = [t for t in ran if (t.setup.network, *kind(t)) == (network, engine, precision)]
            (peer,) = [t for t in ran if (t.setup.network, t.setup.engine) == (network, REMBG)]
            if not mine:
                cells += ["", ""]
                continue
            best = max(mine, key=lambda t: t.images_per_second or 0)
            rate, theirs = best.images_per_second or 0, peer.images_per_second or 1
            cells += [f"{rate:.1f} (batch {best.setup.batch})", f"{rate / theirs:.2f}×"]
        rows.append(cells)
    heads = [head for name in NAMES.values() for head in (f"{name}, images/s", "× rembg")]
    return markdown_table(["engine", "precision", *heads], rows)


def accuracy(timings: Sequence[Timing]) -> list[str]:
    """Scores of each engine, and what it differs by from the official code's."""
    scored = {kind(t): t for t in timings if t.scores}
    reference = scored[PLAIN, "exact"].scores
    rows = []
    for (engine, precision), timing in scored.items():
        s, mae = timing.scores["s_measure"], timing.scores["mae"]
        change = (s - reference["s_measure"], mae - reference["mae"])
        rows.append([ENGINES[engine], precision, f"{s:.4f}", f"{mae:.4f}", *(f"{c:+.4f}" for c in change)])
    return markdown_table(["engine", "precision", "S", "MAE", "ΔS", "ΔMAE"], rows)


def commands(timings: Sequence[FolderTiming]) -> list[str]:
    rows = []
    for timing in timings:
        if timing.seconds:
            first, median, third = quartiles(timing.seconds)
            ratio = folder_speed_up(timing, timings)
            size = "" if timing.size is None else f"{timing.size} px"
            rows.append(
                [
                    f"`{timing.name}`",
                    size,
                    f"{median:.2f} ({first:.2f}–{third:.2f})",
                    "" if ratio is None else f"{ratio:.2f}×",
                    "" if timing.peak_mb is None else f"{timing.peak_mb:.0f}",
                ]
            )
    return markdown_table(["command", "network's input", "seconds (quartiles)", "× rembg", "peak MB"], rows)


def training() -> list[str]:
    """Images per second of each recipe, from what `u2net train --dry-run` said."""
    text = (FOLDER / "training.txt").read_text(encoding="utf-8")
    found = re.findall(
        r"--model (\w+) --recipe (\w+).*?training on cpu, (\w+).*?images/s at +288 +([\d.]+), ([\d.]+)%",
        text,
        re.DOTALL,
    )
    rows = [
        [NAMES[model], f"`{recipe}`, {kind}", rate, f"{wait} %"] for model, recipe, kind, rate, wait in found
    ]
    return markdown_table(["network", "recipe", "images/s", "time spent waiting for data"], rows)


def section() -> str:
    network, folder = load("u2netp"), load("folder")
    timings = [t for name in NAMES for t in load(name).network if t.setup.network == name]
    machine = ", ".join(f"{key} {value}" for key, value in network.machine.items())
    versions = ", ".join(f"{name} {number}" for name, number in network.versions.items())
    photos = max(timing.photos for timing in folder.folders)
    lines = [
        "The network alone, 320 × 320 px, each engine at the best of batches 1, 4 and 8; rembg runs one at a "
        "time:",
        "",
        *speeds(timings),
        "",
        f"Accuracy on the {photos} pictures of ECSSD-100, with the authors' U²-Net†, as differences from the "
        "official code's:",
        "",
        *accuracy(folder.network),
        "",
        f"From start to end, {photos} JPEGs (400 × 300 px) to RGBA PNGs, the authors' U²-Net† everywhere:",
        "",
        *commands(folder.folders),
        "",
        "Training at 288 × 288 px, by `u2net train --dry-run`:",
        "",
        *training(),
        "",
        f"Measured by `u2net bench` on {machine}; {versions}. On a GPU nothing was measured.",
    ]
    return "\n".join(lines)


def main() -> None:
    readme = Path("README.md")
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    made = f"{before}{BEGIN}\n\n{section()}\n\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv:
        sys.exit("README.md is not up to date: python model_cards/speed.py" if made != text else None)
    readme.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
