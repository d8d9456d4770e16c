"""Write the tables of speed, a short one in the README and all of them in docs/speed.md.

The figures are those that `u2net bench` measured; they lie in model_cards/speed. Run this script from the
root of the checkout. With --check it writes nothing and fails if one of the two files is not up to date.
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


def short() -> str:
    """The README's table: seconds for a folder, from start to end."""
    folder = load("folder")
    rows = [timing for timing in folder.folders if timing.size is not None]
    photos, cores = max(timing.photos for timing in rows), folder.machine["usable cores"]
    return "\n".join(
        [
            f"{photos} JPEGs (400 × 300 px) become RGBA PNGs with the authors' U²-Net† on {cores} cores of a "
            "CPU:",
            "",
            *commands(rows),
        ]
    )


def section() -> str:
    """The tables of docs/speed.md."""
    network, folder = load("u2netp"), load("folder")
    timings = [t for name in NAMES for t in load(name).network if t.setup.network == name]
    machine = ", ".join(f"{key} {value}" for key, value in network.machine.items())
    versions = ", ".join(f"{name} {number}" for name, number in network.versions.items())
    photos = max(timing.photos for timing in folder.folders)
    lines = [
        "## The network alone",
        "",
        "The input has 320 × 320 px. Each engine has the best of the batch sizes 1, 4 and 8; rembg runs one "
        "photo at a time.",
        "",
        *speeds(timings),
        "",
        "## Accuracy",
        "",
        f"The {photos} pictures of ECSSD-100 with the authors' U²-Net†. ΔS and ΔMAE are the differences from "
        "the official code.",
        "",
        *accuracy(folder.network),
        "",
        "## Whole commands",
        "",
        f"{photos} JPEGs (400 × 300 px) become RGBA PNGs. Every command uses the authors' U²-Net†.",
        "",
        *commands(folder.folders),
        "",
        "## Training",
        "",
        "At 288 × 288 px, measured by `u2net train --dry-run`:",
        "",
        *training(),
        "",
        "## The machine",
        "",
        f"`u2net bench` measured all of this on {machine}; {versions}. Nothing was measured on a GPU.",
    ]
    return "\n".join(lines)


def main() -> None:
    stale = []
    for path, make in {Path("README.md"): short, Path("docs/speed.md"): section}.items():
        text = path.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        made = f"{before}{BEGIN}\n\n{make()}\n\n{END}{rest.split(END)[1]}"
        if made != text and "--check" in sys.argv:
            stale.append(str(path))
        elif made != text:
            path.write_text(made, encoding="utf-8")
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run: python model_cards/speed.py")


if __name__ == "__main__":
    main()
