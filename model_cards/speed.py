"""Write the tables of speed: a short one in the README, all of them in docs/speed.md, and the speeds of the
bundled models in their results.json.

The figures are those that `u2net bench` measured; they lie in model_cards/speed. Run this script from the
root of the checkout. With --check it writes nothing and fails if a file is not up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from u2net_hub.benchmarks.results import (
    PLAIN,
    REMBG,
    Benchmark,
    Timing,
    folder_speed_up,
    quartiles,
)
from u2net_hub.evaluation import Results
from u2net_hub.evaluation.results import Speed
from u2net_hub.tables import markdown_table

FOLDER = Path("model_cards/speed")
"""A folder for each machine, with the folders of one or several runs of `u2net bench`."""
MACHINES = {"avx512": "a processor without AMX", "amx": "a processor with AMX"}
BEGIN, END = "<!-- speed: begin (python model_cards/speed.py) -->", "<!-- speed: end -->"
NETWORKS = {("u2netp", 320): "U²-Net†", ("u2netp", 168): "U²-Net†, 168 px", ("u2net", 320): "U²-Net"}
ENGINES = {PLAIN: "official code, eager", REMBG: "**rembg's session**", "torch": "torch"}
ENGINES |= {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def load(machine: str) -> list[Benchmark]:
    files = sorted((FOLDER / machine).glob("*/benchmark.json"))
    return [Benchmark.from_dict(json.loads(file.read_text(encoding="utf-8"))) for file in files]


def kind(timing: Timing) -> tuple[str, str]:
    return timing.setup.engine, timing.setup.precision


def speeds(runs: Sequence[Benchmark]) -> list[str]:
    """Each engine at its best batch: images per second, and how often that of rembg's session.

    Of several runs with the same network, the newest of those with the most batch sizes counts.
    """
    table: dict[tuple[str, str], dict[str, str]] = {}
    shown = []
    for key, name in NETWORKS.items():
        of_runs = [
            (len({t.setup.batch for t in found}), run.date, found)
            for run in runs
            if (found := [t for t in run.network if t.seconds and (t.setup.network, t.setup.size) == key])
        ]
        if not of_runs:
            continue
        timings = max(of_runs, key=lambda each: each[:2])[2]
        shown.append(name)
        peers = [t.images_per_second or 1 for t in timings if t.setup.engine == REMBG]
        for engine, precision in dict.fromkeys(map(kind, timings)):
            mine = [t for t in timings if kind(t) == (engine, precision)]
            best = max(mine, key=lambda t: t.images_per_second or 0)
            rate = best.images_per_second or 0
            cell = f"{rate:.1f} (batch {best.setup.batch})"
            cell += f", {rate / peers[0]:.2f}×" if peers else ""
            table.setdefault((engine, precision), {})[name] = cell
    rows = [
        [ENGINES[engine], precision, *(cells.get(name, "") for name in shown)]
        for (engine, precision), cells in table.items()
    ]
    return markdown_table(["engine", "precision", *shown], rows)


def accuracy(runs: Sequence[Benchmark]) -> list[str]:
    """Scores of each engine, and what it differs by from the official code's."""
    rows = []
    for key, name in NETWORKS.items():
        scored = {
            kind(t): t.scores
            for run in runs
            for t in run.network
            if t.scores and (t.setup.network, t.setup.size) == key
        }
        for (engine, precision), scores in scored.items():
            reference = scored[PLAIN, "exact"]
            change = [f"{scores[k] - reference[k]:+.4f}" for k in ("s_measure", "mae")]
            values = [f"{scores[k]:.4f}" for k in ("s_measure", "mae")]
            rows.append([name, ENGINES[engine], precision, *values, *change])
    return markdown_table(["network", "engine", "precision", "S", "MAE", "ΔS", "ΔMAE"], rows)


def commands(runs: Sequence[Benchmark], *, all_rows: bool = True) -> list[str]:
    rows = []
    for run in runs:
        for timing in run.folders:
            if not timing.seconds or not (all_rows or timing.size is not None):
                continue
            first, median, third = quartiles(timing.seconds)
            ratio = folder_speed_up(timing, run.folders)
            rows.append(
                [
                    f"`{timing.name}`",
                    "" if timing.size is None else f"{timing.size} px",
                    f"{median:.2f} ({first:.2f}–{third:.2f})",
                    "" if ratio is None else f"{ratio:.2f}×",
                    "" if timing.peak_mb is None else f"{timing.peak_mb:.0f}",
                ]
            )
    return markdown_table(["command", "network's input", "seconds (quartiles)", "× rembg", "peak MB"], rows)


