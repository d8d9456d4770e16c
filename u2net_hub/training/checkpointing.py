"""Checkpoints on disk. Each is written completely or not at all, and the last good one is never lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from .streaming import UnreadablePairError

if TYPE_CHECKING:
    from accelerate import Accelerator


_KEPT = 2
"""The number of checkpoints that are kept: the newest and the one before it."""


def checkpoint_name(step: int) -> str:
    """Return the name of the folder for a step. Sorted names are in the order of the steps."""
    return f"step-{step:08d}"


def newest_checkpoint(run: Path) -> Path | None:
    """Find the last complete checkpoint of a run. A folder gets its final name only when it is complete."""
    return max((run / "checkpoints").glob("step-*"), default=None)


def write_checkpoint(run: Path, step: int, accelerator: Accelerator, progress: Mapping[str, object]) -> Path:
    """Write a checkpoint, then remove all but this one and the one before it.

    Every process of a run must call this function.

    Args:
        run: The folder of the run.
        step: The number of optimizer steps done.
        accelerator: Everything that is registered with it is saved.
        progress: The content of progress.json, which is written beside the tensors.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: The checkpoint could not be written. The one before it is intact.
    """
    folder = run / "checkpoints"
    unfinished, finished = folder / f".{checkpoint_name(step)}", folder / checkpoint_name(step)
    main = accelerator.is_main_process
    if main:
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))
        if main:
            (unfinished / "progress.json").write_text(json.dumps(progress, indent=1), encoding="utf-8")
            for file in unfinished.iterdir():
                _flush(file)
    # torch reports a full disk as a RuntimeError
    except (OSError, RuntimeError, SafetensorError) as e:
        shutil.rmtree(unfinished, ignore_errors=True)
        before = newest_checkpoint(run)
        kept = f"{before} is intact: make room and go on with --resume" if before else "there is no other one"
        raise OSError(f"could not write the checkpoint {finished}: {e}; {kept}") from e
    accelerator.wait_for_everyone()
    if main:
        if finished.exists():
            shutil.rmtree(finished)
        unfinished.replace(finished)
        _flush(folder)
        for old in sorted(folder.glob("step-*"))[:-_KEPT]:
            shutil.rmtree(old)
    return finished


@contextmanager
def tell_how_to_go_on(run: Path, command: str) -> Iterator[None]:
    """Add to the error of a pair that cannot be read which checkpoint is left, and how to continue the run.

    Args:
        run: The folder of the run.
        command: The command that continues it.

    Raises:
        UnreadablePairError: The same error, with more words.
    """
    try:
        yield
    except UnreadablePairError as e:
        kept = newest_checkpoint(run)
        advice = (
            f"{kept} is intact: put a good file in its place, and go on with: {command}"
            if kept
            else "there is no checkpoint yet: put a good file in its place, and start again"
        )
        raise UnreadablePairError(f"a pair cannot be read in the middle of the run: {e}; {advice}") from e


def _flush(path: Path) -> None:
    """Wait until the disk holds a file or folder, so that a power cut cannot leave it empty."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
