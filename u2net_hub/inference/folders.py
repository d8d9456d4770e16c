"""Make masks or cutouts of whole folders; no file is lost, overwritten or half-written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image

from ..atomic import write_file
from ..imaging import Cleanup, Edges, Format, encode, peek_size
from .plan import (
    Existing,
    Job,
    Kind,
    Options,
    check_targets,
    choose_format,
    plan_jobs,
    read_options,
    to_be_skipped,
)
from .stream import FAILURES, stream_photos

if TYPE_CHECKING:
    from .backgrounds import Background
    from .pipeline import Prepared, SaliencyPipeline
    from .result import SaliencyResult

Status: TypeAlias = Literal["written", "skipped", "failed"]


@dataclass(frozen=True)
class FileReport:
    """The outcome for one input."""

    source: str
    """The path of the input, or "-" for standard input."""
    target: str
    """The path of the output, or "-" for standard output."""
    status: Status
    error: str | None = None
    """The reason for a failure, or why a watched photo was skipped."""
    size: tuple[int, int] | None = None
    """The photo's (height, width) in pixels."""
    confidence: float | None = None
    """See `SaliencyResult.confidence`."""
    found: bool | None = None
    """Whether the photo shows a salient object."""


@dataclass(frozen=True)
class Summary:
    """The outcomes for all inputs, in the order of the inputs."""

    files: tuple[FileReport, ...]
    device: str
    """The device that the network ran on."""
    engine: str
    """The engine that ran the network, e.g. "openvino"."""
    precision: str
    """The precision of the engine: "exact", "fast" or "int8"."""

    def count(self, status: Status) -> int:
        """Count the files with a status: "written", "skipped" or "failed"."""
        return sum(file.status == status for file in self.files)


def run_files(
    pipeline: SaliencyPipeline,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    kind: Kind = "cutout",
    format: Format | None = None,
    background: str | Background | None = None,
    threshold: float | None = None,
    crop: bool = False,
    edges: Edges | None = None,
    clean_edges: bool = False,
    label: int | str | None = None,
    existing: Existing = "refuse",
    cleanup: Cleanup | None = None,
    on_file: Callable[[FileReport, int], None] | None = None,
) -> Summary:
    """Make a mask or a cutout of every photo, and write each to a file.

    Reading, network and writing run at the same time, on a few photos at once, so that a folder of any size
    fits into memory. Each output is written completely or not at all, and no output ever replaces an input.

    Args:
        pipeline: The pipeline that makes the saliency maps.
        inputs: Files, folders, or "-" alone for standard input. In a folder and its subfolders every file
            with a picture's suffix is taken, except hidden files. Links are followed, to each folder once.
        out: A folder, which receives `<relative path>/<stem>.<format>`; for one input file, a file if it
            has a suffix; "-" for standard output. None: beside the input, as `<stem>_mask.png` or
            `<stem>_cutout.png`. Files of these names that lie beside their source are then no inputs.
        kind: `"mask"`, 8-bit grey (a palette picture for several classes), or `"cutout"`, RGBA.
        format: The format of the output; None: by the suffix of `out`, else PNG. JPEG has no transparency.
        background: The background of a cutout, see `SaliencyResult.over`; None for transparency.
        threshold: A number from 0 to 1 for masks of 0 and 255 and for hard edges; None for soft edges.
        crop: Whether to crop to the object, see `SaliencyResult.bbox`.
        edges: How edges are made, see `SaliencyResult.cutout`; None: sharp for a cutout, soft for a mask.
        clean_edges: Deprecated, see `SaliencyResult.cutout`.
        label: The number or the name of a class, for a network with several classes.
        existing: What to do if an output exists: "refuse" the whole run before it starts, "overwrite" the
            output, or "skip" the photo.
        cleanup: The steps that clean each mask: the largest part only, holes filled, the outline moved.
        on_file: A function to call with each report and the number of all files.

    Returns:
        The outcome for each file. A file that cannot be read or written does not stop the others.

    Raises:
        ValueError: Two inputs would share an output, an output would replace an input, an argument is
            invalid, or the inputs hold no picture. As with the exceptions below, nothing is written.
        FileExistsError: An output exists, and `existing` is "refuse".
        OSError: An output folder cannot be written to.
    """
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    options = read_options(
        pipeline.config,
        kind=kind,
        format=choose_format(format, out, names),
        background=background,
        threshold=threshold,
        crop=crop,
        edges=edges,
        clean_edges=clean_edges,
        label=label,
        existing=existing,
        cleanup=cleanup,
    )
    jobs = plan_jobs(names, out, options)
    read = [source for source, _ in jobs if source is not None]
    if isinstance(background, str | Path):
        read.append(Path(background))
    check_targets(jobs, read, existing)
    reports = []
    for report in run_jobs(pipeline, jobs, options):
        reports.append(report)
        if on_file is not None:
            on_file(report, len(jobs))
    engine = pipeline.engine
    return Summary(tuple(reports), engine.device, engine.name, engine.precision)


