"""Compute scores in other processes while this process makes the next maps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from ..ordered import map_ordered

Result = TypeVar("Result")


def map_in_processes(
    function: Callable[..., Result], jobs: Iterable[tuple[object, ...]], workers: int | None
) -> Iterator[Result]:
    """Call a function in other processes while this process makes the next jobs, and yield results in order.

    Only a few jobs wait at a time, so that the maps do not fill the memory.

    Args:
        function: The function to call. It must be importable, since other processes run it.
        jobs: The positional arguments of each call.
        workers: The number of processes; None starts one per core, and 0 calls the function in this process.

    Raises:
        RuntimeError: The processes could not start, or died.
    """
    if workers == 0:
        yield from (function(*job) for job in jobs)
        return
    workers = workers or os.cpu_count() or 1
    # "spawn", because a forked copy of a process with torch's threads can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts) as pool:
        try:
            yield from map_ordered(pool, partial(_call, function), jobs, ahead=4 * workers)
        except BrokenProcessPool as e:
            raise RuntimeError(
                "the processes that score died or could not start; a script has to call this under "
                '`if __name__ == "__main__":`, or with workers=0'
            ) from e


def _call(function: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    return function(*arguments)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C in this worker; the main process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
