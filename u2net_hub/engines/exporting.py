"""Networks as files for other runtimes: ONNX and OpenVINO, checked against torch before they are written."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..atomic import write_files
from ..checkpoints import fold
from ..hub import Source, load_network, resolve
from .graph_files import import_runtime
from .onnx_builder import OPSET, SMALLEST, build_graph
from .open import open_engine
from .precision import Precision, float32_state, sensitive_convolutions

if TYPE_CHECKING:
    from ..model import U2Net


logger = logging.getLogger(__name__)


ExportFormat: TypeAlias = Literal["onnx", "openvino"]
_SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}

TOLERANCE = 1e-3
"""Of a map in [0, 1], anywhere: float32 in another order stays a tenth of it below."""
_ODD_SIZE = (SMALLEST + 14, SMALLEST + 60)


def export(
    source: U2Net | Source | str | Path,
    out: str | Path,
    *,
    format: ExportFormat | None = None,
    side_outputs: bool = False,
    precision: Precision = "exact",
    data: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network as a file that runs without this library and without torch.

    Its input is "input", float32 (batch, channels, height, width) as `image.preprocess` makes it, of any
    batch and any size from 33 px; its outputs are "saliency" and, on request, "side1" … "side6", each float32
    (batch, out, height, width) after the sigmoid or softmax. Names, preprocessing, config and the smallest
    size are in its metadata. Nothing is written unless its maps are those of torch to 1e-3, at two sizes
    and two sizes of batch.

    Args:
        source: a U2Net, or what `U2Net.from_pretrained` takes.
        out: the file: .onnx, or .xml, beside which a .bin comes to lie.
        format: "onnx" or "openvino"; None: by the suffix.
        side_outputs: the six side outputs too.
        precision: "exact", float32, which OpenVINO can run as "fast" as well; "int8", for OpenVINO,
            calibrated on photos. Its maps are told apart from torch's in the log, not held to 1e-3.
        data: for "int8": a folder of photos, or a data set, like those that will be asked about.
        overwrite: whether a file that is there may be replaced.

    Returns:
        The file.

    Raises:
        FileExistsError: it is there.
        ValueError: suffix, format and precision do not go together, the source is unknown, or the file's maps
            are not the network's.
        ImportError: onnx, onnxruntime, openvino or nncf is not installed.
    """
    out = Path(out)
    format = _check_request(out, format, precision, data)
    names = [out.name] if format == "onnx" else [out.name, out.with_suffix(".bin").name]
    for name in names:
        if not overwrite and out.with_name(name).exists():
            raise FileExistsError(f"{out.with_name(name)} is there; choose another name or overwrite it")
    network = _load(source)
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
        # the graph last: it is what a reader looks for
        write_files(out.parent, {name: made.with_name(name).read_bytes() for name in reversed(names)})
    return out


def check_exported(
    network: U2Net, path: Path, precision: Precision = "exact", *, side_outputs: bool = False
) -> float:
    """The largest difference between the maps of a file and those of the network in torch.

    Args:
        network: what the file was made of.
        path: the file.
        precision: for "int8", any difference but NaN passes.
        side_outputs: whether the file has them.

    Raises:
        ValueError: they differ by more than 1e-3 somewhere.
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
            x = _scenes(rng, (n, network.config.in_channels, *size))
            found = engine(x, side_outputs=side_outputs)
            expected = reference(x, side_outputs=side_outputs)
            for y, wanted in zip(found, expected, strict=True):
                if y.shape != wanted.shape:
                    raise ValueError(f"{path.name}: a map of shape {y.shape}, expected {wanted.shape}")
                difference = np.abs(y - wanted)
                largest = max(largest, float(difference.max()))
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
    """The format; raises as `export` does."""
    if format is not None and format not in get_args(ExportFormat):
        raise ValueError(f"unknown format {format!r}, expected one of {list(get_args(ExportFormat))}")
    by_suffix = {suffix: name for name, suffix in _SUFFIXES.items()}
    if out.suffix not in by_suffix or format not in (None, by_suffix[out.suffix]):
        wanted = _SUFFIXES[format] if format else " or ".join(by_suffix)
        raise ValueError(f"cannot write {format or 'a network'} to {out.name}, expected the suffix {wanted}")
    if precision not in ("exact", "int8"):
        raise ValueError(
            f"precision {precision!r} is chosen when a file is run, expected 'exact' or 'int8' for an export"
        )
    found = by_suffix[out.suffix]
    if precision == "int8" and (found != "openvino" or data is None):
        raise ValueError(
            "int8 is for OpenVINO and needs photos to calibrate on: "
            "u2net export --format openvino --precision int8 --data FOLDER --out FILE.xml"
        )
    if data is not None and precision != "int8":
        raise ValueError(f"data is for precision 'int8', and the precision is {precision!r}")
    return found


def _load(source: U2Net | Source | str | Path) -> U2Net:
    from ..model import U2Net

    if isinstance(source, U2Net):
        return source
    return load_network(U2Net, source if isinstance(source, Source) else resolve(source))


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


def _scenes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A disc before a ground, each of its colour: networks see an object in it, in noise they see nothing."""
    _, channels, height, width = shape
    y, x = np.mgrid[:height, :width]
    scenes = rng.normal(0, 0.1, shape)
    for scene in scenes:
        centre, radius = (
            rng.uniform(0.35, 0.65, 2) * (height, width),
            rng.uniform(0.2, 0.35) * min(height, width),
        )
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        ground, colour = rng.uniform(-1.5, 1.5, (2, channels, 1, 1))
        scene += np.where(disc, colour, ground)
    return scenes.astype(np.float32)
