"""The workers of a run on a cluster: start them, give them blocks, and replace those that die."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..malloc import MALLOC_ENVIRONMENT
from .feed import BlockFeed
from .lease import Lease
from .session import import_ray
from .worker import Block, Counts, DestinationError, PhotoWorker, WorkerPlan

logger = logging.getLogger(__name__)

# The blocks that each worker has: one in progress, and the next.
_BLOCKS_EACH = 2
_POLLED_EVERY = 1.0  # seconds
_SCALED_EVERY = 5.0
_IMPATIENT_AFTER = 60.0
_FAILED_STARTS = 3
_FAILED_ATTEMPTS = 4
_EXAMPLES = 100


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    written: int
    skipped: int
    failed: int
    total: int | None
    """The number of all photos; None until they are counted, or if the source holds tar files."""
    workers: int
    seconds: float
    """The time since the first worker was ready."""
    per_second: float
    """The photos written or failed for each second of the last half minute."""

    @property
    def done(self) -> int:
        """The number of photos that are written, skipped or failed."""
        return self.written + self.skipped + self.failed

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest takes at the present speed; None if unknown."""
        if self.total is None or not self.per_second:
            return None
        return (self.total - self.done) / self.per_second


@dataclass
class _Worker:
    actor: Any
    starting: Any
    """The result of `open` that is awaited; None for a worker that is ready."""
    blocks: dict[Any, Block] = field(default_factory=dict)
    """The blocks that it has, in their order, by the results that are awaited."""
    asked: Any = None
    """The counts that are awaited."""
    counts: Counts = field(default_factory=Counts)


