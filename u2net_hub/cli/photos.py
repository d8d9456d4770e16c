"""The verbs that make masks and cutouts."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from .cluster import (
    Cluster,
    Column,
    CpusPerWorker,
    GpusPerWorker,
    RayAddress,
    RayWorkers,
    run_on_cluster,
)
from .options import (
    AllowPickle,
    AsJson,
    BatchSize,
    ClassName,
    Crop,
    Device,
    EdgesChoice,
    EngineChoice,
    FileFormat,
    FillHoles,
    Grow,
    Inputs,
    LargestPart,
    MinMax,
    Model,
    Out,
    Overwrite,
    PrecisionChoice,
    SkipExisting,
    Threshold,
    Watch,
    watched,
)

if TYPE_CHECKING:
    from ..engines import EngineName, Precision
    from ..imaging import Cleanup, Edges, Format
    from ..inference import FileReport, Summary


def cutout(
    inputs: Inputs,
    out: Out = None,
    model: Model = "u2netp",
    background: Annotated[
        str | None, typer.Option(help="A colour, the path of a picture, or blur, instead of transparency.")
    ] = None,
    edges: EdgesChoice = "sharp",
    clean_edges: Annotated[
        bool, typer.Option("--clean-edges", hidden=True, help="All edges but soft ones are clean now.")
    ] = False,
    format_: FileFormat = None,
    threshold: Threshold = None,
    crop: Crop = False,
    largest_part: LargestPart = False,
    fill_holes: FillHoles = False,
    grow: Grow = 0,
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    watch: Watch = False,
    json_: AsJson = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    column: Column = None,
) -> None:
    """Cut the object out of each photo: RGBA, in the photo's own size and colours."""
    if clean_edges:
        typer.echo("u2net: --clean-edges is not needed any more: all edges but soft ones are clean", err=True)
    settings: _Settings = {
        "kind": "cutout",
        "format": format_,
        "background": background,
        "edges": edges,
        "clean_edges": clean_edges,
        "threshold": threshold,
        "crop": crop,
        "label": label,
        "existing": _existing(overwrite, skip_existing),
        "cleanup": _cleanup(largest_part, fill_holes, grow),
    }
    weights: _Weights = {
        "device": device,
        "engine": engine,
        "precision": precision,
        "batch_size": batch_size,
        "minmax": minmax,
        "allow_pickle": allow_pickle,
    }
    cluster = Cluster(ray, workers, cpus_per_worker, gpus_per_worker, column)
    _make(model, weights, inputs, out, settings, cluster, watch=watch, as_json=json_)


def mask(
    inputs: Inputs,
    out: Out = None,
    model: Model = "u2netp",
    edges: EdgesChoice = "soft",
    format_: FileFormat = None,
    threshold: Threshold = None,
    crop: Crop = False,
    largest_part: LargestPart = False,
    fill_holes: FillHoles = False,
    grow: Grow = 0,
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    watch: Watch = False,
    json_: AsJson = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    column: Column = None,
) -> None:
    """Make the saliency map of each photo: 8-bit grey, or 0 and 255 with --threshold."""
    settings: _Settings = {
        "kind": "mask",
        "format": format_,
        "edges": edges,
        "threshold": threshold,
        "crop": crop,
        "label": label,
        "existing": _existing(overwrite, skip_existing),
        "cleanup": _cleanup(largest_part, fill_holes, grow),
    }
    weights: _Weights = {
        "device": device,
        "engine": engine,
        "precision": precision,
        "batch_size": batch_size,
        "minmax": minmax,
        "allow_pickle": allow_pickle,
    }
    cluster = Cluster(ray, workers, cpus_per_worker, gpus_per_worker, column)
    _make(model, weights, inputs, out, settings, cluster, watch=watch, as_json=json_)


class _Settings(TypedDict, total=False):
    """The arguments that `run_files` and `watch_files` share."""

    kind: Literal["mask", "cutout"]
    format: Format | None
    background: str | None
    edges: Edges
    clean_edges: bool
    threshold: float | None
    crop: bool
    label: str | None
    existing: Literal["refuse", "overwrite", "skip"]
    cleanup: Cleanup


