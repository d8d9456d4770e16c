"""The models of the demo, which all visitors share, and their answers."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

try:
    import spaces  # on ZeroGPU it replaces CUDA functions, so it is imported before torch and gradio
except ImportError:
    spaces = None

from .. import imaging as im
from ..inference import Batcher, SaliencyPipeline, SaliencyResult
from .guests import GUESTS, check_guest_cost, look_up_guest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config import U2NetConfig
    from ..engines import Engine, EngineName, Precision
    from ..imaging import Photo


SOURCES_VARIABLE = "U2NET_MODELS"

Maps: TypeAlias = "tuple[NDArray[np.float32], ...]"

MAX_PIXELS = 24_000_000
"""Most pixels of a visitor's photo: 6000 × 4000."""
MAX_SIDE = 16_000
"""Longest side of a visitor's photo in pixels."""
PREVIEW = 1280
"""Longest side in pixels of pictures on the page. Downloads have the size of the photo."""
_REMEMBERED = 40
_REMEMBERED_BYTES = 8_000_000
_TIMED = 3
"""Runs at the start from which the median time of a model is taken."""


def gpu_seconds(batch: NDArray[np.float32], side_outputs: bool = False) -> int:
    """Seconds for which a batch asks for the GPU of ZeroGPU: mostly the move of the network, then .1 each."""
    return 4 + math.ceil(0.1 * len(batch))


class SharedEngine:
    """An engine that all visitors share. On ZeroGPU it runs in the process that has the GPU.

    Args:
        engine: The engine that runs the network.
        zero_gpu: Whether the engine runs on ZeroGPU.
    """

    def __init__(self, engine: Engine, *, zero_gpu: bool = False) -> None:
        self.config: U2NetConfig = engine.config
        self.name: str = engine.name
        self.precision: Precision = engine.precision
        self.device: str = "ZeroGPU" if zero_gpu else engine.device
        self.zero_gpu = zero_gpu
        self._seconds: deque[float] = deque(maxlen=9)
        self._engine = engine
        self._timed = spaces.GPU(self._run, duration=gpu_seconds) if zero_gpu else self._run

    def __call__(self, batch: NDArray[np.float32], *, side_outputs: bool = False) -> Maps:
        maps, seconds = self._timed(batch, side_outputs)
        self._seconds.append(seconds / len(batch))
        return maps

    def warm_up(self, runs: int) -> None:
        """Run the network once untimed, because the first call is slow, and then `runs` times."""
        size = self.config.input_size
        for _ in range(1 + runs):
            self(np.zeros((1, self.config.in_channels, *size), np.float32))
        if len(self._seconds) > runs:
            self._seconds.popleft()

    @property
    def seconds(self) -> float | None:
        """The median of the seconds that the network took for a photo; None before its third run."""
        return median(self._seconds) if len(self._seconds) >= _TIMED else None

    def _run(self, batch: NDArray[np.float32], side_outputs: bool) -> tuple[Maps, float]:
        start = time.perf_counter()
        maps = self._engine(batch, side_outputs=side_outputs)
        return maps, time.perf_counter() - start


@dataclass(frozen=True)
class Model:
    """A model in memory."""

    name: str
    pipeline: SaliencyPipeline
    engine: SharedEngine
    parameters: int
    megabytes: float
    """Size of the weights file in 10⁶ bytes."""
    revision: str | None = None
    """The commit, if the model came from the Hub."""
    stage_parameters: tuple[int, ...] = ()
    """The parameters of each stage, in the order of the config's table."""


