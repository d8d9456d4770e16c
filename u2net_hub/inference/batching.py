"""Gather the requests of many callers into batches for the network; one thread runs all networks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from threading import Condition
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Maps: TypeAlias = "tuple[NDArray[np.float32], ...]"


class Runs(Protocol):
    """What runs a batch: an engine, or anything that is called like one."""

    def __call__(self, batch: NDArray[np.float32], *, side_outputs: bool = False) -> Maps: ...


class MapsFuture(Future[Maps]):
    """The future of a request's maps."""

    batch: int = 0
    """The number of photos of the batch in which the request ran; 0 before it has run."""


class QueueFullError(RuntimeError):
    """The queue of a `Batcher` is full."""


class Batcher:
    """Gather the requests of many threads into batches, and run them in one thread.

    Requests are joined if they are for the same engine and of the same size. A caller gets the maps of its
    own photos, which do not depend on the other photos of the batch. Any thread may call the methods.

    Args:
        batch_size: The largest number of photos in a joined batch.
        window: The seconds for which a request waits for others while the network is idle.
        queue: The largest number of requests that wait.
        others: A function that tells whether more requests are on their way. If it returns False, a request
            does not wait for the window to end. By default it always waits.
        on_batch: A function that is called after each batch with its number of photos and its seconds. Like
            `others`, it must not raise.

    Raises:
        ValueError: `batch_size` or `queue` is below 1, or `window` below 0.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        window: float = 0.003,
        queue: int = 64,
        others: Callable[[], bool] = lambda: True,
        on_batch: Callable[[int, float], object] = lambda photos, seconds: None,
    ) -> None:
        if batch_size < 1 or queue < 1 or not window >= 0:
            raise ValueError(
                f"batch_size is {batch_size!r}, queue is {queue!r} and window is {window!r}, "
                "expected whole numbers from 1, and seconds from 0"
            )
        self._batch_size, self._window, self._queue = batch_size, window, queue
        self._others, self._on_batch = others, on_batch
        self._changed = Condition()
        self._waiting: deque[_Request] = deque()
        self._working = self._closed = False
        self._pool = ThreadPoolExecutor(1, "u2net-network")

    def submit(
        self, engine: Runs, xs: NDArray[np.float32], *, side_outputs: bool = False, alone: bool = False
    ) -> MapsFuture:
        """Ask for the maps of one photo or of several.

        A request that is cancelled before it has started never reaches the network.

        Args:
            engine: The engine that runs the network.
            xs: The network's input for each photo: float32 (n, C, h, w).
            side_outputs: Whether the side outputs are wanted too.
            alone: Whether the request runs in a batch of its own, e.g. because its caller pays for the run.

        Returns:
            A future for the maps, each float32 (n, out, h, w). It raises what the engine raised.

        Raises:
            QueueFullError: The queue is full.
            RuntimeError: The batcher is closed.
        """
        request = _Request(engine, xs, side_outputs, alone)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed, so it takes no more requests")
            if len(self._waiting) >= self._queue:
                self._drop_cancelled()
                if len(self._waiting) >= self._queue:
                    raise QueueFullError(
                        f"{self._queue} requests wait for the network already; try again later"
                    )
            self._waiting.append(request)
            self._changed.notify_all()
            if not self._working:
                self._working = True
                self._pool.submit(self._work)
        return request.future

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the network."""
        return len(self._waiting)

    def close(self) -> None:
        """Take no more requests, cancel those that wait, and return when the running batch is finished."""
        with self._changed:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().future.cancel()
            self._changed.notify_all()
        self._pool.shutdown()

    def _work(self) -> None:
        """Run batches until no request waits."""
        while batch := self._next():
            start = time.perf_counter()
            _answer(batch)
            self._on_batch(sum(len(each.xs) for each in batch), time.perf_counter() - start)
            del batch  # so that nothing of it stays in memory while the thread waits

    def _next(self) -> list[_Request]:
        """Take the next batch from the queue; an empty list if no request waits."""
        with self._changed:
            while True:
                self._drop_cancelled()
                if not self._waiting:
                    self._working = False
                    return []
                chosen, is_full = self._gather()
                left = self._waiting[0].arrived + self._window - time.monotonic()
                if is_full or left <= 0 or not self._others():
                    break
                self._changed.wait(left)
            taken = set(map(id, chosen))
            self._waiting = deque(each for each in self._waiting if id(each) not in taken)
        started = [each for each in chosen if each.future.set_running_or_notify_cancel()]
        return started or self._next()

    def _gather(self) -> tuple[list[_Request], bool]:
        """Choose the requests that run with the oldest one, and tell whether their batch is full."""
        first = self._waiting[0]
        chosen, photos = [first], len(first.xs)
        if first.alone:
            return chosen, True
        for each in list(self._waiting)[1:]:
            if each.goes_with(first) and photos + len(each.xs) <= self._batch_size:
                chosen.append(each)
                photos += len(each.xs)
        return chosen, photos >= self._batch_size

    def _drop_cancelled(self) -> None:
        self._waiting = deque(each for each in self._waiting if not each.future.cancelled())


class _Request:
    """One caller's photos, and the future of their maps."""

    def __init__(self, engine: Runs, xs: NDArray[np.float32], side_outputs: bool, alone: bool) -> None:
        self.engine, self.xs, self.side_outputs, self.alone = engine, xs, side_outputs, alone
        self.future = MapsFuture()
        self.arrived = time.monotonic()
        # ZeroGPU finds the visitor who asked for the GPU in the caller's context
        self.context: Context = copy_context()

    def goes_with(self, other: _Request) -> bool:
        """Tell whether both requests may run in one batch."""
        return (
            not self.alone
            and self.engine is other.engine
            and self.side_outputs == other.side_outputs
            and self.xs.shape[1:] == other.xs.shape[1:]
        )


def _answer(batch: Sequence[_Request]) -> None:
    """Run one batch and give each request its maps, or the exception that it raised."""
    first = batch[0]
    try:
        xs = first.xs if len(batch) == 1 else np.concatenate([each.xs for each in batch])
        maps = first.context.run(first.engine, xs, side_outputs=first.side_outputs)
    except BaseException as e:  # whatever it is, it belongs to the caller, and this thread must go on
        if len(batch) == 1:
            first.future.set_exception(e)
            return
        for each in batch:  # one photo must not spoil the answers of the others
            _answer([each])
        return
    start = 0
    for each in batch:
        each.future.batch = len(xs)
        end = start + len(each.xs)
        # copies, so that one answer does not keep the maps of its whole batch in memory
        each.future.set_result(maps if len(batch) == 1 else tuple(m[start:end].copy() for m in maps))
        start = end