class _Weights(TypedDict):
    """The arguments that `SaliencyPipeline.from_pretrained` and `run_on_ray` share, but for the source."""

    device: str
    engine: EngineName
    precision: Precision
    batch_size: int
    minmax: Literal["auto", "always", "never"] | None
    allow_pickle: bool


def _make(
    model: str,
    weights: _Weights,
    inputs: Sequence[str],
    out: str | None,
    settings: _Settings,
    cluster: Cluster,
    *,
    watch: bool,
    as_json: bool,
) -> None:
    """Make the outputs of one run, here or on a cluster, or watch a folder until Ctrl-C or SIGTERM."""
    from ..inference import SaliencyPipeline, run_files, tune_malloc, watch_files

    _check_streams(inputs, out, as_json)
    cluster.check(inputs, out, watch=watch)
    if cluster.address is not None:
        run_on_cluster(cluster, inputs, out, {**settings, **weights, "model": model}, as_json=as_json)
        return
    tune_malloc()
    pipeline = SaliencyPipeline.from_pretrained(model, **weights)
    if not watch:
        _finish(run_files(pipeline, inputs, out, on_file=_progress(), **settings), as_json)
        return
    if len(inputs) != 1 or out is None or "-" in (out, inputs[0]):
        raise ValueError("--watch takes one folder, and needs another folder as --out")
    counts: Counter[str] = Counter()

    def show(report: FileReport) -> None:
        counts[report.status] += 1
        if as_json:
            typer.echo(json.dumps(asdict(report)))
        if report.error is not None:
            typer.echo(f"u2net: {_one_line(report.error)}", err=True)

    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if watched():
        typer.echo(f"u2net: {_one_line(inputs[0])} is watched until Ctrl-C", err=True)
    try:
        watch_files(pipeline, inputs[0], out, on_file=show, **settings)
    finally:
        signal.signal(signal.SIGTERM, before)
        engine = pipeline.engine
        _say_counts(counts, engine.device, engine.name, engine.precision)


def _existing(overwrite: bool, skip_existing: bool) -> Literal["refuse", "overwrite", "skip"]:
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing exclude each other")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"


def _cleanup(largest_part: bool, fill_holes: bool, grow: int) -> Cleanup:
    from ..imaging import Cleanup

    return Cleanup(largest_part, fill_holes, grow=grow)


def _check_streams(inputs: Sequence[str], out: str | None, as_json: bool) -> None:
    if as_json and (out == "-" or (out is None and "-" in inputs)):
        raise ValueError(
            "the picture and the report of --json would share standard output; give a file as --out"
        )


def _progress() -> Callable[[FileReport, int], None]:
    """Return the function that `run_files` calls with each report; it draws a bar if a person watches."""
    from tqdm import tqdm

    bar = tqdm(unit="photo", disable=not watched(), delay=0.5)

    def step(report: FileReport, total: int) -> None:
        bar.total = total
        bar.update()
        if bar.n == total:
            bar.close()

    return step


def _finish(summary: Summary, as_json: bool) -> None:
    """Report on the files. The exit code is 1 if one failed."""
    counts = {status: summary.count(status) for status in ("written", "skipped", "failed")}
    if as_json:
        files = [asdict(report) for report in summary.files]
        ran = {"device": summary.device, "engine": summary.engine, "precision": summary.precision}
        typer.echo(json.dumps({**ran, **counts, "files": files}, indent=2))
    for report in summary.files:
        if report.error is not None:
            typer.echo(f"u2net: {_one_line(report.error)}", err=True)
    if len(summary.files) > 1 and (counts["failed"] or watched()):
        _say_counts(counts, summary.device, summary.engine, summary.precision)
    if counts["failed"]:
        raise typer.Exit(1)


def _say_counts(counts: Mapping[str, int], device: str, engine: str, precision: str) -> None:
    done = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    typer.echo(f"u2net: {done or 'no photo'} on {device}, {engine}, {precision}", err=True)


def _one_line(message: str) -> str:
    """Escape the control characters of file names in a message, as Python does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