def run_jobs(
    pipeline: SaliencyPipeline,
    jobs: Iterable[Job],
    options: Options,
    *,
    is_whole: Callable[[Job], bool] | None = None,
) -> Generator[FileReport]:
    """Read, infer and write at the same time, and yield the reports in the order of the jobs.

    One pool reads and writes, with a thread per core. If files take longer than the network, the pool keeps
    the machine busy; if the network takes longer, the pool mostly waits and leaves the cores to the network.
    If this iterator is closed early, the files being written are finished, and the rest is dropped.

    Args:
        pipeline: The pipeline that makes the saliency maps.
        jobs: The photos and their outputs.
        options: The settings.
        is_whole: A function that is asked when a photo was read. Where it says False, the photo changed in
            the meantime, and is reported as skipped, without an output.
    """
    return stream_photos(
        pipeline,
        jobs,
        lambda job: _read(pipeline, job, options, is_whole),
        lambda job, result: _write(job, result, options),
        cost=lambda job: _pixels(job, options),
    )


def _pixels(job: Job, options: Options) -> int:
    """Count the pixels of a photo by its header, before the photo is read; 0 if unknown."""
    if job.source is None or to_be_skipped(job, options):
        return 0
    height, width = peek_size(job.source) or (0, 0)
    return height * width


def _read(
    pipeline: SaliencyPipeline, job: Job, options: Options, is_whole: Callable[[Job], bool] | None
) -> Prepared | FileReport:
    if to_be_skipped(job, options):
        return _report(job, "skipped")
    map_only = needs_map_only(options)
    try:
        if job.source is None:
            return pipeline.prepare(sys.stdin.buffer, name="standard input", map_only=map_only)
        prepared = pipeline.prepare(job.source, map_only=map_only)
        return prepared if is_whole is None or is_whole(job) else _report(job, "skipped")
    except FAILURES as e:
        return _report(job, "failed", error=reason_of(e, str(job.source or "standard input")))


def needs_map_only(options: Options) -> bool:
    """Tell whether the result needs only the map, not the photo's colours, see `SaliencyPipeline.prepare`."""
    return options.kind == "mask" and options.edges == "soft"


def _write(job: Job, result: SaliencyResult, options: Options) -> FileReport:
    report = _report(job, "written", size=result.size)
    try:
        report = replace(report, confidence=result.confidence, found=result.found)
        data = encode(render(result, options), options.format)
        if job.target is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_file(job.target, data, overwrite=options.existing == "overwrite", sync=options.sync)
    except FileExistsError:
        if options.existing == "skip":
            return replace(report, status="skipped")
        error = f"{job.target} was created by another program during the run, and was not overwritten"
        return replace(report, status="failed", error=error)
    except FAILURES as e:
        return replace(report, status="failed", error=reason_of(e, str(job.target or "standard output")))
    return report


def render(result: SaliencyResult, options: Options) -> Image.Image:
    """Make the picture that the options ask for."""
    if options.label is not None:
        result = result.for_class(options.label)
    edges, cleanup, clean_edges = options.edges, options.cleanup, options.clean_edges
    if options.kind == "mask":
        picture = result.mask(options.threshold, edges=edges, cleanup=cleanup)
    elif options.background is None:
        picture = result.cutout(options.threshold, edges=edges, clean_edges=clean_edges, cleanup=cleanup)
    else:
        picture = result.over(
            options.background, options.threshold, edges=edges, clean_edges=clean_edges, cleanup=cleanup
        )
    box = result.bbox(edges=edges, cleanup=cleanup) if options.crop else None
    return picture if box is None else picture.crop(box)


def _report(
    job: Job,
    status: Status,
    *,
    error: str | None = None,
    size: tuple[int, int] | None = None,
    confidence: float | None = None,
    found: bool | None = None,
) -> FileReport:
    source, target = (str(path) if path is not None else "-" for path in job)
    return FileReport(source, target, status, error, size, confidence, found)


def reason_of(error: BaseException, name: str) -> str:
    """Write the message of an exception with the file's name and without the system's error number."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return reason if name in reason else f"{name}: {reason}"
