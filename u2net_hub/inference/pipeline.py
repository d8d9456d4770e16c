"""The pipeline from a photo to its saliency map, mask and cutout."""

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


# A JPEG that is decoded at reduced size is still at least this many times as large as the network's input.
_DRAFT = 2


class Prepared(NamedTuple):
    """A photo that is decoded and preprocessed."""

    photo: Photo
    x: NDArray[np.float32]
    """The network's input: float32 (C, h, w)."""


class SaliencyPipeline:
    """Find the salient object in photos: the pipeline takes photos and returns a `SaliencyResult` for each.

    Args:
        model: A U2Net, which is copied, or a source of weights as `U2Net.from_pretrained` takes it.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best device available.
        engine: "torch", "onnxruntime", "openvino", or "auto" for the fastest installed, see `open_engine`.
        precision: "exact" (float32), "fast" (16-bit if the hardware has it) or "int8", see `open_engine`.
        batch_size: The number of photos that the network sees at once when it is given several.
        compile: Whether torch compiles the network, see `open_engine`.
        minmax: Replaces the config's setting, see `imaging.postprocess`.

    Raises:
        ValueError: An argument is invalid, or the network does not take photos.
        RuntimeError: The device is not available.
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
        """The config for preprocessing photos and for reading maps."""
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
        config: U2NetConfig | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        filename: str | None = None,
        subfolder: str | None = None,
        allow_pickle: bool = False,
    ) -> SaliencyPipeline:
        """Open a source of weights; the arguments are those of the class and of `U2Net.from_pretrained`."""
        found = resolve(
            source,
            config=config,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            filename=filename,
            subfolder=subfolder,
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
        """The device that the network runs on, e.g. "cpu" or "cuda"."""
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
        """Return the result of one photo, or an iterator over the results of several photos, in order.

        The iterator reads at most `batch_size` photos ahead, however long the stream is.

        Args:
            images: A photo as `imaging.load` takes it, or an iterable of photos.
            side_outputs: Whether to keep the six side outputs too.

        Raises:
            ValueError: A photo cannot be read; the message names it. The results before it are yielded first.
            OSError: A path cannot be opened.
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

    def prepare(
        self,
        image: ImageSource,
        *,
        name: str | None = None,
        map_only: bool = False,
        max_pixels: int | None = None,
    ) -> Prepared:
        """Decode a photo and preprocess it for the network (step 1 of 3: prepare, run, result).

        `prepare`, `run` and the methods of `SaliencyResult` may each run in a thread of their own.

        Args:
            image: A photo as `imaging.load` takes it.
            name: The name for messages if the photo has no name of its own.
            map_only: Whether only the map is needed, not the colours. A large JPEG is then decoded at reduced
                size, several times faster. The map has full size and differs by the resize in two steps.
            max_pixels: The largest number of pixels; a larger photo is refused before it is decoded.
        """
        enough = _DRAFT * max(self.config.input_size) if map_only else None
        photo = im.load(image, name=name, max_pixels=max_pixels, enough=enough)
        return Prepared(photo, im.preprocess(photo, self.config))

    def run(self, batch: Sequence[Prepared], *, side_outputs: bool = False) -> Iterator[SaliencyResult]:
        """Run the network on one batch of prepared photos (step 2 of 3), and yield the results in order.

        The photos may differ in size.
        """
        if batch:
            maps = self.engine(np.stack([x for _, x in batch]), side_outputs=side_outputs)
            for i, (photo, _) in enumerate(batch):
                # copy, so that one result does not keep the maps of its whole batch in memory
                yield SaliencyResult(photo, self.config, *[each[i].copy() for each in maps])


def _is_one(images: ImageSource | Iterable[ImageSource]) -> TypeGuard[ImageSource]:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    file_like = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(
        images, "read"
    )
    return file_like or isinstance(images, Image.Image | im.Photo) or not isinstance(images, Iterable)
