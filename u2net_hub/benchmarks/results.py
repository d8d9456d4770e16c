"""The results of a benchmark: record, tables and plot."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..atomic import write_files
from ..engines import EngineName, Precision
from ..evaluation import draw_plots, read_record
from ..tables import markdown_table

BenchEngine: TypeAlias = EngineName | Literal["torch plain", "torch compile", "rembg session"]

PLAIN: BenchEngine = "torch plain"
"""The official architecture in eager mode, float32, without folding batch norm."""
REMBG: BenchEngine = "rembg session"
"""The network in rembg's ONNX Runtime session, one photo at a time as in rembg."""

SCORES = {"s_measure": "S", "mae": "MAE", "max_f": "maxF"}

_JSON, _TABLE, _PLOT = "benchmark.json", "benchmark.md", "benchmark.png"


@dataclass(frozen=True)
class Setup:
    """The configuration that one process measures."""

    model: str
    """The source of the weights."""
    network: str
    """The variant, or the source for a custom one. Setups of the same network are compared."""
    engine: BenchEngine
    precision: Precision
    size: int
    """The height and width of the network's input in pixels."""
    batch: int
    device: str = "cpu"


@dataclass(frozen=True)
class Timing:
    """The measurement of one configuration, or the reason why it could not run."""

    setup: Setup
    seconds: tuple[float, ...] = ()
    """The seconds of each batch."""
    peak_mb: float | None = None
    """The peak resident set size of the process in MB, including libraries and warm-up."""
    gpu_mb: float | None = None
    """The peak of torch's allocations on a GPU, in MB."""
    scores: Mapping[str, float] = field(default_factory=dict)
    macs: int | None = None
    """The multiply-accumulates of a batch, see `cost`."""
    bytes_moved: int | None = None
    """The least memory traffic of a batch in bytes, see `cost`."""
    ceilings: Mapping[str, float] = field(default_factory=dict)
    """The measured limits of a GPU: "bytes_per_second" and "macs_per_second"."""
    error: str | None = None

    @property
    def images_per_second(self) -> float | None:
        """The images per second of the median run; None if nothing ran."""
        return self.setup.batch / statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class FolderTiming:
    """The measurement of one command on a folder, from start to end."""

    name: str
    """The command without model and folders, e.g. "u2net cutout --precision fast"."""
    model: str = ""
    network: str = ""
    """See `Setup`; model and network are empty for a command without a model."""
    size: int | None = None
    """The height and width of the network's input in pixels."""
    command: str = ""
    photos: int = 0
    seconds: tuple[float, ...] = ()
    peak_mb: float | None = None
    """The peak resident set size of the process in MB over all runs, as getrusage reports it."""
    error: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """All measurements of one benchmark, with the machine and the versions."""

    machine: Mapping[str, object]
    versions: Mapping[str, str]
    network: tuple[Timing, ...]
    folders: tuple[FolderTiming, ...] = ()
    command: str = ""
    date: str = ""
    """The date and time in ISO 8601."""

    def to_dict(self) -> dict[str, object]:
        """Return the content of benchmark.json."""
        content: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Benchmark:
        """Make a benchmark from what `to_dict` returned.

        Raises:
            ValueError: A field is missing, unknown, or of another type.
        """
        try:
            return read_record(cls, content, "benchmark")
        except ValueError as e:
            raise ValueError(f"this is no result of a benchmark: {e}") from e

    def save(self, out: str | Path) -> list[Path]:
        """Write benchmark.json, benchmark.md and, if matplotlib is installed, benchmark.png."""
        folder = Path(out)
        content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        texts = {_JSON: content, _TABLE: self.table()}
        write_files(folder, {name: f"{text}\n".encode() for name, text in texts.items()})
        written = [folder / name for name in texts]
        if find_spec("matplotlib") is not None:
            written.append(plot_benchmark(self, folder / _PLOT))
        return written

    def table(self) -> str:
        """Write the machine and the tables of networks and folders as Markdown."""
        about = [f"{key} {value}" for key, value in {**self.machine, **self.versions}.items()]
        parts = [", ".join(about)]
        if self.network:
            parts.append(_grid(network_rows(self.network)))
        if self.folders:
            parts.append(_grid(folder_rows(self.folders)))
        return "\n\n".join(parts)