class WorkerPool:
    """Gives the blocks of a feed to workers until none is left.

    Ray Data would place the photos of a lost machine anew as well, but it aborts or repeats for ever where a
    photo kills its worker, and it waits for the very worker that it gave a block to. So the actors are held
    directly: whatever happens to one, its blocks go to others.

    Args:
        plan: What each worker needs to know.
        contents: The files of the weights.
        feed: The blocks.
        lease: The lease on the destination.
        size: The number of workers, None for as many as fit, and the numbers of cores and GPUs of each.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        contents: Mapping[str, bytes],
        feed: BlockFeed,
        lease: Lease,
        size: tuple[int | None, int, float],
    ) -> None:
        self._ray = import_ray()
        self._plan, self._feed, self._lease = plan, feed, lease
        self._wanted, self._cpus, self._gpus = size
        self._contents = self._ray.put(dict(contents))
        self._actor_class = _make_actor_class(self._ray)
        self._workers: list[_Worker] = []
        self._again: deque[Block] = deque()
        self._failed_starts = 0
        self._total = Counts()
        self._recent: deque[tuple[float, int]] = deque()
        self._start: float | None = None
        self.errors: list[tuple[str, str]] = []
        """The paths and the errors of the first photos that failed."""
        self.about = {"device": "-", "engine": "-", "precision": "-"}
        """The device, engine and precision of the first worker; "-" if no photo was left to do."""

    def run(self, on_progress: Callable[[Progress], None] | None) -> Progress:
        """Work until all blocks are done, and return the last progress.

        Raises:
            OSError: The destination is full.
            RuntimeError: Workers die again and again, or another run has taken the destination.
            Exception: What a worker raised when it started, or again and again for a block.
        """
        began = polled = scaled = time.monotonic()
        try:
            self._scale()
            while not self._is_finished():
                self._hand_out()
                self._wait()
                now = time.monotonic()
                if now - polled >= _POLLED_EVERY:
                    polled = now
                    self._ask()
                    if on_progress is not None:
                        on_progress(self._progress())
                if now - scaled >= _SCALED_EVERY:
                    scaled = now
                    self._scale()
                    if self._start is None and now - began > _IMPATIENT_AFTER:
                        began = now
                        logger.warning("no worker has started yet; does the cluster have %s?", self._needs())
                if self._lease.is_lost:
                    raise RuntimeError(f"another run has taken {self._plan.manifest.destination}")
        finally:
            for worker in self._workers:
                self._ray.kill(worker.actor)
        progress = self._progress()
        if on_progress is not None:
            on_progress(progress)
        return progress

    def _is_finished(self) -> bool:
        return self._feed.is_empty and not self._again and not any(worker.blocks for worker in self._workers)

    def _needs(self) -> str:
        return f"{self._cpus} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "") + " on one machine"

    def _room(self) -> int:
        """Count the workers that the cluster has room for."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                fits = resources.get("CPU", 0) // self._cpus
                if self._gpus:
                    fits = min(fits, resources.get("GPU", 0) // self._gpus)
                room += int(fits)
        return room

    def _scale(self) -> None:
        """Start the workers that are wanted and missing."""
        room = self._room()
        if not room and not self._workers:
            if self._wanted is None:
                raise RuntimeError(f"the cluster has no room for a worker, which needs {self._needs()}")
            logger.warning("the cluster has no room for a worker, which needs %s", self._needs())
        for _ in range((self._wanted or room) - len(self._workers)):
            actor = self._actor_class.options(
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                max_restarts=0,
                max_task_retries=0,
                runtime_env={"env_vars": MALLOC_ENVIRONMENT},
            ).remote(self._plan, self._cpus, [self._contents])
            self._workers.append(_Worker(actor, actor.open.remote()))

    def _hand_out(self) -> None:
        """Give blocks to the workers that are ready, first to those that have none."""
        ready = [worker for worker in self._workers if worker.starting is None]
        for depth in range(_BLOCKS_EACH):
            for worker in ready:
                if len(worker.blocks) == depth:
                    block = self._again.popleft() if self._again else self._feed.take(len(self._workers))
                    if block is None:
                        return
                    worker.blocks[worker.actor.run.remote(block)] = block

    def _wait(self) -> None:
        """Wait until a worker has finished something, but not for long."""
        awaited = {}
        for worker in self._workers:
            for result in (worker.starting, worker.asked, *worker.blocks):
                if result is not None:
                    awaited[result] = worker
        if not awaited:
            time.sleep(0.05)
            return
        finished, _ = self._ray.wait(list(awaited), num_returns=1, timeout=0.5)
        for result in finished:
            self._receive(awaited[result], result)

    def _receive(self, worker: _Worker, result: Any) -> None:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(result)
        except errors.RayTaskError as e:
            self._raised(worker, result, e.cause)
        except errors.RayError as e:
            self._died(worker, e)
        else:
            if result == worker.starting:
                worker.starting = None
                self._failed_starts = 0
                self._start = self._start or time.monotonic()
                self.about = value if self.about["device"] == "-" else self.about
            elif result == worker.asked:
                worker.asked, worker.counts = None, value
            else:
                del worker.blocks[result]
                self._add(value)

    def _raised(self, worker: _Worker, result: Any, error: Exception) -> None:
        """Handle an exception in a worker: at the start it ends the run, with a block it is tried again."""
        if result == worker.starting:
            if self._start is None:
                raise error
            logger.warning("a worker cannot start and is not replaced: %s", error)
            self._remove(worker)
            if self._wanted is None or not self._workers:
                raise error
            self._wanted -= 1
        elif result in worker.blocks:
            block = worker.blocks.pop(result)
            if isinstance(error, DestinationError):
                raise OSError(str(error)) from error
            if block.attempt >= _FAILED_ATTEMPTS:
                raise error
            logger.warning("a block is tried again: %s", error)
            self._again.append(replace(block, attempt=block.attempt + 1))
        else:
            worker.asked = None

    def _died(self, worker: _Worker, error: Exception) -> None:
        """Take the blocks of a worker that died; only that in progress may be the cause."""
        if worker not in self._workers:
            return
        logger.warning("a worker died: %s", " ".join(str(error).split())[:500])
        blocks = list(worker.blocks.values())
        if blocks:
            self._again += [replace(blocks[0], attempt=blocks[0].attempt + 1), *blocks[1:]]
        if worker.starting is not None:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise RuntimeError(f"workers die while they load the network: {error}") from error
        self._remove(worker)
        self._scale()

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor)

    def _ask(self) -> None:
        """Ask the workers how far they are with their blocks."""
        for worker in self._workers:
            if worker.blocks and worker.asked is None:
                worker.asked = worker.actor.progress.remote()

    def _add(self, counts: Counts) -> None:
        self._total.written += counts.written
        self._total.skipped += counts.skipped
        self._total.failed += counts.failed
        self.errors += counts.errors[: _EXAMPLES - len(self.errors)]

    def _progress(self) -> Progress:
        now = time.monotonic()
        parts = [self._total]
        for worker in self._workers:
            if any(block.number == worker.counts.block for block in worker.blocks.values()):
                parts.append(worker.counts)
        written, failed, skipped = (
            sum(getattr(part, name) for part in parts) for name in ("written", "failed", "skipped")
        )
        self._recent.append((now, written + failed))
        while self._recent[0][0] < now - 30 and len(self._recent) > 2:
            self._recent.popleft()
        (then, before), (_, after) = self._recent[0], self._recent[-1]
        feed = self._feed
        return Progress(
            written,
            skipped + feed.skipped,
            failed,
            feed.total,
            sum(worker.starting is None for worker in self._workers),
            0.0 if self._start is None else now - self._start,
            (after - before) / (now - then) if now > then else 0.0,
        )


def _make_actor_class(ray: Any) -> Any:
    """Make Ray's class of the worker, of which one thread runs blocks, and another tells the progress."""

    class ClusterWorker(PhotoWorker):
        # the group is named here and not at the call, where Ray's client refuses it
        @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
        def progress(self) -> Counts:
            return super().progress()

    return ray.remote(concurrency_groups={"progress": 1})(ClusterWorker)
