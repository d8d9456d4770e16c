"""Requests of many callers go through the network together, and each gets its own answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextvars import ContextVar
from threading import Event
from typing import Any

import numpy as np
import pytest

from u2net_hub.inference import Batcher, QueueFullError


class Engine:
    """Doubles its input, and notes the batches; it waits while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.gate, self.runs = Event(), Event()
        self.gate.set()

    def __call__(self, batch: Any, *, side_outputs: bool = False) -> Any:
        self.runs.set()
        assert self.gate.wait(20)
        self.batches.append(batch[:, 0, 0, 0].tolist())
        if -1 in batch:
            raise ValueError("a bad photo")
        return (2 * batch, 3 * batch) if side_outputs else (2 * batch,)


def photo(value: float, n: int = 1, side: int = 2) -> Any:
    return np.full((n, 1, side, side), value, np.float32)


def value_of(future: Any) -> float:
    return float(future.result(20)[0][0, 0, 0, 0])


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.gate.set()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(batch_size=4, window=0, queue=6)
    yield batcher
    batcher.close()


def hold(batcher: Batcher, engine: Engine) -> Any:
    """Keep the network busy with one request, so that those after it wait."""
    engine.gate.clear()
    first = batcher.submit(engine, photo(0))
    assert engine.runs.wait(20)
    return first


def test_each_caller_gets_the_maps_of_its_photo(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i)) for i in range(1, 7)]
    engine.gate.set()
    assert [value_of(each) for each in futures] == [2, 4, 6, 8, 10, 12]


def test_those_that_wait_together_run_together_up_to_the_batch_size(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i)) for i in range(1, 7)]
    engine.gate.set()
    futures[-1].result(20)
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [each.batch for each in futures] == [4, 4, 4, 4, 2, 2]


def test_a_request_waits_for_others_within_the_window(engine: Engine) -> None:
    batcher = Batcher(batch_size=2, window=20)
    first, second = batcher.submit(engine, photo(1)), batcher.submit(engine, photo(2))
    assert (value_of(first), value_of(second)) == (2, 4)
    assert engine.batches == [[1, 2]]  # and it was sent off when it was full
    batcher.close()


def test_nobody_waits_if_no_others_come(engine: Engine) -> None:
    batcher = Batcher(window=1000, others=lambda: False)
    assert value_of(batcher.submit(engine, photo(1))) == 2
    batcher.close()


def test_requests_of_other_sizes_engines_and_outputs_run_apart(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    other = Engine()
    futures = [
        batcher.submit(engine, photo(1)),
        batcher.submit(engine, photo(2, side=3)),
        batcher.submit(other, photo(3)),
        batcher.submit(engine, photo(4), side_outputs=True),
        batcher.submit(engine, photo(5)),
    ]
    engine.gate.set()
    assert [value_of(each) for each in futures] == [2, 4, 6, 8, 10]
    assert len(futures[3].result()) == 2
    assert engine.batches == [[0], [1, 5], [2], [4]]
    assert other.batches == [[3]]


def test_a_request_alone_is_joined_with_no_other(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i), alone=i == 2) for i in (1, 2, 3)]
    engine.gate.set()
    futures[1].result(20)
    assert engine.batches == [[0], [1, 3], [2]]


def test_a_request_of_many_photos_stays_whole(batcher: Batcher, engine: Engine) -> None:
    maps = batcher.submit(engine, photo(1, n=9)).result(20)
    assert maps[0].shape == (9, 1, 2, 2)
    assert len(engine.batches) == 1


def test_a_full_queue_raises_at_once(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    for i in range(6):
        batcher.submit(engine, photo(i))
    with pytest.raises(QueueFullError, match="6 requests wait"):
        batcher.submit(engine, photo(7))


def test_a_cancelled_request_gives_its_place_to_another(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i)) for i in range(1, 7)]
    assert futures[0].cancel()
    last = batcher.submit(engine, photo(7))
    engine.gate.set()
    assert value_of(last) == 14
    assert all(1.0 not in each for each in engine.batches)


def test_an_exception_reaches_only_the_caller_whose_photo_raised_it(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i)) for i in (1, -1, 3)]
    engine.gate.set()
    with pytest.raises(ValueError, match="a bad photo"):
        futures[1].result(20)
    assert (value_of(futures[0]), value_of(futures[2])) == (2, 6)


def test_closing_finishes_what_runs_and_cancels_what_waits(engine: Engine) -> None:
    batcher = Batcher()
    running = hold(batcher, engine)
    waiting = batcher.submit(engine, photo(1))
    engine.gate.set()
    batcher.close()
    assert value_of(running) == 0
    if waiting.cancelled():
        with pytest.raises(CancelledError):
            waiting.result()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(engine, photo(1))


def test_the_network_runs_in_the_context_of_its_caller(batcher: Batcher) -> None:
    visitor: ContextVar[str] = ContextVar("visitor", default="nobody")
    seen = []

    def engine(batch: Any, *, side_outputs: bool = False) -> Any:
        seen.append(visitor.get())
        return (batch,)

    token = visitor.set("Ada")
    batcher.submit(engine, photo(1)).result(20)
    visitor.reset(token)
    assert seen == ["Ada"]


def test_an_answer_holds_no_memory_of_its_neighbours(batcher: Batcher, engine: Engine) -> None:
    hold(batcher, engine)
    futures = [batcher.submit(engine, photo(i)) for i in (1, 2)]
    engine.gate.set()
    assert all(each.result(20)[0].base is None for each in futures)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"queue": 0}, {"window": -1}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected whole numbers from 1"):
        Batcher(**wrong)  # type: ignore[arg-type]
