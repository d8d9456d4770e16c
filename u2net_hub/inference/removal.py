"""Remove backgrounds with the functions of rembg's Python API."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..imaging import Cleanup, encode, foreground_colours
from .pipeline import SaliencyPipeline
from .result import CUTOUT_EDGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines import EngineName, Precision
    from ..imaging import Edges, ImageSource
    from .pipeline import MinMax
    from .result import SaliencyResult

_DEFAULT_MODEL = "u2netp"

# rembg has no default provider; these are the names that ONNX Runtime gives to what we have
_DEVICE_OF_PROVIDER = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "ROCMExecutionProvider": "cuda",  # PyTorch calls AMD's GPUs cuda too
    "CoreMLExecutionProvider": "mps",
}


class Session(SaliencyPipeline):
    """A pipeline with what programs use of a session of rembg: `predict`, `name` and `model_name`.

    It is a pipeline, so that a program which comes from rembg can call it on photos and folders as well,
    without loading the weights a second time.
    """

    model_name: str = ""
    """The source of the weights, as it was given."""

    def name(self) -> str:
        """Return the source of the weights, as it was given."""
        return self.model_name

    def predict(self, img: ImageSource, *args: object, **kwargs: object) -> list[Image.Image]:
        """Make the soft masks of a photo: mode L, at the photo's size after its EXIF orientation was applied.

        Args:
            img: A PIL image, or whatever else `SaliencyPipeline` takes.
            args: Ignored, as by rembg.
            kwargs: Ignored, as by rembg.

        Returns:
            One mask; for a network with several classes one for each class but the background.
        """
        result = self(img)
        if result.labels is None:
            return [result.mask(None)]
        return [result.for_class(i).mask(None) for i in range(1, self.config.out_channels)]


def new_session(
    model_name: str | Path = _DEFAULT_MODEL,
    *args: object,
    sess_opts: None = None,
    providers: Sequence[str | tuple[str, object]] | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "exact",
    minmax: MinMax | None = None,
    allow_pickle: bool = False,
    **kwargs: object,
) -> Session:
    """Load weights once, for many calls of `remove`. Several threads may use one session.

    Args:
        model_name: Any source of weights, as `U2Net.from_pretrained` takes it: a bundled name, a path, or a
            model on the Hub.
        args: Ignored, as by rembg.
        sess_opts: rembg's options of ONNX Runtime; only None is accepted, see `engine` and `precision`.
        providers: rembg's list of ONNX Runtime's providers, which stands for a device or an engine. With
            several, the device is "auto" unless the CPU comes first.
        device: See `SaliencyPipeline`.
        engine: See `SaliencyPipeline`.
        precision: See `SaliencyPipeline`.
        minmax: See `SaliencyPipeline`; `"always"` does as rembg does.
        allow_pickle: Whether to read a pickle, e.g. a .pth file.
        kwargs: Nothing; unknown names are refused.

    Raises:
        FileNotFoundError: There is no such source.
        TypeError: An argument is unknown.
        ValueError: An argument is invalid.
    """
    _refuse_unknown("new_session", kwargs, "sess_opts providers device engine precision minmax allow_pickle")
    if sess_opts is not None:
        raise ValueError("sess_opts is for rembg's ONNX Runtime; choose engine=, device= and precision= here")
    if providers is not None:
        device, engine = _read_providers(providers, device, engine)
    session = Session.from_pretrained(
        model_name,
        device=device,
        engine=engine,
        precision=precision,
        minmax=minmax,
        allow_pickle=allow_pickle,
    )
    assert isinstance(session, Session)
    session.model_name = str(model_name)
    return session


def _read_providers(
    providers: Sequence[str | tuple[str, object]], device: str, engine: EngineName
) -> tuple[str, EngineName]:
    """Turn names of ONNX Runtime's providers into a device and an engine."""
    names = [each if isinstance(each, str) else each[0] for each in providers]
    known = [*_DEVICE_OF_PROVIDER, "OpenVINOExecutionProvider"]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown provider {name!r}, expected some of {known}; or choose a device=")
    if device != "auto":
        raise ValueError(f"providers and device={device!r} were both given; choose one of the two")
    if names and names[0] == "OpenVINOExecutionProvider":
        return "cpu", "openvino" if engine == "auto" else engine
    devices = list(dict.fromkeys(_DEVICE_OF_PROVIDER.get(name, "cpu") for name in names))
    # rembg takes the first provider that works
    return devices[0] if len(devices) == 1 or devices[:1] == ["cpu"] else "auto", engine


