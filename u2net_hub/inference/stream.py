"""Read photos, run the network and write results at the same time, on a few photos at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..ordered import map_ordered
from .pipeline import Prepared
from .result import SaliencyResult

if TYPE_CHECKING:
    from .pipeline import SaliencyPipeline

Job = TypeVar("Job")
Report = TypeVar("Report")

# The exceptions of one photo that do not stop the others
FAILURES = (ValueError, OSError, ImportError, MemoryError)

# The number of pixels, for each thread, of the photos that are in memory: one large photo. A pixel takes 4
# bytes, and 5 more in a cutout. With a limit only on the number of photos, 40 photos of 12 megapixels took 2
# GB.
_PIXELS_PER_THREAD = 12_500_000


def stream_photos(
    pipeline: SaliencyPipeline,
    jobs: Iterable[Job],
    read: Callable[[Job], Prepared | Report],
    write: Callable[[Job, SaliencyResult], Report],
    *,
    cost: Callable[[Job], int],
    threads: int | None = None,
) -> Generator[Report]:
    """Read, infer and write at the same time, and yield the reports in the order of the jobs.

    One pool reads and writes. If files take longer than the network, the pool keeps the machine busy; if the
    network takes longer, the pool mostly waits and leaves the cores to the network. If this iterator is
    closed early, the files being written are finished, and the rest is dropped.

    Args:
        pipeline: The pipeline that makes the saliency maps.
        jobs: One job for each photo.
        read: A function that prepares the photo of a job, or returns the report of a failure. A thread of
            the pool calls it, as it calls `write`.
        write: A function that writes the result of a job.
        cost: A function that returns the number of pixels of a job's photo, before the photo is read; 0 if
            unknown.
        threads: The number of threads that read and write. By default one for each core, but at most 4.
    """
    threads = threads or min(4, os.cpu_count() or 1)
    pixels = threads * _PIXELS_PER_THREAD
    pool = ThreadPoolExecutor(threads, "u2net-files")
    try:
        prepared = map_ordered(
            pool,
            partial(_with_job, read),
            jobs,
            ahead=max(pipeline.batch_size, threads),
            cost=cost,
            budget=pixels,
        )
        yield from map_ordered(
            pool,
            partial(_finish, write),
            _infer(pipeline, prepared, pixels),
            ahead=max(pipeline.batch_size, threads + 1),
            cost=lambda each: _area(each[1]),
            budget=pixels,
        )
    finally:
        # after Ctrl-C, the files being written are finished, and the rest is dropped
        pool.shutdown(cancel_futures=True)


def _with_job(read: Callable[[Job], Prepared | Report], job: Job) -> tuple[Job, Prepared | Report]:
    return job, read(job)


def _finish(
    write: Callable[[Job, SaliencyResult], Report], job_and_result: tuple[Job, SaliencyResult | Report]
) -> Report:
    job, result = job_and_result
    return write(job, result) if isinstance(result, SaliencyResult) else result


def _area(each: object) -> int:
    """Count the pixels of a photo that was read; 0 for the report of a failed one."""
    if not isinstance(each, Prepared | SaliencyResult):
        return 0
    height, width = each.photo.size
    return height * width


def _infer(
    pipeline: SaliencyPipeline, prepared: Iterator[tuple[Job, Prepared | Report]], pixels: int
) -> Iterator[tuple[Job, SaliencyResult | Report]]:
    """Run the network on batches of photos; reports of photos that failed keep their place in the order."""
    some: deque[tuple[Job, Prepared | Report]] = deque()
    total = 0
    for job_and_photo in prepared:
        some.append(job_and_photo)
        total += _area(job_and_photo[1])
        if len(some) == pipeline.batch_size or total >= pixels:
            del job_and_photo
            yield from _infer_batch(pipeline, some)
            total = 0
    yield from _infer_batch(pipeline, some)


def _infer_batch(
    pipeline: SaliencyPipeline, some: deque[tuple[Job, Prepared | Report]]
) -> Iterator[tuple[Job, SaliencyResult | Report]]:
    results = pipeline.run([each for _, each in some if isinstance(each, Prepared)])
    while some:
        job, each = some.popleft()
        yield job, next(results) if isinstance(each, Prepared) else each
