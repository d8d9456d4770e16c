"""Export networks as files for other runtimes, which are compared with torch before they are written."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from ..atomic import write_files
from ..checkpoints import fold
from ..hub import Source, load_network, resolve
from .graph_files import import_runtime
from .onnx_builder import OPSET, SMALLEST, WeightType, build_graph
from .open import open_engine
from .openvino_engine import openvino_core
from .phones import PHONE_SUFFIXES, PhoneFormat, check_phone_request, write_phone_file
from .photo_check import check_photo_graphs
from .photo_graph import InputType, MinMax, Part, build_photo_graph, check_expressible
from .precision import Precision, float32_state, sensitive_convolutions
from .scenes import make_scenes

if TYPE_CHECKING:
    from ..model import U2Net


logger = logging.getLogger(__name__)


ExportFormat: TypeAlias = Literal["onnx", "openvino"] | PhoneFormat
_SUFFIXES: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": PHONE_SUFFIXES["litert"],
    "coreml": PHONE_SUFFIXES["coreml"],
}

TOLERANCE = 1e-3
"""The largest difference allowed in any pixel of a map in [0, 1].

Another order of float32 operations causes at most a tenth of it.
"""
MEAN_LIMIT = 0.004
"""The largest mean difference allowed with smaller weights: one level of 256."""
_ODD_SIZE = (SMALLEST + 14, SMALLEST + 60)


def export(
    source: U2Net | Source | str | Path,
    out: str | Path,
    *,
    format: ExportFormat | None = None,
    side_outputs: bool = False,
    precision: Precision = "exact",
    data: str | Path | None = None,
    part: Part = "network",
    input_type: InputType | None = None,
    minmax: MinMax | None = None,
    weights: WeightType | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network as a file that runs without this library and without torch.

    The file's input is called "input": float32 (batch, channels, height, width) as `imaging.preprocess` makes
    it, with any batch size and sides from 33 px. Its outputs are called "saliency" and, on request, "side1" …
    "side6": float32 (batch, out, height, width) after the sigmoid or softmax. Its metadata holds the names of
    the outputs, the preprocessing, the config and the smallest size. The file is written only if its maps
    differ from torch's by at most 1e-3, at two sizes and two batch sizes.

    An ONNX file can also hold the steps before and after the network. With `part="whole"` it takes a photo,
    "image" (1, channels, H, W) from 0 to 255, and gives its map, "saliency" (1, out, H, W), as
    `SaliencyPipeline` makes it. "preprocessing" and "postprocessing" are these steps as files of their own,
    for a program that runs the network elsewhere, e.g. on a GPU: the first turns "image" into "input", the
    second turns "map" and "size", int64 [H, W], into "saliency".

    Files for phones, LiteRT and Core ML, have one size, that of the config, and a batch of one. Their input
    is called "image" and holds the pixels of a resized photo, from 0 to 255; the scaling is inside. They are
    compared on two pictures. In LiteRT, "image" is uint8 (1, height, width, channels) and the outputs are
    float32 (1, height, width, out); in Core ML they are a picture and float32 (1, out, height, width).

    Args:
        source: A U2Net, or what `U2Net.from_pretrained` takes.
        out: The file to write: .onnx; .xml, which gets a .bin file beside it; .tflite; or .mlpackage, which
            is a folder.
        format: "onnx", "openvino", "litert" or "coreml". None takes the format of the suffix of `out`.
        side_outputs: Whether the file also has the six side outputs.
        precision: "exact" writes float32, which OpenVINO can also run as "fast". "int8" is for OpenVINO and
            is calibrated on photos; the difference of its maps from torch's is logged and has no limit. For
            LiteRT it has int8 weights, and the maps of photos may differ by 0.004 on average.
        data: For precision "int8", a folder of photos or a data set that is like the photos of later use.
        part: What an ONNX file holds: "network", "whole", "preprocessing" or "postprocessing".
        input_type: The type of the photos, "uint8" (the default) or "float32".
        minmax: Replaces the config's setting in the postprocessing.
        weights: The type in which an ONNX file (by default "float32") or a file for phones ("float16") stores
            the weights. In ONNX, "float16" and "int8" make the download smaller, and the network calculates
            in float32; its maps may differ by 0.004 on average. Core ML also calculates in float16.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: The file exists.
        ValueError: Suffix, format and precision do not go together, the source is unknown, or the file's
            maps differ from the network's.
        ImportError: A package that the format needs is not installed.
    """
    out = Path(out)
    format = _check_request(out, format, precision, data)
    for_phones = format in PHONE_SUFFIXES
    stored: WeightType = "float32" if for_phones else weights or "float32"
    _check_part(format, part, input_type, minmax, stored, side_outputs)
    if for_phones:
        stored = check_phone_request(out, weights, precision, data)
    names = [out.name, out.with_suffix(".bin").name] if format == "openvino" else [out.name]
    for name in names:
        if not overwrite and out.with_name(name).exists():
            raise FileExistsError(f"{out.with_name(name)} is there; choose another name or overwrite it")
    network, sha256 = _load(source)
    if for_phones:
        write_phone_file(
            network,
            out,
            weights=stored,
            side_outputs=side_outputs,
            data=data,
            weights_sha256=sha256,
            overwrite=overwrite,
        )
        return out
    if part != "network":
        check_expressible(network.config)
    import_runtime("onnxruntime" if format == "onnx" else "openvino", format)
    with tempfile.TemporaryDirectory(prefix="u2net-export-") as folder:
        made = Path(folder, out.name)
        if format == "onnx":
            graph = make_onnx(
                network,
                part,
                side_outputs=side_outputs,
                input_type=input_type or "uint8",
                minmax=minmax,
                weights=stored,
            )
            made.write_bytes(graph)
        else:
            graph = build_network(network, side_outputs=side_outputs)
            _write_openvino(network, graph, made, precision, data)
            check_exported(network, made, precision, side_outputs=side_outputs)
        out.parent.mkdir(parents=True, exist_ok=True)
        # the graph comes last, because readers look for it
        write_files(out.parent, {name: made.with_name(name).read_bytes() for name in reversed(names)})
    return out