_default: list[Session] = []
_loading = Lock()


def _default_session() -> Session:
    """Return the session for calls without one. It is loaded once, even if several threads ask at once."""
    with _loading:
        if not _default:
            _default.append(new_session())
        return _default[0]


def remove(
    data: bytes | Image.Image | NDArray[np.generic],
    alpha_matting: bool = False,
    alpha_matting_foreground_threshold: int = 240,
    alpha_matting_background_threshold: int = 10,
    alpha_matting_erode_size: int = 10,
    session: SaliencyPipeline | None = None,
    only_mask: bool = False,
    post_process_mask: bool = False,
    decontaminate: bool = False,
    vitmatte: bool = False,
    vitmatte_model: str | None = None,
    bgcolor: tuple[int, int, int, int] | None = None,
    force_return_bytes: bool = False,
    *args: object,
    edges: Edges | None = None,
    cleanup: Cleanup | None = None,
    minmax: MinMax | None = None,
    premultiply: bool = False,
    putalpha: bool = False,
    **kwargs: object,
) -> bytes | Image.Image | NDArray[np.uint8]:
    """Remove the background of a photo, as rembg's function of this name does.

    What this function does otherwise than rembg, and the argument that does as rembg:

    - Colours at the edges are those of the object. rembg multiplies them with the alpha, so that they become
      dark: `premultiply=True`.
    - A photo in which the network finds nothing becomes empty. rembg stretches the map of every photo, so
      that something is always found: `minmax="always"`.
    - Edges follow the photo at full size. rembg enlarges the network's map: `edges="soft"`. It enlarges with
      Lanczos, and this function bilinearly, so that maps can differ by a few of the 256 levels.
    - Without a session the weights are those of "u2netp", which need no download, and they are loaded once.
      rembg loads its weights again in every call: `session=new_session(...)` chooses others.
    - The ICC profile stays. The EXIF orientation is applied, as in rembg.

    Args:
        data: The bytes of a picture file, a PIL image, or an array (H, W, 3) of uint8 in the order RGB.
        alpha_matting: Whether to use our edges for hair and fur, which is `edges="hair"`.
        alpha_matting_foreground_threshold: Ignored: our edges find the uncertain band themselves.
        alpha_matting_background_threshold: Ignored, for the same reason.
        alpha_matting_erode_size: Ignored, for the same reason.
        session: A session or a pipeline; None for one that all such calls share.
        only_mask: Whether to return the alpha channel of the cutout instead: mode L, or uint8 (H, W).
        post_process_mask: Whether to round the outline off and make it hard, see `Cleanup.smooth`.
        decontaminate: Whether to take the background's colours out of soft edges. Others have clean colours
            anyway.
        vitmatte: Only False: ViTMatte is another network. `alpha_matting=True` is for hair.
        vitmatte_model: Ignored.
        bgcolor: A background, as red, green, blue and alpha from 0 to 255. The result is still RGBA.
        force_return_bytes: Whether to return bytes for a PIL image or an array too.
        args: Ignored, as by rembg.
        edges: See `SaliencyResult.cutout`. None: sharp, as `u2net cutout` makes them.
        cleanup: See `SaliencyResult.cutout`.
        minmax: Replaces the setting of the session, see `SaliencyPipeline`.
        premultiply: Whether to multiply the colours with the alpha, as rembg does.
        putalpha: Whether to keep the photo's own colours everywhere, as rembg's argument of this name does:
            another name for `edges="soft"`.
        kwargs: Nothing; unknown names are refused.

    Returns:
        The cutout: the bytes of a PNG file for bytes, else what was given, as RGBA.

    Raises:
        TypeError: An argument is unknown.
        ValueError: The data cannot be read as a picture, or an argument is invalid.
    """
    _refuse_unknown("remove", kwargs, "edges cleanup minmax premultiply putalpha")
    if not isinstance(data, bytes | bytearray | memoryview | Image.Image | np.ndarray):
        raise ValueError(
            f"data is a {type(data).__name__}, expected bytes, a PIL image or an array; "
            "for a file: Path(name).read_bytes()"
        )
    if vitmatte:
        raise ValueError("vitmatte=True needs a network that is not here; alpha_matting=True is for hair")
    background = None if bgcolor is None else _read_rgba(bgcolor)
    chosen = _choose_edges(edges, alpha_matting, putalpha)
    if post_process_mask:
        cleanup = replace(cleanup or Cleanup(), smooth=True)
    result = _result(data, session, minmax)
    if only_mask:
        picture = result.alpha(edges=chosen, cleanup=cleanup)
    else:
        picture = result.cutout(edges=chosen, cleanup=cleanup)
        profile = picture.info
        if decontaminate and not putalpha and chosen == "soft":
            alpha = picture.getchannel("A")
            picture = foreground_colours(result.photo.rgb, alpha)
            picture.putalpha(alpha)
        picture = _finish(picture, background, premultiply)
        picture.info = profile
    if force_return_bytes or not isinstance(data, Image.Image | np.ndarray):
        return bytes(encode(picture, "png"))
    return picture if isinstance(data, Image.Image) else np.array(picture)