def check_free(out: str | Path) -> None:
    """Raise FileExistsError if a folder already has a benchmark."""
    for name in (_JSON, _TABLE, _PLOT):
        if (path := Path(out, name)).exists():
            raise FileExistsError(f"{path} is there already; choose another folder, or --overwrite")


# Tables


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Compute the first quartile, the median and the third quartile; a single value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def speed_up(timing: Timing, others: Iterable[Timing], engine: BenchEngine) -> float | None:
    """Compute the ratio of images per second to another engine's, for the same network and size.

    The plain forward is compared at the same batch size, rembg's session at its batch size of one.
    """
    mine = timing.setup
    found = [
        other
        for other in others
        if other.setup.engine == engine
        and (other.setup.network, other.setup.size) == (mine.network, mine.size)
        and other.setup.batch == (1 if engine == REMBG else mine.batch)
    ]
    found.sort(key=lambda other: other.setup.model != mine.model)  # prefer the same weights
    rates = [timing.images_per_second, *(other.images_per_second for other in found[:1])]
    return rates[0] / rates[1] if len(rates) == 2 and rates[0] and rates[1] else None


def shares(timing: Timing) -> dict[str, float]:
    """Compute the shares of the machine's limits that were reached: "bandwidth", "arithmetic", if known."""
    if not timing.seconds or timing.macs is None or timing.bytes_moved is None or not timing.ceilings:
        return {}
    seconds = statistics.median(timing.seconds)
    return {
        "bandwidth": timing.bytes_moved / seconds / timing.ceilings["bytes_per_second"],
        "arithmetic": timing.macs / seconds / timing.ceilings["macs_per_second"],
    }


def network_rows(network: Sequence[Timing]) -> list[dict[str, str]]:
    """Make the table of networks: a row for each configuration, as column -> text."""
    rows = []
    for timing in network:
        setup = timing.setup
        row = {"model": _short(setup.model), "engine": setup.engine, "precision": setup.precision}
        row |= {"px": str(setup.size), "batch": str(setup.batch)}
        row |= _spread([1000 * each for each in timing.seconds], "ms", ".1f")
        row["images/s"] = _number(timing.images_per_second, ".2f")
        row["× rembg"] = _number(speed_up(timing, network, REMBG), ".2f")
        row["× plain"] = _number(speed_up(timing, network, PLAIN), ".2f")
        row["peak MB"] = _number(timing.peak_mb, ".0f")
        row["GPU MB"] = _number(timing.gpu_mb, ".0f")
        row |= {name: f"{share:.0%}" for name, share in shares(timing).items()}
        row |= {head: _number(timing.scores.get(key), ".4f") for key, head in SCORES.items()}
        row["reason"] = timing.error or ""
        rows.append(row)
    return rows


def folder_rows(folders: Sequence[FolderTiming]) -> list[dict[str, str]]:
    """Make the table of commands: a row for each command, as column -> text."""
    rows = []
    for timing in folders:
        row = {"command": timing.name, "model": _short(timing.model), "px": _number(timing.size, "d")}
        row["photos"] = str(timing.photos or "")
        row |= _spread(timing.seconds, "s", ".2f")
        rate = timing.photos / statistics.median(timing.seconds) if timing.seconds else 0
        row["photos/s"] = f"{rate:.2f}" if rate else ""
        row["× rembg"] = _number(folder_speed_up(timing, folders), ".2f")
        row["peak MB"] = _number(timing.peak_mb, ".0f")
        row["reason"] = timing.error or ""
        rows.append(row)
    return rows


