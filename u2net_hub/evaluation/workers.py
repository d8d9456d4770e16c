"""Score in other processes while maps are still being made."""

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
    """Call a function in other processes while the jobs are still being made; results in order.

    Only a few jobs wait at a time, so that maps do not pile up in memory.
    """
    if workers == 0:
        yield from (function(*job) for job in jobs)
        return
    workers = workers or os.cpu_count() or 1
    # spawn: a fork of a process that runs torch's threads may hang
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
    """Ctrl-C is for the process that shows the progress."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