def build_network(network: U2Net, *, side_outputs: bool = False, weights: WeightType = "float32") -> bytes:
    """Build the ONNX file of a network, without checking it."""
    convs = fold(network.config, float32_state(network))
    said = {"float32": json.dumps(sensitive_convolutions(convs)), "opset": str(OPSET)}
    built: bytes = build_graph(
        network.config, convs, side_outputs=side_outputs, weights=weights, metadata=said
    ).SerializeToString()
    return built


def make_onnx(
    network: U2Net,
    part: Part = "network",
    *,
    side_outputs: bool = False,
    input_type: InputType = "uint8",
    minmax: MinMax | None = None,
    weights: WeightType = "float32",
) -> bytes:
    """Build an ONNX file, and check it; arguments and errors as for `export`."""
    config = network.config if minmax is None else network.config.replace(minmax=minmax)
    alone: bytes | None = None
    if part in ("network", "whole"):
        alone = build_network(network, side_outputs=side_outputs, weights=weights)
        with tempfile.TemporaryDirectory(prefix="u2net-export-") as folder:
            path = Path(folder, "network.onnx")
            path.write_bytes(alone)
            check_exported(network, path, side_outputs=side_outputs, weights=weights)
        if part == "network":
            return alone
    convs = fold(network.config, float32_state(network))
    parts: tuple[Part, ...] = ("preprocessing", "postprocessing", "whole") if part == "whole" else (part,)
    graphs: dict[Part, bytes] = {
        each: build_photo_graph(
            config, convs, each, input_type=input_type, weights=weights, metadata={"opset": str(OPSET)}
        ).SerializeToString()
        for each in parts
    }
    check_photo_graphs(config, graphs, alone, input_type)
    return graphs[part]


def check_exported(
    network: U2Net,
    path: Path,
    precision: Precision = "exact",
    *,
    side_outputs: bool = False,
    weights: WeightType = "float32",
) -> float:
    """Compare the maps of a file with those of the network in torch; returns the largest difference.

    Args:
        network: The network that was exported.
        path: The exported file.
        precision: The precision of the file; for "int8" any difference except NaN is accepted.
        side_outputs: Whether the file has side outputs.
        weights: The type of the stored weights. Except for "float32", the mean difference of each map counts.

    Raises:
        ValueError: The maps differ by more than 1e-3 in some pixel, or those of smaller weights by more than
            0.004 on average.
    """
    engine = open_engine(
        path, engine="onnxruntime" if path.suffix == ".onnx" else "openvino", precision=precision
    )
    reference = open_engine(network, engine="torch", device="cpu")
    height, width = (max(side, SMALLEST) for side in network.config.input_size)
    rng = np.random.default_rng(0)
    largest, total = 0.0, []
    for size in ((height, width), _ODD_SIZE):
        for n in (1, 3):
            x = make_scenes(rng, (n, network.config.in_channels, *size))
            found = engine(x, side_outputs=side_outputs)
            expected = reference(x, side_outputs=side_outputs)
            for y, wanted in zip(found, expected, strict=True):
                if y.shape != wanted.shape:
                    raise ValueError(f"{path.name}: a map of shape {y.shape}, expected {wanted.shape}")
                difference = np.abs(y - wanted)
                largest = float(np.maximum(largest, difference.max()))  # keeps NaN
                total.append(float(difference.mean()))
            if weights == "float32" and not largest <= (1 if precision == "int8" else TOLERANCE):  # NaN too
                raise ValueError(
                    f"the exported network's maps differ from those of torch by up to {largest:.2g} at "
                    f"{size[0]} × {size[1]} px, batch {n}, expected at most {TOLERANCE}; nothing was "
                    "written. Please report it with the versions of onnxruntime and openvino"
                )
    mean = float(np.mean(total))
    if weights != "float32" and not mean <= MEAN_LIMIT:
        raise ValueError(
            f"with {weights} weights the maps differ by {mean:.2g} on average, expected at most "
            f"{MEAN_LIMIT}; nothing was written. Choose weights of 'float32'"
            + (" or 'float16'" * (weights == "int8"))
        )
    logger.info("maps differ from torch's by %.2g on average, %.2g at most", mean, largest)
    return largest


