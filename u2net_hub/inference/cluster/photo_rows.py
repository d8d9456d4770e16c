"""Turn photos into rows of results: what a worker of a cluster does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engines import Precision
from ...imaging import encode, peek_size
from ..folders import needs_map_only, reason_of, render
from ..pipeline import SaliencyPipeline
from ..plan import Options
from ..result import SaliencyResult
from ..stream import FAILURES, stream_photos
from .manifest import Row, failed_row
from .photo_sources import Item

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..pipeline import Prepared


@dataclass
class LoadedPhoto:
    """A photo whose file is in memory."""

    item: Item
    content: bytes | NDArray[np.generic] | None = None
    """The bytes of the file, or the pixels; None if it could not be read."""
    error: str | None = None
    """The reason why the photo cannot be processed."""
    skipped: bool = False
    """Whether the photo has an output already, which is kept."""
    shard: str | None = None
    seconds: float = 0.0
    """The time that was spent on the photo until now."""


Save = Callable[[Item, memoryview], "bytes | None"]


class PhotoRows:
    """Makes the row of each photo; a photo that fails is a row too, never an exception.

    Args:
        pipeline: The pipeline that makes the saliency maps.
        options: The settings of the outputs.
        threads: The number of threads that decode and encode; None to choose it.
    """

    def __init__(self, pipeline: SaliencyPipeline, options: Options, threads: int | None = None) -> None:
        self.pipeline, self.options, self.threads = pipeline, options, threads
        self._engine = _TimedEngine(pipeline.engine)
        pipeline.engine = self._engine

    def __call__(self, photos: Iterable[LoadedPhoto], save: Save) -> Iterator[Row]:
        """Yield the row of each photo, in order.

        Args:
            photos: The photos.
            save: A function that stores an output. What it returns becomes the picture of the row.
        """
        return stream_photos(
            self.pipeline,
            photos,
            self._read,
            lambda photo, result: self._write(photo, result, save),
            cost=_pixels,
            threads=self.threads,
        )

    def _read(self, photo: LoadedPhoto) -> Prepared | Row:
        start = time.perf_counter()
        item = photo.item
        error = item.error or photo.error
        if photo.skipped and error is None:
            row = failed_row(item.key, "", output=item.target, shard=photo.shard)
            return Row(**{**row, "status": "skipped", "error": None})
        try:
            if error is None and photo.content is not None:
                prepared = self.pipeline.prepare(
                    photo.content, name=item.key, map_only=needs_map_only(self.options)
                )
                photo.content = None  # the pixels take its place
                photo.seconds += time.perf_counter() - start
                return prepared
        except FAILURES as e:
            error = reason_of(e, item.key)
        return failed_row(item.key, error or f"{item.key} holds no picture", shard=photo.shard)

    def _write(self, photo: LoadedPhoto, result: SaliencyResult, save: Save) -> Row:
        start = time.perf_counter()
        item, options = photo.item, self.options
        try:
            picture = save(item, encode(render(result, options), options.format))
            box = result.bbox(edges=options.edges, cleanup=options.cleanup)
        except FAILURES as e:
            return failed_row(item.key, reason_of(e, item.key), shard=photo.shard)
        height, width = result.size
        return Row(
            path=item.key,
            status="written",
            error=None,
            height=height,
            width=width,
            confidence=result.confidence,
            found=result.found,
            box=None if box is None else list(box),
            output=item.target,
            seconds=photo.seconds + self._engine.seconds_per_photo + time.perf_counter() - start,
            weights_sha256=self.pipeline.weights_sha256,
            shard=photo.shard,
            picture=picture,
        )


def _pixels(photo: LoadedPhoto) -> int:
    if not isinstance(photo.content, bytes):
        return 0 if photo.content is None else int(np.prod(photo.content.shape[:2]))
    height, width = peek_size(photo.content) or (0, 0)
    return height * width


class _TimedEngine:
    """An engine that measures the time of each photo, as the mean of the last batch."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.config, self.name, self.device = engine.config, engine.name, engine.device
        self.precision: Precision = engine.precision
        self.seconds_per_photo = 0.0

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]:
        start = time.perf_counter()
        maps: tuple[NDArray[np.float32], ...] = self._engine(batch, side_outputs=side_outputs)
        self.seconds_per_photo = (time.perf_counter() - start) / len(batch)
        return maps


def limit_threads(cores: int) -> None:
    """Let the engines of this process use this number of cores; to be called before one is opened."""
    os.environ["OMP_NUM_THREADS"] = str(cores)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(cores)
