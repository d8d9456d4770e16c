"""The options of `u2net mask` and `u2net cutout` that send the work to a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .options import watched

if TYPE_CHECKING:
    from ..inference import ClusterSummary, Progress

RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Run on Ray: local (this machine), auto (the cluster that it belongs to) or ray://host:port. "
        "Takes one folder, URL, shard or list of paths; --out is a folder, a URL or NAME.parquet.",
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


class Cluster(NamedTuple):
    """The options of a cluster as they were given."""

    address: str | None
    workers: int | None
    cpus_per_worker: int | None
    gpus_per_worker: float | None
    column: str | None

    def check(self, inputs: Sequence[str], out: str | None, *, watch: bool) -> None:
        """Raise a ValueError if an option lacks --ray, or does not go together with it."""
        from ..inference import is_url

        if self.address is None:
            for place in (*inputs, out or ""):
                if is_url(place):
                    raise ValueError(f"{place} is a URL; add --ray local to use URLs on this machine")
            for name, value in self._asdict().items():
                if value is not None:
                    raise ValueError(f"--{name.replace('_', '-')} is an option of --ray; add --ray local")
            return
        if watch:
            raise ValueError("--watch and --ray exclude each other; a repeated --ray run continues")
        if len(inputs) != 1 or inputs[0] == "-":
            raise ValueError(f"--ray takes one source, got {len(inputs)}; a list of paths is a source")
        if out is None or out == "-":
            raise ValueError("--ray needs --out: a folder, a URL, or a name that ends in .parquet")


def run_on_cluster(
    cluster: Cluster, inputs: Sequence[str], out: str | None, settings: Mapping[str, Any], *, as_json: bool
) -> None:
    """Call `run_on_ray`, show how far it is, and report. The exit code is 1 if a photo failed."""
    from ..inference import run_on_ray

    address, workers, cpus, gpus, column = cluster
    summary = run_on_ray(
        inputs[0],
        str(out),
        address=address,
        workers=workers,
        cpus_per_worker=cpus or 1,
        gpus_per_worker=gpus or 0,
        column=column,
        on_progress=_progress(),
        **{name: value for name, value in settings.items() if name != "clean_edges"},
    )
    _finish(summary, as_json)


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