def _check_part(
    format: ExportFormat,
    part: Part,
    input_type: InputType | None,
    minmax: MinMax | None,
    weights: WeightType,
    side_outputs: bool,
) -> None:
    """Raise ValueError if the options on the parts of a file do not go together."""
    for name, value, kind in (("part", part, Part), ("weights", weights, WeightType)):
        if value not in get_args(kind):
            raise ValueError(f"unknown {name} {value!r}, expected one of {list(get_args(kind))}")
    if input_type not in (None, *get_args(InputType)):
        raise ValueError(f"unknown input_type {input_type!r}, expected one of {list(get_args(InputType))}")
    if minmax not in (None, *get_args(MinMax)):
        raise ValueError(f"unknown minmax {minmax!r}, expected one of {list(get_args(MinMax))}")
    if format != "onnx" and (part != "network" or weights != "float32"):
        raise ValueError(
            f"preprocessing, postprocessing and smaller weights are for ONNX, and the format is {format!r}"
        )
    has_photo, has_map = part in ("whole", "preprocessing"), part in ("whole", "postprocessing")
    for given, fits, what in (
        (side_outputs, part == "network", "side outputs are"),
        (input_type is not None, has_photo, "input_type is"),
        (minmax is not None, has_map, "minmax is"),
        (weights != "float32", part in ("network", "whole"), "weights are"),
    ):
        if given and not fits:
            raise ValueError(f"{what} not in a file of part {part!r}; leave the option out")


def _check_request(
    out: Path, format: ExportFormat | None, precision: Precision, data: str | Path | None
) -> ExportFormat:
    """Return the format of a requested export; raise as `export` does if the request is invalid."""
    if format is not None and format not in _SUFFIXES:
        raise ValueError(f"unknown format {format!r}, expected one of {list(_SUFFIXES)}")
    by_suffix = {suffix: name for name, suffix in _SUFFIXES.items()}
    if out.suffix not in by_suffix or format not in (None, by_suffix[out.suffix]):
        wanted = _SUFFIXES[format] if format else " or ".join(by_suffix)
        raise ValueError(f"cannot write {format or 'a network'} to {out.name}, expected the suffix {wanted}")
    if precision not in ("exact", "int8"):
        raise ValueError(
            f"precision {precision!r} is chosen when a file is run, expected 'exact' or 'int8' for an export"
        )
    found = by_suffix[out.suffix]
    if precision == "int8" and (found == "onnx" or (found == "openvino" and data is None)):
        raise ValueError(
            "int8 is for OpenVINO and LiteRT and needs photos to calibrate on: "
            "u2net export --format openvino --precision int8 --data FOLDER --out FILE.xml"
        )
    if data is not None and precision != "int8":
        raise ValueError(f"data is for precision 'int8', and the precision is {precision!r}")
    return found


def _load(source: U2Net | Source | str | Path) -> tuple[U2Net, str | None]:
    """Load a network; also returns the SHA-256 of the file of its weights, if they come from one."""
    from ..model import U2Net

    if isinstance(source, U2Net):
        return source, None
    source = source if isinstance(source, Source) else resolve(source)
    return load_network(U2Net, source), source.sha256


def _write_openvino(
    network: U2Net, graph: bytes, path: Path, precision: Precision, data: str | Path | None
) -> None:
    ov = import_runtime("openvino", "openvino")
    model = openvino_core().read_model(graph)
    if precision == "int8":
        from .quantisation import quantise

        assert data is not None
        model = quantise(model, network.config, data)
    ov.serialize(model, path)
