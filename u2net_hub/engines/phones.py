"""Write the files for phones, LiteRT and Core ML, after their maps were compared with torch's."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic import write_file, write_folder
from ..checkpoints import Folded, fold
from ..config import U2NetConfig
from ..imaging import ImageSource, Photo, check_channels, load, preprocess
from .coreml import import_coremltools, open_coreml, write_coreml
from .litert import METADATA_NAME, Run, open_litert
from .litert_builder import build_litert
from .onnx_builder import output_names
from .phone_graph import WeightType, describe, import_for
from .precision import Precision, float32_state
from .quantisation import LIMIT, choose_photos
from .scenes import make_scenes

if TYPE_CHECKING:
    from ..model import U2Net

logger = logging.getLogger(__name__)

PhoneFormat: TypeAlias = Literal["litert", "coreml"]
PHONE_SUFFIXES: Mapping[str, str] = {"litert": ".tflite", "coreml": ".mlpackage"}

TOLERANCE = 1e-3
"""The largest difference allowed in any pixel from the maps of torch with the same rounded weights."""


def check_phone_request(
    out: Path, weights: str | None, precision: Precision, data: str | Path | None
) -> WeightType:
    """Return the type of the weights of a requested file, whose format belongs to the suffix of `out`.

    Raises:
        ValueError: The format does not have what was requested.
        ImportError: The packages that write the format are not installed.
    """
    format = "litert" if out.suffix == PHONE_SUFFIXES["litert"] else "coreml"
    if precision == "int8" and format == "coreml":
        raise ValueError(
            "Core ML files hold float32 or float16 weights here; leave precision 'int8' out, "
            "or choose format 'litert'"
        )
    if precision == "int8" and data is None:
        raise ValueError(
            "int8 is compared with float32 on photos: "
            "u2net export --format litert --precision int8 --data FOLDER --out FILE.tflite"
        )
    if precision == "int8" and weights not in (None, "int8"):
        raise ValueError(f"precision 'int8' has weights of int8, and not of {weights!r}; leave weights out")
    if weights == "int8" and precision != "int8":
        raise ValueError(
            "int8 weights for phones go with int8 arithmetic, in LiteRT only: "
            "u2net export --format litert --precision int8 --data FOLDER --out FILE.tflite"
        )
    if weights not in (None, *get_args(WeightType)):
        raise ValueError(f"unknown weights {weights!r}, expected one of {list(get_args(WeightType))}")
    if format == "litert":
        import_for("litert", "ai_edge_litert.interpreter")
    else:
        import_coremltools()
    if precision == "int8":
        return "int8"
    return "float32" if weights == "float32" else "float16"


def write_phone_file(
    network: U2Net,
    out: Path,
    *,
    weights: WeightType,
    side_outputs: bool = False,
    data: str | Path | None = None,
    weights_sha256: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a LiteRT file or a Core ML package, if its maps are those of the network.

    Args:
        network: The network.
        out: The file to write, .tflite for LiteRT, or the folder, .mlpackage for Core ML.
        weights: The type of the weights, as `check_phone_request` returns it.
        side_outputs: Whether the file also has the side outputs.
        data: For int8, photos on which the maps are compared with those of float32.
        weights_sha256: The SHA-256 of the weights, for the metadata.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: The network does not take photos, or the maps differ too much; nothing was written.
        FileExistsError: `out` exists and may not be replaced.
    """
    config = network.config
    check_channels(config)
    # a folder without photos is found before the work starts
    photos = [read_pixels(path, config) for path in choose_photos(data)[1]] if data is not None else []
    convs = fold(config, float32_state(network))
    said = describe(config, weights, weights_sha256)
    names = output_names(config) if side_outputs else output_names(config)[:1]
    if out.suffix == PHONE_SUFFIXES["litert"]:
        content, types = build_litert(
            config,
            convs,
            weights=weights,
            side_outputs=side_outputs,
            metadata={METADATA_NAME: json.dumps(said, ensure_ascii=False)},
        )
        run = open_litert(content)
        if weights == "int8":
            compare_int8(network, run, photos, names)
        else:
            compare_maps(network, run, names, halved=_halved(convs, types))
        write_file(out, content, overwrite=overwrite)
        return
    with tempfile.TemporaryDirectory(prefix="u2net-export-") as folder:
        made = Path(folder, out.name)
        types = write_coreml(config, convs, made, weights=weights, side_outputs=side_outputs, metadata=said)
        halved = _halved(convs, types)
        compare_maps(network, open_coreml(made), names, halved=halved, biases=True)
        if weights == "float16":
            compare_maps(network, open_coreml(made, rounded=True), names, limit=None)
        files = (path for path in sorted(made.rglob("*")) if path.is_file())
        contents = {path.relative_to(made).as_posix(): path.read_bytes() for path in files}
        write_folder(out, contents, overwrite=overwrite)