class Answer(NamedTuple):
    """The answer of a model for one photo."""

    model: Model
    photo: Photo
    maps: Maps
    """The fused map, and the side outputs if they were asked for: each float32 (out, h, w)."""

    def result(self, longest: int | None = None) -> SaliencyResult:
        """Make the result in the size of the photo, or with at most `longest` pixels on its longest side."""
        photo = self.photo if longest is None else shrink(self.photo, longest)
        return SaliencyResult(photo, self.model.pipeline.config, *self.maps)

    def facts(self) -> dict[str, object]:
        """Return the facts that the page and the API give with the pictures."""
        result = self.result()
        height, width = result.size
        seconds = self.model.engine.seconds
        return {
            "model": self.model.name,
            "found": result.found,
            "confidence": round(result.confidence, 4),
            "width": width,
            "height": height,
            "milliseconds": None if seconds is None else round(1000 * seconds, 1),
            "device": self.model.engine.device,
        }


class Models:
    """The models of a demo: those it was started with, and a few that visitors have loaded.

    Args:
        sources: Sources as `U2Net.from_pretrained` takes them. The page begins with the first one.
        device: Device to run on, as for `SaliencyPipeline`.
        engine: Engine as for `SaliencyPipeline`. On ZeroGPU it is always torch.
        precision: Precision as for `SaliencyPipeline`.

    Raises:
        ValueError: There are no sources, two have the same name, or one is not a model.
        OSError: A source cannot be loaded.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "exact",
    ) -> None:
        self._device, self._engine, self._precision = device, engine, precision
        self._guests: OrderedDict[str, Model] = OrderedDict()
        self._remembered: OrderedDict[tuple[str, bool, str], Maps] = OrderedDict()
        self._remembering, self._inviting = Lock(), Lock()
        # visitors take turns, so that no other request comes while one waits
        self._batches = Batcher(window=0)
        self._own: dict[str, Model] = {}
        for source in sources:
            name = _display_name(source)
            if name in self._own:
                raise ValueError(f"two models are called {name!r}; give folders or files of different names")
            self._own[name] = self._load(name, source)
        if not self._own:
            raise ValueError("got no models; name at least one source in U2NET_MODELS, or none for u2netp")

    @property
    def names(self) -> list[str]:
        """The models that the demo was started with, in order."""
        return list(self._own)

    def get(self, name: str) -> Model:
        """Get a model that is in memory.

        Raises:
            ValueError: The model is not in memory, or no longer.
        """
        found = self._own.get(name) or self._guests.get(name)
        if found is None:
            raise ValueError(f"model {name!r} is not in memory, expected one of {self.names}; load it first")
        return found

    def run(self, name: str, photo: Photo, *, side_outputs: bool = False) -> Answer:
        """Run a model on a photo. The answers for the last photos are remembered."""
        model = self.get(name)
        return Answer(model, photo, self._maps(model, [model.pipeline.prepare(photo).x], side_outputs)[0])

    def run_ahead(self, name: str, photos: Iterable[Photo]) -> None:
        """Run a model on a batch of photos at once, so that `run` remembers the answers."""
        model = self.get(name)
        self._maps(model, [model.pipeline.prepare(photo).x for photo in photos], False)

    def _maps(self, model: Model, xs: Sequence[NDArray[np.float32]], side_outputs: bool) -> list[Maps]:
        keys = [(model.name, side_outputs, hashlib.sha256(x.tobytes()).hexdigest()) for x in xs]
        with self._remembering:
            found = {key: self._remembered[key] for key in keys if key in self._remembered}
        missing = {key: x for key, x in zip(keys, xs, strict=True) if key not in found}
        if missing:
            # on ZeroGPU, each visitor has seconds of their own
            batch = self._batches.submit(
                model.engine,
                np.stack(list(missing.values())),
                side_outputs=side_outputs,
                alone=model.engine.zero_gpu,
            ).result()
            found |= {key: tuple(each[i] for each in batch) for i, key in enumerate(missing)}
        with self._remembering:
            for key in keys:
                if sum(each.nbytes for each in found[key]) <= _REMEMBERED_BYTES:
                    self._remembered[key] = found[key]
                    self._remembered.move_to_end(key)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return [found[key] for key in keys]

    def invite(self, source: str) -> Model:
        """Load a public model from the Hub for a visitor. The model that was used least recently is dropped.

        Only `config.json` and `model.safetensors` of one commit are downloaded, and deleted after loading.
        Local paths and the token of this machine's owner are never used.

        Args:
            source: Name on the Hub, "org/name" or "org/name@revision".

        Raises:
            ValueError: The name is not one on the Hub, or the model is too large.
            OSError: The model cannot be downloaded, or is not one of this library.
        """
        with self._inviting:
            name, megabytes = look_up_guest(source)
            guest = self._guests.pop(name, None)
            if guest is None:
                with tempfile.TemporaryDirectory(prefix="u2net-guest-") as cache:
                    guest = self._load(name, name, megabytes=megabytes, cache_dir=cache)
                while len(self._guests) >= GUESTS:
                    self._forget(self._guests.popitem(last=False)[0])
            self._guests[name] = guest
            return guest

    def _forget(self, name: str) -> None:
        with self._remembering:
            for key in [key for key in self._remembered if key[0] == name]:
                del self._remembered[key]

    def _load(
        self, name: str, source: str, *, megabytes: float | None = None, cache_dir: str | None = None
    ) -> Model:
        from ..model import U2Net

        guest = cache_dir is not None
        network = U2Net.from_pretrained(source, token=False if guest else None, cache_dir=cache_dir)
        if guest:
            check_guest_cost(network)
        zero_gpu = spaces is not None and spaces.config.Config.zero_gpu and not guest
        # ZeroGPU knows only models that are loaded at the start, so those of visitors run on its CPU
        at_hand = "cpu" if guest and spaces is not None and spaces.config.Config.zero_gpu else self._device
        chosen: EngineName = "torch" if zero_gpu else self._engine
        pipeline = SaliencyPipeline(network, device=at_hand, engine=chosen, precision=self._precision)
        engine = SharedEngine(pipeline.engine, zero_gpu=zero_gpu)
        pipeline.engine = engine
        loaded = network.loaded_from
        if megabytes is None:
            megabytes = 0.0 if loaded is None else loaded.weights_path.stat().st_size / 1e6
        if not zero_gpu:  # it has no GPU at the start
            engine.warm_up(0 if guest else _TIMED)
        return Model(
            name,
            pipeline,
            engine,
            sum(p.numel() for p in network.parameters()),
            megabytes,
            None if loaded is None else loaded.revision,
            tuple(
                sum(p.numel() for p in network.get_submodule(stage.name).parameters())
                for stage in network.config.table
            ),
        )


def _display_name(source: str) -> str:
    path = Path(source)
    return source if not path.exists() else path.resolve().name if path.is_dir() else path.stem


def read_photo(path: str | Path, name: str) -> Photo:
    """Read a visitor's photo.

    Args:
        path: The file.
        name: The name of the photo in error messages.

    Raises:
        ValueError: The photo cannot be read, has more than `MAX_PIXELS` pixels, or a side is longer than
            `MAX_SIDE`.
        ImportError: The photo is HEIC, and pillow-heif is not installed.
    """
    check_side(im.peek_size(path), name)
    with open(path, "rb") as file:
        photo = im.load(file, name=name, max_pixels=MAX_PIXELS)
    check_side(photo.size, name)  # the header of HEIC is not read without decoding
    return photo


def check_side(size: tuple[int, int] | None, name: str) -> None:
    """Raise ValueError if the (height, width) of a photo has too long a side."""
    if size is not None and max(size) > MAX_SIDE:
        height, width = size
        raise ValueError(
            f"{name} is too long: {width:,} × {height:,} pixels, expected at most {MAX_SIDE:,} on a side; "
            "crop it first"
        )


def shrink(photo: Photo, longest: int) -> Photo:
    """Shrink a photo to at most `longest` pixels on its longest side."""
    scale = longest / max(photo.size)
    if scale >= 1:
        return photo
    height, width = (max(1, round(scale * side)) for side in photo.size)

    def resized(picture: Image.Image) -> Image.Image:
        return picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)

    alpha = None if photo.alpha is None else resized(photo.alpha)
    return replace(photo, rgb=resized(photo.rgb), alpha=alpha)
