"""From the bytes of a photo to the bytes of its answer: decode, network, encode, each in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..imaging import peek_size
from ..inference import Batcher, SaliencyPipeline, SaliencyResult
from .limits import PixelBudget
from .problems import Problem, shortened

if TYPE_CHECKING:
    from ..inference import Prepared
    from .metrics import Metrics
    from .settings import Settings

T = TypeVar("T")

# The number of pixels, for each thread, of the photos that are in memory: one large photo
_PIXELS_PER_THREAD = 12_500_000
NAME = "the photo"


class Workshop:
    """The models, and the threads that work for all requests.

    Args:
        settings: The settings of the server.
        metrics: The numbers for Prometheus.
        pipelines: Pipelines by their names, instead of those that the settings name.

    Raises:
        ValueError: A source is no model, or two have the same name.
        OSError: A source cannot be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pipelines: dict[str, SaliencyPipeline] | None = None,
    ) -> None:
        self.settings = settings
        self.pipelines = _load(settings) if pipelines is None else dict(pipelines)
        threads = settings.threads or min(4, os.cpu_count() or 1)
        self._coming = 0
        self._batcher = Batcher(
            batch_size=settings.batch_size,
            window=settings.window,
            queue=settings.queue,
            others=lambda: self._coming > 0,
            on_batch=metrics.saw_batch,
        )
        self._pool = ThreadPoolExecutor(threads, "u2net-photos")
        # headers are read in another thread, so that they do not wait for the photos of others
        self._headers = ThreadPoolExecutor(1, "u2net-headers")
        self._pixels = PixelBudget(threads * _PIXELS_PER_THREAD, metrics.pixels.set)

    def warm_up(self) -> None:
        """Run every model once as for a request, and once on a full batch, because first runs are slow."""
        for pipeline in self.pipelines.values():
            prepared = pipeline.prepare(np.zeros((64, 64, 3), np.uint8))
            for n in {1, self.settings.batch_size}:
                for result in pipeline.run([prepared] * n):
                    last = result
            last.cutout(edges=self.settings.edges)

    def model(self, name: str) -> str:
        """Find a loaded model by the name in a request; "" means the first one.

        Raises:
            Problem: No loaded model has this name. Nothing is ever loaded for a request.
        """
        if not name:
            return next(iter(self.pipelines))
        if name not in self.pipelines:
            raise Problem(
                400,
                "unknown_model",
                f"model {shortened(name)} is not loaded here, expected one of {list(self.pipelines)}; "
                "leave it out for the first of them",
            )
        return name

    async def answer(
        self,
        data: bytes,
        model: str,
        render: Callable[[SaliencyResult], T],
        facts: dict[str, object],
        background: bytes | None = None,
    ) -> T:
        """Make the answer for one photo.

        If the caller cancels this, what has not started is dropped, and what runs is finished before the
        place in memory is given to another photo.

        Args:
            data: The bytes of the photo's file.
            model: The name of a loaded model.
            render: A function that makes the answer from the result. A thread calls it.
            facts: What the log says of the request; the photo's size and its batch are added.
            background: Another picture that `render` reads. Its pixels count too.

        Raises:
            Problem: The photo or the background cannot be read or is too large.
        """
        pipeline = self.pipelines[model]
        self._coming += 1
        came = False
        try:
            pixels = await _finished(self._headers.submit(self._count_pixels, data))
            if background is not None:
                pixels += await _finished(
                    self._headers.submit(self._count_pixels, background, "the background")
                )
            async with self._pixels.hold(pixels):
                photo, x = await _finished(self._pool.submit(self._prepare, pipeline, data))
                del data
                facts["height"], facts["width"] = photo.size
                self._coming -= 1
                came = True
                asked = self._batcher.submit(pipeline.engine, x[None])
                maps = await _finished(asked)
                facts["batch"] = asked.batch
                result = SaliencyResult(photo, pipeline.config, *[each[0] for each in maps])
                del photo, x, maps, asked
                return await _finished(self._pool.submit(render, result))
        finally:
            if not came:
                self._coming -= 1

    def _count_pixels(self, data: bytes, name: str = NAME) -> int:
        """Read the number of pixels from a picture's header; some large number if that is not possible."""
        size = peek_size(data)
        if size is None:
            return _PIXELS_PER_THREAD
        self._check(size, name)
        return size[0] * size[1]

    def _check(self, size: tuple[int, int], name: str = NAME) -> None:
        height, width = size
        if max(size) > self.settings.max_side or height * width > self.settings.max_pixels:
            raise Problem(
                413,
                "photo_too_large",
                f"{name} has {width} × {height} pixels, expected at most "
                f"{self.settings.max_pixels:,} in all and {self.settings.max_side:,} on a side; shrink it",
            )

    def _prepare(self, pipeline: SaliencyPipeline, data: bytes) -> Prepared:
        try:
            prepared = pipeline.prepare(data, name=NAME, max_pixels=self.settings.max_pixels)
        except (ValueError, ImportError) as e:
            raise Problem(400, "unreadable_photo", str(e)) from e
        self._check(prepared.photo.size)  # some headers are not read without decoding
        return prepared

    def close(self) -> None:
        """Finish what runs, and end the threads."""
        self._batcher.close()
        self._headers.shutdown()
        self._pool.shutdown()


def _load(settings: Settings) -> dict[str, SaliencyPipeline]:
    pipelines: dict[str, SaliencyPipeline] = {}
    for source in settings.models:
        path = Path(source)
        name = source if not path.exists() else path.resolve().name if path.is_dir() else path.stem
        if name in pipelines:
            raise ValueError(f"two models are called {name!r}; give folders or files of different names")
        pipelines[name] = SaliencyPipeline.from_pretrained(
            source,
            device=settings.device,
            engine=settings.engine,
            precision=settings.precision,
            batch_size=settings.batch_size,
            allow_pickle=settings.allow_pickle,
        )
    return pipelines


async def _finished(future: Future[T]) -> T:
    """Wait for a step. If the caller is cancelled, cancel the step, or wait for its end if it has started."""
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not future.cancel():
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()  # nobody else looks at it
        raise