def folder_speed_up(timing: FolderTiming, others: Iterable[FolderTiming]) -> float | None:
    """Divide the time of rembg's command by that of this command, for the same network."""
    found = [o for o in others if o.name.startswith("rembg") and o.network == timing.network]
    found.sort(key=lambda other: other.model != timing.model)  # prefer the same weights
    if not found or not found[0].seconds or not timing.seconds:
        return None
    return statistics.median(found[0].seconds) / statistics.median(timing.seconds)


def label(setup: Setup, *, model: bool = True) -> str:
    """Make a readable name for a configuration."""
    name = f"{_short(setup.model)}, " if model else ""
    return f"{name}{setup.engine}, {setup.precision}, {setup.size} px, batch {setup.batch}"


def folder_label(timing: FolderTiming) -> str:
    """Make a readable name for a command."""
    if not timing.model:
        return timing.name
    return f"{timing.name}, {_short(timing.model)}, {timing.size} px"


def _spread(values: Sequence[float], unit: str, form: str) -> dict[str, str]:
    if not values:
        return {unit: "", "quartiles": ""}
    first, median, third = (format(each, form) for each in quartiles(values))
    return {unit: median, "quartiles": f"{first}–{third}"}


def _grid(rows: Sequence[Mapping[str, str]]) -> str:
    """Format rows as an aligned Markdown table without empty columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) for row in rows)]
    cells = [[row.get(name, "") for name in columns] for row in rows]
    return "\n".join(markdown_table(columns, cells, aligned=True))


def _short(model: str) -> str:
    """Shorten the path of a source to its last part; a bundled name or a name on the Hub does not change."""
    return Path(model).name if os.path.exists(model) else model


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


# The plot


def plot_benchmark(benchmark: Benchmark, path: str | Path) -> Path:
    """Draw images per second of each configuration that ran, and seconds of each command, as bars.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ran = [timing for timing in benchmark.network if timing.seconds]
    panels: dict[str, list[Timing]] = {}
    for timing in ran:
        panels.setdefault(timing.setup.model, []).append(timing)
    done = [timing for timing in benchmark.folders if timing.seconds]
    heights = [len(panel) + 3 for panel in panels.values()] + ([len(done) + 3] if done else [])
    figure, axes = draw_plots(
        9, max(0.28 * sum(heights), 2), rows=max(len(heights), 1), ratios=heights or None, share_x=False
    )
    if heights:
        engines = list(dict.fromkeys(timing.setup.engine for timing in ran))
        for ax, (model, panel) in zip(axes, panels.items(), strict=False):
            rates = [[t.setup.batch / seconds for seconds in quartiles(t.seconds)] for t in panel]
            colours = [f"C{engines.index(t.setup.engine)}" for t in panel]
            _bars(ax, [label(t.setup, model=False) for t in panel], rates, colours)
            ax.set_title(f"{_short(model)}: the network alone")
            ax.set_xlabel("images per second, from quartile to quartile")
        if done:
            colours = ["C7" if t.name.startswith("rembg") else "C0" for t in done]
            names = [folder_label(t) for t in done]
            _bars(axes[-1], names, [quartiles(t.seconds) for t in done], colours)
            axes[-1].set_title(f"From start to end, {max(t.photos for t in done):,} photos")
            axes[-1].set_xlabel("seconds, from quartile to quartile")
    figure.suptitle(str(benchmark.machine.get("gpu") or benchmark.machine.get("cpu") or ""))
    figure.savefig(path)
    return Path(path)


def _bars(ax: Any, names: Sequence[str], values: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    """Draw horizontal bars of medians, with lines from quartile to quartile."""
    medians = [value[1] for value in values]
    spread = [[m - min(v) for m, v in zip(medians, values, strict=True)]]
    spread.append([max(v) - m for m, v in zip(medians, values, strict=True)])
    ax.barh(range(len(names)), medians, xerr=spread, color=colours, height=0.7)
    for i, median in enumerate(medians):
        ax.annotate(f" {median:.3g}", (max(values[i]), i), va="center", fontsize="small")
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.grid(visible=False, axis="y")