def training() -> list[str]:
    """Images per second of each recipe, from what `u2net train --dry-run` said."""
    text = (FOLDER / "amx" / "training.txt").read_text(encoding="utf-8")
    found = re.findall(
        r"--model (\w+) --recipe (\w+).*?training on cpu, (\w+).*?images/s at +288 +([\d.]+), ([\d.]+)%",
        text,
        re.DOTALL,
    )
    rows = [
        [NETWORKS[model, 320], f"`{recipe}`, {kind}", rate, f"{wait} %"]
        for model, recipe, kind, rate, wait in found
    ]
    return markdown_table(["network", "recipe", "images/s", "time spent waiting for data"], rows)


def about(runs: Sequence[Benchmark]) -> str:
    """Say on what machine, when and with which versions the runs were measured."""
    last = max(runs, key=lambda run: run.date)
    machine = ", ".join(f"{key} {value}" for key, value in last.machine.items())
    versions = ", ".join(f"{name} {number}" for name, number in last.versions.items())
    return f"The machine, on {last.date[:10]}: {machine}; {versions}. Nothing was measured on a GPU."


def short() -> str:
    """The README's table: seconds for a folder, from start to end."""
    runs = load("avx512")
    photos = max(timing.photos for run in runs for timing in run.folders)
    machine = runs[0].machine
    return "\n".join(
        [
            f"{photos} JPEGs (400 × 300 px) become RGBA PNGs with the default weights on "
            f"{machine['usable cores']} cores of a CPU ({machine['cpu']}):",
            "",
            *commands(runs, all_rows=False),
        ]
    )


def section() -> str:
    """The tables of docs/speed.md."""
    lines = []
    for machine, words in MACHINES.items():
        runs = load(machine)
        lines += [
            f"## On {words}",
            "",
            "The network alone, in images per second, and how many times rembg's. The input has 320 × 320 "
            "px, unless the column says otherwise. Each engine has the best of the batch sizes 1, 4 and 8; "
            "rembg runs one photo at a time.",
            "",
            *speeds(runs),
            "",
            "Whole commands, from 100 JPEGs (400 × 300 px) to RGBA PNGs, all with the authors' U²-Net†, or "
            "with u2netp-168 where the input has 168 px:",
            "",
            *commands(runs),
            "",
            "Scores on the 100 pictures of ECSSD-100. ΔS and ΔMAE are the differences from the official "
            "code.",
            "",
            *accuracy(runs),
            "",
            about(runs),
            "",
        ]
    lines += [
        "## Training",
        "",
        "At 288 × 288 px on the processor with AMX, measured by `u2net train --dry-run`:",
        "",
        *training(),
    ]
    return "\n".join(lines)


def with_speeds(path: Path) -> str:
    """The results.json of a bundled model, with its speeds in OpenVINO, the default first."""
    results = Results.from_dict(json.loads(path.read_text(encoding="utf-8")))
    rows = [
        Speed(f"OpenVINO, {t.setup.precision}", str(run.machine["cpu"]), t.images_per_second, t.setup.batch)
        for run in load("avx512")
        for t in run.network
        if t.images_per_second and (t.setup.model, t.setup.engine) == (path.parent.name, "openvino")
    ]
    best = {}
    for row in sorted(rows, key=lambda row: row.images_per_second):
        best[row.engine] = replace(row, images_per_second=round(row.images_per_second, 1))
    content = replace(results, speed=tuple(best[key] for key in sorted(best))).to_dict()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def in_page(path: Path, table: str) -> str:
    """The page with the table between its marks."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    pages = {Path("README.md"): short(), Path("docs/speed.md"): section()}
    contents = {path: in_page(path, table) for path, table in pages.items()}
    contents |= {path: with_speeds(path) for path in Path("u2net_hub/weights").glob("*/results.json")}
    stale = []
    for path, made in contents.items():
        text = path.read_text(encoding="utf-8")
        if made != text and "--check" in sys.argv:
            stale.append(str(path))
        elif made != text:
            path.write_text(made, encoding="utf-8")
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run: python model_cards/speed.py")


if __name__ == "__main__":
    main()
