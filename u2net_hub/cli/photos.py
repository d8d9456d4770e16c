"""The verbs that make masks and cutouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .cluster import (
    Column,
    CpusPerWorker,
    GpusPerWorker,
    RayAddress,
    RayWorkers,
    refuse_cluster_options,
    refuse_urls,
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
    Inputs,
    MinMax,
    Model,
    Out,
    Overwrite,
    PrecisionChoice,
    SkipExisting,
    Threshold,
    watched,
)

if TYPE_CHECKING:
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
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    json_: AsJson = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    column: Column = None,
) -> None:
    """Cut the object out of each photo: RGBA, in the photo's own size and colours."""
    from ..inference import SaliencyPipeline, run_files

    existing = _existing(overwrite, skip_existing)
    cluster = {
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "column": column,
    }
    if ray is not None:
        run_on_cluster(
            inputs,
            out,
            kind="cutout",
            address=ray,
            json_=json_,
            existing=existing,
            model=model,
            background=background,
            edges=edges,
            format=format_,
            threshold=threshold,
            crop=crop,
            label=label,
            minmax=minmax,
            device=device,
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            allow_pickle=allow_pickle,
            **cluster,
        )
        return
    refuse_cluster_options(**cluster)
    refuse_urls([*inputs, out])
    _check_streams(inputs, out, json_)
    if clean_edges:
        typer.echo("u2net: --clean-edges is not needed any more: all edges but soft ones are clean", err=True)
    pipeline = SaliencyPipeline.from_pretrained(
        model,
        device=device,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        minmax=minmax,
        allow_pickle=allow_pickle,
    )
    summary = run_files(
        pipeline,
        inputs,
        out,
        kind="cutout",
        format=format_,
        background=background,
        edges=edges,
        clean_edges=clean_edges,
        threshold=threshold,
        crop=crop,
        label=label,
        existing=existing,
        on_file=_progress(),
    )
    _finish(summary, json_)


def mask(
    inputs: Inputs,
    out: Out = None,
    model: Model = "u2netp",
    edges: EdgesChoice = "soft",
    format_: FileFormat = None,
    threshold: Threshold = None,
    crop: Crop = False,
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    json_: AsJson = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    column: Column = None,
) -> None:
    """Make the saliency map of each photo: 8-bit grey, or 0 and 255 with --threshold."""
    from ..inference import SaliencyPipeline, run_files

    existing = _existing(overwrite, skip_existing)
    cluster = {
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "column": column,
    }
    if ray is not None:
        run_on_cluster(
            inputs,
            out,
            kind="mask",
            address=ray,
            json_=json_,
            existing=existing,
            model=model,
            edges=edges,
            format=format_,
            threshold=threshold,
            crop=crop,
            label=label,
            minmax=minmax,
            device=device,
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            allow_pickle=allow_pickle,
            **cluster,
        )
        return
    refuse_cluster_options(**cluster)
    refuse_urls([*inputs, out])
    _check_streams(inputs, out, json_)
    pipeline = SaliencyPipeline.from_pretrained(
        model,
        device=device,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        minmax=minmax,
        allow_pickle=allow_pickle,
    )
    summary = run_files(
        pipeline,
        inputs,
        out,
        kind="mask",
        edges=edges,
        format=format_,
        threshold=threshold,
        crop=crop,
        label=label,
        existing=existing,
        on_file=_progress(),
    )
    _finish(summary, json_)


def _existing(overwrite: bool, skip_existing: bool) -> Literal["refuse", "overwrite", "skip"]:
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing exclude each other")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"


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
        done = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        how = f"{summary.device}, {summary.engine}, {summary.precision}"
        typer.echo(f"u2net: {done} on {how}", err=True)
    if counts["failed"]:
        raise typer.Exit(1)


def _one_line(message: str) -> str:
    """Escape the control characters of file names in a message, as Python does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
