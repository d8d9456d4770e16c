"""Writes the tables of the server's measurements, from results.json beside this file into docs/serving.md.

Run it from the root of the checkout. With --check it writes nothing and fails if the page is not up to date.
`measure.py` runs it at its end.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from u2net_hub.tables import markdown_table

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path("docs/serving.md")
BEGIN, END = "<!-- serving: begin (python model_cards/serving/table.py) -->", "<!-- serving: end -->"
TARGET, PEER = "u2net serve --precision fast --edges soft", "rembg s"


FIGURES = (("one_rate", ".1f"), ("many_rate", ".1f"), ("many_p50", ".2f"), ("many_p95", ".2f"))
FAULTS = (
    "answered",
    "left",
    "broken file, refused",
    "broken file, not refused",
    "refused, queue full",
    "lost",
    "mixed up",
)


def median(record: Mapping[str, Any], server: str, key: str) -> float | None:
    """The median over the rounds of one figure of one server; None if it was not measured."""
    found = [each[key] for each in record["rounds"] if each["server"] == server and each.get(key) is not None]
    return statistics.median(found) if found else None


def ratio(record: Mapping[str, Any], server: str, key: str) -> float | None:
    """How many times the peer's median a server's median is."""
    own, peer = median(record, server, key), median(record, PEER, key)
    return own / peer if own is not None and peer else None


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def speed(record: Mapping[str, Any]) -> list[str]:
    servers = list(dict.fromkeys(each["server"] for each in record["rounds"]))
    rows = []
    for name in servers:
        cells = [f"`{name}`", str(sum(each["server"] == name for each in record["rounds"]))]
        for key, form in FIGURES:
            times = "" if name == PEER else f" ({number(ratio(record, name, key), '.2f')}×)"
            cells.append(number(median(record, name, key), form) + times)
        rows.append(cells)
    many = record["settings"]["clients"]
    head = ["server", "rounds", "requests/s, 1 client", f"requests/s, {many} clients", "p50, s", "p95, s"]
    return markdown_table(head, rows)


def memory(record: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"`{each['server']}`",
            str(each["requests"]),
            *(number(each[key], ".0f") for key in ("start_mb", "half_mb", "end_mb")),
            number(None if each["half_mb"] is None else each["end_mb"] - each["half_mb"], "+.0f"),
            number(each["peak_mb"], ".0f"),
        ]
        for each in record["memory"]
    ]
    head = ["server", "requests", "MB at the start", "half way", "at the end", "second half", "peak MB"]
    return markdown_table(head, rows)


def faults(record: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"`{each['server']}`", str(each["requests"]), *(str(each.get(key, 0)) for key in FAULTS)]
        for each in record["faults"]
    ]
    return markdown_table(["server", "requests", *FAULTS], rows)


def section(record: Mapping[str, Any]) -> str:
    """The text between the marks."""
    settings, machine = record["settings"], record["machine"]
    said = ", ".join(f"{key} {value}" for key, value in machine.items())
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    lines = [
        f"One server at a time, all with the weights of `{settings['model']}`, rembg with the file that "
        f"`u2net export` makes of them. The figures are medians of alternating rounds, each "
        f"with {settings['single']} requests from one client and {settings['requests']} from "
        f"{settings['clients']}; the JPEGs are those of ECSSD-100. Ratios are to rembg's median.",
        "",
        *speed(record),
        "",
    ]
    if record["memory"]:
        lines += [
            f"Resident memory of all processes of a server, at rest, with JPEGs of .1 to 12 megapixels in an "
            f"order of a fixed seed from {settings['clients']} clients, and the peak in between:",
            "",
            *memory(record),
            "",
        ]
    if record["faults"]:
        lines += [
            f"In {settings['leave']:.0%} of these requests the client leaves in the middle, and "
            f"{settings['broken']:.0%} hold a broken file. Each answer was compared with the pipeline's own "
            "for that photo; it counts as mixed up if a pixel differs by more than "
            f"{settings['tolerance']} of 255.",
            "",
            *faults(record),
            "",
        ]
    answers = record["answers"]
    lines += [
        f"Of all {answers['answers']} answers of `u2net serve`, {answers['equal']} have exactly the "
        f"pipeline's pixels; the largest difference is {answers['largest']} of 255. The clients took at most "
        f"{record['largest_processor_share']:.0%} of one core.",
        "",
        f"The machine, on {record['date']}: {said}; {versions}.",
    ]
    return "\n".join(lines)


def page(record: Mapping[str, Any], text: str) -> str:
    """The page with the tables between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section(record)}\n\n{END}{rest.split(END)[1]}"


def main(words: Sequence[str]) -> None:
    if not RESULTS.exists():
        return
    text = PAGE.read_text(encoding="utf-8")
    made = page(json.loads(RESULTS.read_text(encoding="utf-8")), text)
    if made != text and "--check" in words:
        sys.exit(f"{PAGE} is not up to date; run: python model_cards/serving/table.py")
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