def _refuse_unknown(function: str, kwargs: dict[str, object], known: str) -> None:
    if kwargs:
        raise TypeError(
            f"{function}() got the unknown argument {next(iter(kwargs))!r}; beside those of rembg it takes "
            + ", ".join(known.split())
        )


def _choose_edges(edges: Edges | None, alpha_matting: bool, putalpha: bool) -> Edges:
    """Choose the edges, and refuse arguments that ask for different ones."""
    wanted: dict[str, Edges] = {}
    if edges is not None:
        wanted[f"edges={edges!r}"] = edges
    if alpha_matting:
        wanted["alpha_matting=True"] = "hair"
    elif putalpha:  # rembg ignores it with alpha matting
        wanted["putalpha=True"] = "soft"
    if len(set(wanted.values())) > 1:
        raise ValueError(f"{' and '.join(wanted)} ask for different edges; choose one of the two")
    return next(iter(wanted.values()), CUTOUT_EDGES)


def _read_rgba(colour: Sequence[int]) -> tuple[int, int, int, int]:
    try:
        red, green, blue, alpha = bytes(tuple(colour))
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"bgcolor is {colour!r}, expected red, green, blue and alpha from 0 to 255: (255, 255, 255, 255)"
        ) from e
    return red, green, blue, alpha


def _result(
    data: bytes | Image.Image | NDArray[np.generic],
    session: SaliencyPipeline | None,
    minmax: MinMax | None,
) -> SaliencyResult:
    """Run the network on one photo, with the session's setting of min–max or with another one."""
    pipeline = _default_session() if session is None else session
    if not isinstance(pipeline, SaliencyPipeline):
        raise ValueError(
            f"session is a {type(session).__name__}, expected what u2net_hub.new_session returns, "
            "or a SaliencyPipeline"
        )
    if minmax is not None:
        pipeline = copy(pipeline)  # which shares the engine
        pipeline.config = pipeline.config.replace(minmax=minmax)
    return pipeline(data)


def _finish(
    cutout: Image.Image, background: tuple[int, int, int, int] | None, premultiply: bool
) -> Image.Image:
    if premultiply:
        cutout = Image.fromarray(np.array(cutout.convert("RGBa")))
    if background is not None:
        cutout = Image.alpha_composite(Image.new("RGBA", cutout.size, background), cutout)
    return cutout