def compare_maps(
    network: U2Net,
    run: Run,
    names: Sequence[str],
    *,
    halved: Mapping[str, Folded] | None = None,
    biases: bool = False,
    limit: float | None = TOLERANCE,
) -> None:
    """Compare the maps of a file with those of torch on two scenes.

    Args:
        network: The network.
        run: Runs the file.
        names: The names of the outputs that the file must have.
        halved: The folded convolutions whose weights the file holds in float16; torch rounds them too.
        biases: Whether the file holds their biases in float16, too.
        limit: The largest difference allowed in any pixel; None allows a mean difference of `LIMIT`.

    Raises:
        ValueError: The maps differ by more, or are others than expected.
    """
    exact = Reference(network)
    rounded = Reference(network, halved, biases=biases)
    largest, means = 0.0, []
    for pixels in _pictures(network.config):
        found = _checked(run(pixels), names, network.config)
        for name, same, wanted in zip(names, rounded(pixels), exact(pixels), strict=False):
            largest = float(np.maximum(largest, np.abs(found[name] - same).max()))  # keeps NaN
            means.append(float(np.abs(found[name] - wanted).mean()))
    mean = float(np.mean(means))
    if limit is not None and not largest <= limit:  # NaN too
        raise ValueError(
            f"the exported network's maps differ from those of torch by up to {largest:.2g}, expected at "
            f"most {limit}; nothing was written. Please report it with the version of the converter"
        )
    if not mean <= LIMIT:
        raise ValueError(
            f"in float16 this network's maps differ by {mean:.2g} on average, expected at most {LIMIT}; "
            "nothing was written. Choose weights of 'float32'"
        )
    logger.info("maps differ from torch's by %.2g on average", mean)


def compare_int8(network: U2Net, run: Run, photos: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> None:
    """Compare the maps of an int8 file with those of torch on photos.

    Raises:
        ValueError: They differ by more than `LIMIT` on average.
    """
    exact = Reference(network)
    means = []
    for pixels in photos:
        found = _checked(run(pixels), names, network.config)[names[0]]
        means.append(float(np.abs(found - exact(pixels)[0]).mean()))
    mean = float(np.mean(means))
    if not mean <= LIMIT:
        raise ValueError(
            f"int8 changes this network's maps of {len(photos)} photos by {mean:.2g} on average, expected at "
            f"most {LIMIT}; nothing was written. Choose weights of 'float16'"
        )
    logger.info("maps of %d photos differ by %.5f on average from those of float32", len(photos), mean)


def _halved(convs: Mapping[str, Folded], types: Mapping[str, WeightType]) -> dict[str, Folded]:
    return {name: conv for name, conv in convs.items() if types[name] == "float16"}


class Reference:
    """The maps of a network in torch: pixels, uint8 (h, w, C) -> all outputs, each (out, h, w).

    Args:
        network: The network.
        halved: The folded convolutions whose weights are rounded to float16. Torch folds batch norm anew;
            where both foldings agree but for the last bits, the given one is rounded, as in the file.
        biases: Whether their biases are rounded, too.
    """

    def __init__(
        self, network: U2Net, halved: Mapping[str, Folded] | None = None, *, biases: bool = False
    ) -> None:
        import torch

        from .torch_engine import TorchEngine

        self.config = network.config
        fused = deepcopy(network).float().fuse()
        with torch.no_grad():
            for name, folded in (halved or {}).items():
                block = fused.get_submodule(name)
                for kind in ("weight", "bias") if biases else ("weight",):
                    tensor = getattr(getattr(block, "conv_s1", block), kind)
                    given = torch.from_numpy(getattr(folded, kind))
                    same = torch.isclose(given, tensor, rtol=1e-4, atol=1e-6 * float(tensor.abs().max()))
                    tensor.copy_(torch.where(same, given, tensor).half().float())
        self.engine = TorchEngine(fused, "cpu")

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        batch = preprocess(_photo(pixels), self.config)[None]
        return tuple(maps[0] for maps in self.engine(batch, side_outputs=True))


def _checked(
    found: dict[str, NDArray[np.float32]], names: Sequence[str], config: U2NetConfig
) -> dict[str, NDArray[np.float32]]:
    """Return the maps of a file; raise ValueError if their names or shapes are wrong."""
    shapes = {name: value.shape for name, value in found.items()}
    expected = dict.fromkeys(names, (config.out_channels, *config.input_size))
    if shapes != expected:
        raise ValueError(
            f"the file gives maps of the shapes {shapes}, expected {expected}; nothing was written"
        )
    return found


def _photo(pixels: NDArray[np.uint8]) -> Photo:
    """Turn pixels, (h, w, 1) or (h, w, 3), into a photo."""
    return Photo(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)))


def _pictures(config: U2NetConfig) -> Iterator[NDArray[np.uint8]]:
    """Make pictures of the input size that show a disc, one of them dark: uint8 (h, w, C)."""
    shape = (2, config.in_channels, *config.input_size)
    for scene, top in zip(make_scenes(np.random.default_rng(0), shape), (255, 140), strict=True):
        low, high = scene.min(), scene.max()
        yield np.rint((scene - low) / (high - low) * top).astype(np.uint8).transpose(1, 2, 0)


def read_pixels(photo: ImageSource, config: U2NetConfig) -> NDArray[np.uint8]:
    """Read a photo and resize it to the input as `imaging.preprocess` does: uint8 (h, w, C)."""
    n = config.in_channels
    raw = config.replace(scale="255", mean=(0.0,) * n, std=(1.0,) * n)
    pixels = np.rint(preprocess(load(photo), raw) * 255).transpose(1, 2, 0)
    return np.asarray(pixels, np.uint8)
