"""Which engines, precisions, sizes and batches a benchmark measures."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..config import STAGES, U2NetConfig
from ..engines import Precision, export, open_engine
from ..hub import Source, resolve
from .results import PLAIN, REMBG, BenchEngine, Setup

ENGINES: tuple[BenchEngine, ...] = ("torch", "torch compile", "onnxruntime", "openvino")
"""What can be asked for; the plain forward and rembg's session come along by themselves."""

BYTES: dict[Precision, int] = {"exact": 4, "fast": 2, "int8": 1}
REMBG_SIZE = 320
"""Height and width in pixels of all that rembg shows this family of networks."""


class Weights(NamedTuple):
    """A source to measure."""

    name: str
    config: U2NetConfig
    kind: str
    """Suffix of the file without its dot."""
    is_int8: bool = False

    @property
    def network(self) -> str:
        """What `Setup.network` says."""
        return self.config.variant if self.config.variant in STAGES else self.name


def plan_setups(
    models: Iterable[Weights],
    engines: Sequence[BenchEngine],
    precisions: Sequence[Precision],
    sizes: Sequence[int],
    batches: Sequence[int],
    device: str = "cpu",
    *,
    peer: bool = False,
) -> list[Setup]:
    """Every configuration; before them, what they are compared with."""
    setups: dict[Setup, None] = {}  # a set that keeps its order
    for weights in models:
        is_graph = weights.kind == "xml"
        for size in sizes:
            where = (weights.name, weights.network)
            if peer and not is_graph and size == REMBG_SIZE and device == "cpu":
                setups[Setup(*where, REMBG, "exact", size, 1)] = None
            for batch in batches:
                if not is_graph:
                    setups[Setup(*where, PLAIN, "exact", size, batch, device)] = None
                for engine in engines if not is_graph else ("openvino",):
                    for precision in supported_precisions(weights, precisions):
                        setups[Setup(*where, engine, precision, size, batch, device)] = None
    return list(setups)


def find_peer(python: str | Path | None = None) -> Path | None:
    """The Python that has rembg, or None.

    Raises:
        FileNotFoundError: the one that is named is not there.
    """
    named = python or os.environ.get("U2NET_PEER_PYTHON")
    if named is None:
        return Path(sys.executable) if find_spec("rembg") is not None else None
    path = shutil.which(Path(named).expanduser())
    if path is None:
        raise FileNotFoundError(f"{named} is no Python that can be run; name the one that has rembg")
    return Path(path)


def check_request(given: Sequence[str], known: Sequence[str], what: str) -> None:
    for each in given:
        if each not in known:
            raise ValueError(f"unknown {what} {each!r}, expected some of {list(known)}")


def supported_precisions(weights: Weights, asked: Sequence[Precision]) -> Sequence[Precision]:
    """Those that are asked for, or the only one that a file of OpenVINO has."""
    if weights.is_int8:
        return ("int8",)
    return [each for each in asked if each != "int8"] if weights.kind == "xml" else asked


def inspect_weights(name: str) -> Weights:
    source = resolve(name)
    if source.format != "xml":
        return Weights(name, open_engine(source, engine="torch", device="cpu").config, source.format)
    try:
        return Weights(name, _read_graph(source, "int8"), "xml", is_int8=True)
    except ValueError:  # it is no graph in int8
        return Weights(name, _read_graph(source, "exact"), "xml")


def _read_graph(source: Source, precision: Precision) -> U2NetConfig:
    return open_engine(source, engine="openvino", device="cpu", precision=precision).config


def export_networks(
    weights: Iterable[Weights], scratch: Path, say: Callable[[str], object]
) -> dict[str, Path]:
    """The weights as ONNX in folders of their own, by name, as rembg takes them."""
    exported = {}
    for i, each in enumerate(weights):
        if each.kind == "xml":
            continue
        say(f"exporting {each.name} for rembg")
        # rembg takes a file by this name for the model of this name
        name = each.config.variant if each.config.variant in STAGES else "u2net_custom"
        try:
            exported[each.name] = export(each.name, scratch / f"rembg{i}" / f"{name}.onnx", format="onnx")
        except (ValueError, OSError, ImportError, RuntimeError) as e:
            say(f"{each.name} cannot be exported for rembg: {e}")
    return exported


def at_sizes(weights: Weights, folder: Path) -> list[tuple[int, str]]:
    """The weights as sources at the sizes to measure, in pixels: rembg's, and their own if it is another."""
    own = (weights.config.input_size[0], weights.name)
    square = (REMBG_SIZE, REMBG_SIZE)
    if weights.config.input_size == square or weights.kind == "xml":
        return [own]
    from ..model import U2Net

    config = weights.config.replace(input_size=square)
    U2Net.from_pretrained(weights.name, config=config).save_pretrained(folder)
    return [(REMBG_SIZE, str(folder)), own]
