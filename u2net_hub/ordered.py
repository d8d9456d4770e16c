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

    A new item is taken from the iterable only when a result is taken from this iterator, so that neither
    items nor results fill the memory. If a call raises, this iterator raises the exception at the place of
    its result. When the iterator ends or is closed early, it cancels the calls that have not started. The
    caller opens the pool and shuts it down.

    Args:
        pool: A pool of threads or processes. With processes, function, items and results must be picklable.
        function: The function to call.
        items: The items, which may be made while the pool works.
        ahead: The largest number of items that are submitted and whose results are not yet taken.
        cost: A function that gives the cost of an item, e.g. its number of pixels.
        budget: The largest total cost of the items counted by `ahead`; one item alone may exceed it.

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
