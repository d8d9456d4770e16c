"""A bounded map over threads or processes that keeps the order of its items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    pool: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
    cost: Callable[[Item], int] | None = None,
    budget: int | None = None,
) -> Iterator[Result]:
    """Call a function on each item in a pool, and yield the results in the order of the items.

    Items are taken from the iterable only as results are taken from here, so that neither pile up in memory,
    however long the iterable is. If a call raises, its exception is raised here in its turn. When
    the iterator ends for whatever reason, also because it is closed early, calls that have not started are
    cancelled. The pool stays open; the caller, who opened it, shuts it down.

    Args:
        pool: A pool of threads or processes. With processes, function, items and results must be picklable.
        function: The function to call.
        items: The items, which may be made while the pool works.
        ahead: The largest number of items that are submitted and whose results are not yet taken.
        cost: What an item counts towards the budget, e.g. its number of pixels.
        budget: The largest total cost of those items; one item alone may exceed it.

    Raises:
        ValueError: `ahead` is below 1.
    """
    if ahead < 1:
        raise ValueError(f"ahead is {ahead}, expected at least 1")
    return _results(pool, function, items, ahead, cost or _free, float("inf") if budget is None else budget)


def _results(
    pool: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
    cost: Callable[[Item], int],
    budget: float,
) -> Iterator[Result]:
    submitted: deque[tuple[Future[Result], int]] = deque()
    total = 0
    try:
        for item in items:
            size = cost(item)
            finished = []
            while submitted and (len(submitted) >= ahead or total + size > budget):
                total -= submitted[0][1]
                finished.append(submitted.popleft()[0].result())
            submitted.append((pool.submit(function, item), size))
            total += size
            del item  # nothing is kept here that the caller has taken
            while finished:
                yield finished.pop(0)
        while submitted:
            yield submitted.popleft()[0].result()
    finally:
        for future, _ in submitted:
            future.cancel()


def _free(item: object) -> int:
    return 0
