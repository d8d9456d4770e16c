"""Measure commands on a folder of photos from start to end: this package's and rembg's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..imaging import IMAGE_SUFFIXES
from . import worker
from .results import FolderTiming, folder_label


@dataclass(frozen=True)
class Command:
    """A command to run, and its row in the table."""

    row: FolderTiming
    words: tuple[str, ...]
    """The words of the command line; "OUT" stands for a new folder."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables."""


def children_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the environment of measured processes, in which libraries choose their number of threads."""
    own = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return own | dict(more or {})


def count_photos(folder: Path) -> int:
    """Count the pictures in a folder and its subfolders.

    Raises:
        ValueError: The folder holds no pictures.
    """
    n = sum(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in folder.rglob("*"))
    if n == 0:
        raise ValueError(f"no picture in {folder} (looked for {' '.join(IMAGE_SUFFIXES)})")
    return n


def measure_commands(
    commands: Sequence[Command], scratch: Path, rounds: int, say: Callable[[str], object]
) -> tuple[FolderTiming, ...]:
    """Run all commands in turn, `rounds` times, after a first round that fills caches.

    Args:
        commands: The commands to run.
        scratch: A folder for temporary files.
        rounds: The number of rounds that are measured.
        say: A function to call with a line of text before each run.
    """
    timings = [command.row for command in commands]
    for i in range(rounds + 1):  # the first run reads files, compiles bytecode and builds graphs
        for k, command in enumerate(commands):
            if timings[k].error is None:
                turn = f"round {i} of {rounds}" if i else "once to warm up"
                say(f"{turn}: {folder_label(command.row)}")
                timings[k] = _run(command, timings[k], scratch / "out", counts=i > 0)
    return tuple(timings)


def _run(command: Command, timing: FolderTiming, out: Path, *, counts: bool) -> FolderTiming:
    out.mkdir()
    words = [str(out) if word == "OUT" else word for word in command.words]
    try:
        answer = subprocess.run(
            [sys.executable, "-I", worker.__file__],
            input=json.dumps({"do": "run", "words": words}),
            env=children_environment(command.env),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        ).stdout
        found = json.loads(answer)
        if "error" in found:
            return replace(timing, error=found["error"])
        written = sum(path.is_file() for path in out.rglob("*"))
        if found["status"] != 0 or written != timing.photos:
            status = f"exit status {found['status']}, {written} of {timing.photos} files written"
            return replace(timing, error=f"{status}: {found['last']}")
        if not counts:
            return timing
        peaks = [mb for mb in (found["peak_mb"], timing.peak_mb) if mb is not None]
        seconds = (*timing.seconds, found["seconds"])
        return replace(timing, seconds=seconds, peak_mb=max(peaks) if peaks else None)
    finally:
        shutil.rmtree(out)
