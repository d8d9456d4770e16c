"""Plan the configurations that a benchmark measures."""

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
"""The engines that can be requested; the plain forward and rembg's session are added automatically."""

BYTES: dict[Precision, int] = {"exact": 4, "fast": 2, "int8": 1}
REMBG_SIZE = 320
"""The height and width in pixels to which rembg resizes photos for this family of networks."""


class Weights(NamedTuple):
    """A source of weights to measure."""

    name: str
    config: U2NetConfig
    kind: str
    """The suffix of the file without its dot."""
    is_int8: bool = False

    @property
    def network(self) -> str:
        """The value for `Setup.network`."""
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
    """List all configurations; the ones that others are compared with (plain forward, rembg) come first."""
    setups: dict[Setup, None] = {}  # an ordered set
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
    """Find the Python interpreter that runs rembg; None if there is none.

    It is the given one, else the one that the variable U2NET_PEER_PYTHON names; neither is asked whether it
    has rembg. Without both it is this interpreter, if it has rembg.

    Raises:
        FileNotFoundError: The named interpreter does not exist.
    """
    named = python or os.environ.get("U2NET_PEER_PYTHON")
    if named is None:
        return Path(sys.executable) if find_spec("rembg") is not None else None
    path = shutil.which(Path(named).expanduser())
    if path is None:
        raise FileNotFoundError(f"{named} is no Python that can be run; name the one that has rembg")
    return Path(path)


def check_request(given: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raise a ValueError if a given name is unknown."""
    for each in given:
        if each not in known:
            raise ValueError(f"unknown {what} {each!r}, expected some of {list(known)}")


def supported_precisions(weights: Weights, asked: Sequence[Precision]) -> Sequence[Precision]:
    """List the requested precisions that the weights can run in; an int8 file has only one."""
    if weights.is_int8:
        return ("int8",)
    return [each for each in asked if each != "int8"] if weights.kind == "xml" else asked


def inspect_weights(name: str) -> Weights:
    """Read the config of a source of weights, and whether it is a graph in int8."""
    source = resolve(name)
    if source.format != "xml":
        return Weights(name, open_engine(source, engine="torch", device="cpu").config, source.format)
    try:
        return Weights(name, _read_graph(source, "int8"), "xml", is_int8=True)
    except ValueError:  # the graph is not in int8
        return Weights(name, _read_graph(source, "exact"), "xml")


def _read_graph(source: Source, precision: Precision) -> U2NetConfig:
    return open_engine(source, engine="openvino", device="cpu", precision=precision).config


def export_networks(
    weights: Iterable[Weights], scratch: Path, say: Callable[[str], object]
) -> dict[str, Path]:
    """Export weights to ONNX for rembg, each to a separate folder; returns name -> file."""
    exported = {}
    for i, each in enumerate(weights):
        if each.kind == "xml":
            continue
        say(f"exporting {each.name} for rembg")
        # rembg expects the model's file to have the model's name
        name = each.config.variant if each.config.variant in STAGES else "u2net_custom"
        try:
            exported[each.name] = export(each.name, scratch / f"rembg{i}" / f"{name}.onnx", format="onnx")
        except (ValueError, OSError, ImportError, RuntimeError) as e:
            say(f"{each.name} cannot be exported for rembg: {e}")
    return exported


def at_sizes(weights: Weights, folder: Path) -> list[tuple[int, str]]:
    """List the sizes in pixels to measure, each with a source: rembg's size, and the weights' own size."""
    own = (weights.config.input_size[0], weights.name)
    square = (REMBG_SIZE, REMBG_SIZE)
    if weights.config.input_size == square or weights.kind == "xml":
        return [own]
    from ..model import U2Net

    config = weights.config.replace(input_size=square)
    U2Net.from_pretrained(weights.name, config=config).save_pretrained(folder)
    return [(REMBG_SIZE, str(folder)), own]
