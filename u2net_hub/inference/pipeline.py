"""From a photo to its saliency map, mask and cutout, in one call: NumPy, Pillow and an engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeGuard, cast, overload

import numpy as np
from PIL import Image

from .. import imaging as im
from ..engines import EngineName, Precision, open_engine
from ..hub import Source, resolve
from .result import SaliencyResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config import U2NetConfig
    from ..imaging import ImageSource, Photo
    from ..model import U2Net


MinMax: TypeAlias = Literal["auto", "always", "never"]


# How many times the network's size a JPEG that is decoded smaller still has
_DRAFT = 2


class Prepared(NamedTuple):
    """A photo on its way to the network."""

    photo: Photo
    x: NDArray[np.float32]
    """What the network sees: (C, h, w)."""


class SaliencyPipeline:
    """Photos in, `SaliencyResult` out.

    Args:
        model: a U2Net, which is copied, or a source of weights as `U2Net.from_pretrained` takes it.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is.
        engine: "torch", "onnxruntime", "openvino"; "auto" takes the fastest installed, see `open_engine`.
        precision: "exact", float32; "fast", 16 bit where the hardware has it; "int8", see `open_engine`.
        batch_size: photos that the network sees at once, when it is given many.
        compile: have torch compile the network, see `open_engine`.
        minmax: in the place of the config's, see `image.postprocess`.

    Raises:
        ValueError: an argument is not one of those, or the network does not take photos.
        RuntimeError: the device is not there.
    """

    def __init__(
        self,
        model: U2Net | Source | str | Path,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "exact",
        batch_size: int = 8,
        compile: bool = False,
        minmax: MinMax | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}, expected a whole number from 1")
        if isinstance(model, str | Path):
            model = resolve(model)
        self._source = model if isinstance(model, Source) else None
        self.engine = open_engine(model, engine=engine, device=device, precision=precision, compile=compile)
        config = self.engine.config
        self.config: U2NetConfig = config if minmax is None else config.replace(minmax=minmax)
        """What the photos are prepared with and the maps read with."""
        self.batch_size = batch_size
        im.check_channels(self.config)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "exact",
        batch_size: int = 8,
        compile: bool = False,
        minmax: MinMax | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> SaliencyPipeline:
        """The pipeline of a source of weights; arguments as for the class and for `U2Net.from_pretrained`."""
        found = resolve(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
        )
        return cls(
            found,
            device=device,
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            compile=compile,
            minmax=minmax,
        )

    @property
    def device(self) -> str:
        """Where the network runs, e.g. "cpu" or "cuda"."""
        return self.engine.device

    @property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the file of weights, in hexadecimal; None for a network that was given in memory."""
        return None if self._source is None else self._source.sha256

    @overload
    def __call__(self, images: ImageSource, *, side_outputs: bool = False) -> SaliencyResult: ...  # type: ignore[overload-overlap]  # a str is an Iterable too, and means a path

    @overload
    def __call__(
        self, images: Iterable[ImageSource], *, side_outputs: bool = False
    ) -> Iterator[SaliencyResult]: ...

    def __call__(
        self, images: ImageSource | Iterable[ImageSource], *, side_outputs: bool = False
    ) -> SaliencyResult | Iterator[SaliencyResult]:
        """One photo -> its result; any iterable of photos -> an iterator over their results, in order.

        The iterator works `batch_size` photos ahead and keeps no more, however long the stream.

        Args:
            images: what `image.load` takes, or an iterable of them.
            side_outputs: keep the six side outputs too.

        Raises:
            ValueError: a photo cannot be read; the message names it. The results before it are given first.
            OSError: a path cannot be opened.
        """
        if not _is_one(images):
            return self._stream(cast("Iterable[ImageSource]", images), side_outputs)
        return next(self.run([self.prepare(images)], side_outputs=side_outputs))

    def _stream(self, images: Iterable[ImageSource], side_outputs: bool) -> Iterator[SaliencyResult]:
        batch: list[Prepared] = []
        for i, image in enumerate(images):
            try:
                batch.append(self.prepare(image, name=f"image {i}"))
            except (ValueError, OSError, ImportError):
                yield from self.run(batch, side_outputs=side_outputs)
                raise
            if len(batch) == self.batch_size:
                yield from self.run(batch, side_outputs=side_outputs)
                batch = []
        yield from self.run(batch, side_outputs=side_outputs)

    def prepare(self, image: ImageSource, *, name: str | None = None, map_only: bool = False) -> Prepared:
        """The first third of the way: a photo, decoded, and what the network will see of it.

        `prepare`, `run` and the methods of `SaliencyResult` may each run in a thread of their own.

        Args:
            image: what `image.load` takes.
            name: what to call it in messages, where it has no name of its own.
            map_only: no colours are wanted, so that a large JPEG is decoded smaller, several times faster.
                Its map has the photo's full size and differs by what a resize in two steps makes.
        """
        photo = im.load(image, name=name, enough=_DRAFT * max(self.config.input_size) if map_only else None)
        return Prepared(photo, im.preprocess(photo, self.config))

    def run(self, batch: Sequence[Prepared], *, side_outputs: bool = False) -> Iterator[SaliencyResult]:
        """The network on one batch of prepared photos, whatever their sizes; results in order."""
        if batch:
            maps = self.engine(np.stack([x for _, x in batch]), side_outputs=side_outputs)
            for i, (photo, _) in enumerate(batch):
                # copies, so that one result does not hold the maps of its whole batch
                yield SaliencyResult(photo, self.config, *[each[i].copy() for each in maps])


def _is_one(images: ImageSource | Iterable[ImageSource]) -> TypeGuard[ImageSource]:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    file_like = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(
        images, "read"
    )
    return file_like or isinstance(images, Image.Image | im.Photo) or not isinstance(images, Iterable)
