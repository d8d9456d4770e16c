"""The bounded ordered map, over threads and over processes."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from u2net_hub.ordered import map_ordered


def double(number: int) -> int:
    return 2 * number


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first() -> None:
    second_is_done = threading.Event()

    def wait_for_the_second(number: int) -> int:
        if number == 0:
            second_is_done.wait(10)
        if number == 1:
            second_is_done.set()
        return number

    with ThreadPoolExecutor(2) as pool:
        assert list(map_ordered(pool, wait_for_the_second, range(9), ahead=3)) == list(range(9))


def test_processes_give_the_same() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        # functions that a fresh process can import by name, wherever the tests lie
        assert list(map_ordered(pool, math.factorial, range(5), ahead=3)) == [1, 1, 2, 6, 24]
        with pytest.raises(ValueError, match="negative"):
            list(map_ordered(pool, math.factorial, [2, 1, -1, 3], ahead=3))


def test_no_items_give_no_results() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert list(map_ordered(pool, double, [], ahead=1)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_so_many_items_and_no_more_are_under_way(ahead: int) -> None:
    pulled, most = 0, 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for i in range(20):
            pulled = i + 1
            yield i

    with ThreadPoolExecutor(4) as pool:
        for taken, _ in enumerate(map_ordered(pool, double, items(), ahead=ahead)):
            most = max(most, pulled - taken)
    assert most == ahead + 1  # those under way, and the one whose result has just been taken


def test_the_budget_holds_back_items_that_would_exceed_it() -> None:
    sizes = [4, 4, 4, 9, 30, 1, 1]
    submitted: list[int] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, function, /, *arguments, **named):  # type: ignore[no-untyped-def]
            submitted.append(arguments[0])
            return super().submit(function, *arguments, **named)

    under_way = []
    with Pool(2) as pool:
        results = map_ordered(pool, double, range(7), ahead=5, cost=sizes.__getitem__, budget=10)
        for _ in results:
            under_way.append(list(submitted))
    # 4 + 4 fit; a third 4 waits for the first; 9 waits for both; 30 exceeds the budget and goes alone
    assert [len(items) for items in under_way] == [3, 4, 4, 5, 6, 7, 7]


def test_an_exception_comes_in_its_turn_and_the_pool_can_be_shut_down() -> None:
    found = []
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="three"):
        found.extend(map_ordered(pool, refuse_three, range(100), ahead=4))
    assert found == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread in pool._threads]
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(double, 1)


@pytest.mark.parametrize("end", ["close", "exception"])
def test_what_waits_is_cancelled_when_the_caller_stops_early(end: str) -> None:
    called, go_on, blocked = [], threading.Event(), threading.Event()

    def work(number: int) -> int:
        called.append(number)
        if number == 1:
            blocked.set()
            go_on.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = map_ordered(pool, work, range(100), ahead=5)
        assert next(results) == 0
        assert blocked.wait(10)
        if end == "close":
            results.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises(KeyError):
                results.throw(KeyError())  # type: ignore[attr-defined]
        go_on.set()
    assert called == [0, 1]


def test_an_exception_of_the_items_cancels_what_waits_too() -> None:
    called, started, go_on = [], threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield from range(3)
        started.wait(10)
        raise KeyError("items")

    def work(number: int) -> int:
        called.append(number)
        started.set()
        go_on.wait(10)
        return number

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError, match="items"):
            list(map_ordered(pool, work, items(), ahead=9))
        go_on.set()
    assert called == [0]


def test_a_result_that_was_taken_is_not_kept() -> None:
    class Large:
        pass

    with ThreadPoolExecutor(1) as pool:
        results = map_ordered(pool, lambda i: Large(), range(5), ahead=2)
        seen = weakref.ref(next(results))
        end = time.monotonic() + 30  # a thread lets go of a result a moment after it is ready
        while seen() is not None and time.monotonic() < end:
            gc.collect()
        assert seen() is None


def test_room_for_no_item_is_refused() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="ahead is 0, expected at least 1"):
        map_ordered(pool, double, [1], ahead=0)
