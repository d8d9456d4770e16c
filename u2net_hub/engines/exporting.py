"""Export networks as files for other runtimes, which are compared with torch before they are written."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..atomic import write_files
from ..checkpoints import fold
from ..hub import Source, load_network, resolve
from .graph_files import import_runtime
from .onnx_builder import OPSET, SMALLEST, build_graph
from .open import open_engine
from .phones import PHONE_SUFFIXES, PhoneFormat, check_phone_request, write_phone_file
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
_ODD_SIZE = (SMALLEST + 14, SMALLEST + 60)


def export(
    source: U2Net | Source | str | Path,
    out: str | Path,
    *,
    format: ExportFormat | None = None,
    side_outputs: bool = False,
    precision: Precision = "exact",
    data: str | Path | None = None,
    weights: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network as a file that runs without this library and without torch.

    The file's input is called "input": float32 (batch, channels, height, width) as `imaging.preprocess` makes
    it, with any batch size and sides from 33 px. Its outputs are called "saliency" and, on request, "side1" …
    "side6": float32 (batch, out, height, width) after the sigmoid or softmax. Its metadata holds the names of
    the outputs, the preprocessing, the config and the smallest size. The file is written only if its maps
    differ from torch's by at most 1e-3, at two sizes and two batch sizes.

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
        data: For "int8", a folder of photos or a data set that is like the photos of later use.
        weights: The type of the weights in a file for phones: "float16" (the default), which in Core ML also
            calculates in float16, or "float32".
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
    for_phones = None
    if format in PHONE_SUFFIXES:
        for_phones = check_phone_request(out, weights, precision, data)
    elif weights is not None:
        raise ValueError(f"weights is for files for phones, litert and coreml, and the format is {format!r}")
    names = [out.name, out.with_suffix(".bin").name] if format == "openvino" else [out.name]
    for name in names:
        if not overwrite and out.with_name(name).exists():
            raise FileExistsError(f"{out.with_name(name)} is there; choose another name or overwrite it")
    if isinstance(source, str | Path):
        source = resolve(source)
    network = _load(source)
    if for_phones is not None:
        write_phone_file(
            network,
            out,
            weights=for_phones,
            side_outputs=side_outputs,
            data=data,
            weights_sha256=source.sha256 if isinstance(source, Source) else None,
            overwrite=overwrite,
        )
        return out
    convs = fold(network.config, float32_state(network))
    said = {"float32": json.dumps(sensitive_convolutions(convs)), "opset": str(OPSET)}
    graph = build_graph(network.config, convs, side_outputs=side_outputs, metadata=said).SerializeToString()
    import_runtime("onnxruntime" if format == "onnx" else "openvino", format)
    with tempfile.TemporaryDirectory(prefix="u2net-export-") as folder:
        made = Path(folder, out.name)
        if format == "onnx":
            made.write_bytes(graph)
        else:
            _write_openvino(network, graph, made, precision, data)
        check_exported(network, made, precision, side_outputs=side_outputs)
        out.parent.mkdir(parents=True, exist_ok=True)
        # the graph comes last, because readers look for it
        write_files(out.parent, {name: made.with_name(name).read_bytes() for name in reversed(names)})
    return out


def check_exported(
    network: U2Net, path: Path, precision: Precision = "exact", *, side_outputs: bool = False
) -> float:
    """Compare the maps of a file with those of the network in torch; returns the largest difference.

    Args:
        network: The network that was exported.
        path: The exported file.
        precision: The precision of the file; for "int8" any difference except NaN is accepted.
        side_outputs: Whether the file has side outputs.

    Raises:
        ValueError: The maps differ by more than 1e-3 in some pixel.
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
            if not largest <= (1 if precision == "int8" else TOLERANCE):  # NaN too
                raise ValueError(
                    f"the exported network's maps differ from those of torch by up to {largest:.2g} at "
                    f"{size[0]} × {size[1]} px, batch {n}, expected at most {TOLERANCE}; nothing was "
                    "written. Please report it with the versions of onnxruntime and openvino"
                )
    logger.info("maps differ from torch's by %.2g on average, %.2g at most", np.mean(total), largest)
    return largest


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


def _load(source: U2Net | Source) -> U2Net:
    from ..model import U2Net

    return load_network(U2Net, source) if isinstance(source, Source) else source


def _write_openvino(
    network: U2Net, graph: bytes, path: Path, precision: Precision, data: str | Path | None
) -> None:
    ov = import_runtime("openvino", "openvino")
    model = ov.Core().read_model(graph)
    if precision == "int8":
        from .quantisation import quantise

        assert data is not None
        model = quantise(model, network.config, data)
    ov.serialize(model, path)
