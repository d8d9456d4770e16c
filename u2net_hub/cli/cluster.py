"""The options of `u2net mask` and `u2net cutout` that send the work to a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import watched

if TYPE_CHECKING:
    from ..inference import ClusterSummary, Progress

_PANEL = "Cluster"
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Run on Ray: local (this machine), auto (the cluster that it belongs to) or ray://host:port. "
        "Takes one folder, URL, shard or list of paths; --out is a folder, a URL or NAME.parquet.",
        rich_help_panel=_PANEL,
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Workers with --ray. By default as many as fit."),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option("--cpus-per-worker", min=1, help="Cores of each worker with --ray; 1 by default."),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", min=0, help="GPUs of each worker with --ray, e.g. 0.5; 0 by default."),
]
Column = Annotated[
    str | None, typer.Option(help="Column of Parquet files with the pictures or paths, with --ray.")
]


def refuse_urls(places: Sequence[str | None]) -> None:
    """Raise a ValueError if a place is a URL, which only --ray reads and writes."""
    from ..inference import is_url

    for place in places:
        if place is not None and is_url(place):
            raise ValueError(f"{place} is a URL; add --ray local to read and write URLs on this machine")


def refuse_cluster_options(**options: object) -> None:
    """Raise a ValueError if an option of a cluster is given without --ray."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} is an option of --ray; add --ray local")


def run_on_cluster(
    inputs: Sequence[str],
    out: str | None,
    *,
    json_: bool,
    cpus_per_worker: int | None,
    gpus_per_worker: float | None,
    **settings: Any,
) -> None:
    """Call `run_on_ray`, show how far it is, and report. The exit code is 1 if a photo failed."""
    from ..inference import run_on_ray

    if len(inputs) != 1 or inputs[0] == "-":
        raise ValueError(f"--ray takes one source, and there are {list(inputs)}; a list of paths is a source")
    if out is None or out == "-":
        raise ValueError("--ray needs --out: a folder, a URL, or a name that ends in .parquet")
    show = _progress()
    summary = run_on_ray(
        inputs[0],
        out,
        cpus_per_worker=cpus_per_worker or 1,
        gpus_per_worker=gpus_per_worker or 0,
        on_progress=show,
        **settings,
    )
    _finish(summary, json_)


def _progress() -> Callable[[Progress], None]:
    """Return a function that draws how far a run is, if a person watches."""
    from tqdm import tqdm

    bar = tqdm(unit="photo", disable=not watched())

    def show(progress: Progress) -> None:
        if bar.total is None and progress.total is not None:
            bar.total = progress.total
            bar.initial = progress.skipped  # they say nothing about the speed
            bar.reset(progress.total)
        bar.set_postfix(failed=progress.failed, workers=progress.workers, refresh=False)
        bar.update(progress.done - bar.n)
        if progress.done == progress.total:
            bar.close()

    return show


def _finish(summary: ClusterSummary, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps({**asdict(summary), "errors": [list(each) for each in summary.errors]}, indent=2)
        )
    for _, error in summary.errors[:20]:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in error)
        typer.echo(f"u2net: {line}", err=True)
    more = summary.failed - len(summary.errors[:20])
    if more > 0:
        typer.echo(f"u2net: {more} more photos failed; {summary.manifest} has the error of each", err=True)
    if summary.failed or watched():
        counts = {status: summary.count(status) for status in ("written", "skipped", "failed")}
        done = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        how = f"{summary.device}, {summary.engine}, {summary.precision}"
        typer.echo(f"u2net: {done} on {how}", err=True)
    if summary.failed:
        raise typer.Exit(1)
