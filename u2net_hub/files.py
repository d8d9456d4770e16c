"""Folders of photos in, folders of masks or cutouts out: nothing lost, overwritten or half-written."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from PIL import Image

from .backgrounds import parse_colour
from .image import IMAGE_SUFFIXES, load, peek_size
from .pipeline import class_index
from .png import MODES, encode_png

if TYPE_CHECKING:
    from .pipeline import Background, Prepared, SaliencyPipeline, SaliencyResult

Kind: TypeAlias = Literal["mask", "cutout"]
Format: TypeAlias = Literal["png", "webp", "jpg", "tiff"]
Status: TypeAlias = Literal["written", "skipped", "failed"]
Existing: TypeAlias = Literal["refuse", "overwrite", "skip"]

# Pillow's name of each format, and how it is written: nothing but JPEG loses anything
_WRITTEN: dict[Format, tuple[str, dict[str, object]]] = {
    "png": ("PNG", {"compress_level": 1}),  # of the modes that encode_png leaves to Pillow
    "webp": ("WEBP", {"lossless": True, "exact": True}),  # exact: colours stay where alpha is 0
    "jpg": ("JPEG", {"quality": 95}),
    "tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".tiff": "tiff",
    ".tif": "tiff",
}

# What reading or writing one file may raise without stopping the others
_FAILURES = (ValueError, OSError, ImportError, MemoryError)

# Pixels that are read or written ahead for each thread: those of one large photo. They take 4 bytes each, and
# where they are cut out 4 more; by their number alone, 40 photos of 12 megapixels took 2 GB.
_PIXELS_PER_WORKER = 12_500_000

_Sized: TypeAlias = "Prepared | SaliencyResult | FileReport"
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class FileReport:
    """What became of one input."""

    source: str
    """Path of the input, or "-"."""
    target: str
    """Path of the output, or "-"."""
    status: Status
    error: str | None = None
    """Why it failed."""
    size: tuple[int, int] | None = None
    """(height, width) of the photo in pixels."""
    confidence: float | None = None
    """See `SaliencyResult.confidence`."""
    found: bool | None = None
    """Whether there is a salient object in it."""


@dataclass(frozen=True)
class Summary:
    """What became of all inputs, in their order."""

    files: tuple[FileReport, ...]
    device: str
    """Where the network ran."""
    engine: str
    """What ran it, e.g. "openvino"."""
    precision: str
    """How: "exact", "fast" or "int8"."""

    def count(self, status: Status) -> int:
        """How many were "written", "skipped" or "failed"."""
        return sum(file.status == status for file in self.files)


class _Job(NamedTuple):
    source: Path | None
    """None: standard input."""
    target: Path | None
    """None: standard output."""


class _Options(NamedTuple):
    kind: Kind
    format: Format
    background: Background | None
    threshold: float | None
    crop: bool
    clean_edges: bool
    label: int | None
    existing: Existing


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
    clean_edges: bool = False,
    label: int | str | None = None,
    existing: Existing = "refuse",
    on_file: Callable[[FileReport, int], None] | None = None,
) -> Summary:
    """Make the mask or the cutout of every photo, in files.

    Reading, network and writing run beside each other, a few photos at a time, so that a folder of any
    size fits into memory. Each output appears whole or not at all, and none ever replaces an input.

    Args:
        pipeline: makes them.
        inputs: files, folders, or "-" alone for standard input. In a folder every file with a picture's
            suffix is taken, in subfolders too, but no hidden one; links are followed, to each folder once.
        out: a folder, which receives `<relative path>/<stem>.<format>`; for one input file, a file if it
            has a suffix; "-" for standard output. None: beside the input, as `<stem>_mask.png` or
            `<stem>_cutout.png`; what is so named in a folder, beside its source, is then not an input.
        kind: `"mask"`, 8-bit grey (a palette picture for several classes), or `"cutout"`, RGBA.
        format: of the output; None: by the suffix of `out`, else PNG. JPEG only where there is no alpha.
        background: for a cutout, see `SaliencyResult.over`; a str may also be the path of a picture.
        threshold: from 0 to 1, for masks of 0 and 255 and hard edges; None for soft ones.
        crop: to what was found, see `SaliencyResult.bbox`.
        clean_edges: for a cutout, see `SaliencyResult.cutout`.
        label: number or name of one class, of a network with several.
        existing: what to do where an output is there already: refuse the whole run before it starts,
            overwrite it, or skip the photo.
        on_file: called with each report and the number of all files.

    Returns:
        What became of each file. A file that cannot be read or written fails alone.

    Raises:
        ValueError: two inputs would share an output, an output would replace an input, an argument does
            not fit, or there is no picture in the inputs. Here and below, nothing has been written then.
        FileExistsError: outputs are there already, and `existing` is `"refuse"`.
        OSError: an output folder cannot be written to.
    """
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    options = _Options(
        kind,
        _choose_format(format, out, names),
        _read_background(background),
        threshold,
        crop,
        clean_edges,
        None if label is None else class_index(pipeline.config, label),
        existing,
    )
    _check(options)
    jobs = _plan(names, out, options)
    read = [source for source, _ in jobs if source is not None]
    if isinstance(background, str | Path):
        read.append(Path(background))
    _check_targets(jobs, read, existing)
    reports = []
    for report in _run(pipeline, jobs, options):
        reports.append(report)
        if on_file is not None:
            on_file(report, len(jobs))
    engine = pipeline.engine
    return Summary(tuple(reports), engine.device, engine.name, engine.precision)


def _check(options: _Options) -> None:
    if options.kind not in ("mask", "cutout"):
        raise ValueError(f"kind is {options.kind!r}, expected 'mask' or 'cutout'")
    if options.kind == "mask" and options.background is not None:
        raise ValueError("a background is for kind 'cutout', and kind is 'mask'")
    if options.kind == "cutout" and options.background is None and options.format == "jpg":
        raise ValueError("JPEG has no transparency; use png, webp or tiff, or give the cutout a background")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ValueError(f"threshold is {options.threshold!r}, expected 0 to 1")
    if options.existing not in ("refuse", "overwrite", "skip"):
        raise ValueError(f"existing is {options.existing!r}, expected 'refuse', 'overwrite' or 'skip'")


def _choose_format(format: Format | None, out: str | Path | None, names: Sequence[str | Path]) -> Format:
    if format is not None and format not in _WRITTEN:
        raise ValueError(f"unknown format {format!r}, expected one of {list(_WRITTEN)}")
    if out is None or not _is_file(out, names):
        return format or "png"
    found = _FORMAT_OF_SUFFIX.get(Path(out).suffix.lower())
    if found is None:
        raise ValueError(f"{out} has an unknown suffix, expected one of {list(_FORMAT_OF_SUFFIX)}")
    if format not in (None, found):
        raise ValueError(f"{out} is not a name for the format {format!r}; change one of the two")
    return found


def _is_file(out: str | Path, names: Sequence[str | Path]) -> bool:
    """Whether `out` names a file: one input that is no folder, and a suffix."""
    return (
        len(names) == 1 and not Path(names[0]).is_dir() and Path(out).suffix != "" and not Path(out).is_dir()
    )


def _read_background(background: str | Background | None) -> Background | None:
    """A background that is a picture is read once, before work starts."""
    if background is None or (isinstance(background, str) and background == "blur"):
        return background
    if not isinstance(background, str | tuple):
        return load(background, name="background")
    try:
        return parse_colour(background)
    except ValueError:
        if isinstance(background, str) and Path(background).exists():
            return load(background)
        raise ValueError(
            f"background {background!r} is neither a colour ('white', '#ff8800'), nor 'blur', nor a file"
        ) from None


def _plan(names: Sequence[str | Path], out: str | Path | None, options: _Options) -> list[_Job]:
    """Every picture and its output, each pair once, in order."""
    if not names:
        raise ValueError("no input, expected files, folders or '-'")
    if "-" in (str(out), *map(str, names)):
        return [_plan_standard(names, out)]
    jobs: dict[_Job, None] = {}  # a set that keeps its order
    for path in map(Path, names):
        pictures = _walk(path, out) if path.is_dir() else [path]
        for picture in pictures:
            if out is None:
                target = picture.with_name(f"{picture.stem}_{options.kind}.{options.format}")
            elif _is_file(out, names):
                target = Path(out)
            else:
                below = picture.parent.relative_to(path) if path.is_dir() else Path()
                target = Path(out) / below / f"{picture.stem}.{options.format}"
            jobs[_Job(picture, target)] = None
    if not jobs:
        raise ValueError(
            f"no picture in {', '.join(map(str, names))} (looked for {' '.join(IMAGE_SUFFIXES)})"
        )
    return list(jobs)


def _plan_standard(names: Sequence[str | Path], out: str | Path | None) -> _Job:
    if len(names) != 1:
        raise ValueError(f"'-' stands for one picture, and there are {len(names)} inputs")
    name = str(names[0])
    source = None if name == "-" else Path(name)
    target = None if out is None or str(out) == "-" else Path(out)
    if source is not None and source.is_dir():
        raise ValueError(f"{source} is a folder, expected one picture for standard output")
    if target is not None and not _is_file(target, names):
        raise ValueError(
            f"{target} names a folder, and a picture from standard input has no name; give a file"
        )
    if target is None and sys.stdout.isatty():
        raise ValueError(
            "standard output is a terminal; send it to a file or a command, or name an output file"
        )
    return _Job(source, target)


def _walk(folder: Path, out: str | Path | None) -> list[Path]:
    """The pictures below a folder, sorted."""
    visited = set()
    if out is not None and Path(out).is_dir() and not Path(out).samefile(folder):
        visited.add(_identity(Path(out)))  # an output folder inside the input folder holds no inputs
    pictures: list[Path] = []
    folders, links = [folder], deque[Path]()
    while folders or links:
        # links last, so that a picture goes by its own path rather than by a link's
        current = folders.pop() if folders else links.popleft()
        if _identity(current) in visited:
            continue
        visited.add(_identity(current))
        try:
            entries = sorted(entry for entry in current.iterdir() if not entry.name.startswith("."))
        except PermissionError:
            pictures.append(current)  # to be reported, when it cannot be opened
            continue
        for entry in entries:
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry)
            elif entry.suffix.lower() in IMAGE_SUFFIXES and (entry.is_file() or entry.is_symlink()):
                pictures.append(entry)  # a dead link too, to be reported
    pictures.sort()
    return pictures if out is not None else _without_own_outputs(pictures)


def _without_own_outputs(pictures: list[Path]) -> list[Path]:
    """Without what earlier runs put beside its source: no cat_mask.png where there is a cat.jpg."""
    sources = {picture.with_suffix("") for picture in pictures}
    made = {source.with_name(f"{source.name}_{kind}") for source in sources for kind in get_args(Kind)}
    return [picture for picture in pictures if picture.with_suffix("") not in made]


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _check_targets(jobs: Sequence[_Job], read: Iterable[Path], existing: Existing) -> None:
    """Refuse what would lose something, before work starts."""
    inputs = {_identity(path) for path in read if path.exists()}
    folders: dict[Path, str] = {}
    takers: dict[str, Path | None] = {}
    shared, replaced, there = [], [], []
    for source, target in jobs:
        if target is None:
            continue
        if target.parent not in folders:
            _check_folder(target.parent)
            folders[target.parent] = os.path.realpath(target.parent)
        key = os.path.normcase(os.path.join(folders[target.parent], target.name))
        if key in takers:
            shared.append(f"{takers[key]} and {source} to {target}")
        takers[key] = source
        if os.path.lexists(target):
            there.append(str(target))
            if target.exists() and _identity(target) in inputs:
                replaced.append(str(target))
    if shared:
        raise ValueError(f"inputs that would share an output: {_some(shared)}; rename them or run them apart")
    if replaced:
        raise ValueError(
            f"outputs that would replace an input: {_some(replaced)}; choose another output folder"
        )
    if there and existing == "refuse":
        raise FileExistsError(
            f"outputs that are there already: {_some(there)}; "
            "overwrite them (--overwrite) or skip those photos (--skip-existing)"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_folder(folder: Path) -> None:
    """Raise where an output folder cannot be made or written to; it is made when the first output is."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not nearest.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "an output folder cannot be made in what is not a folder", str(nearest)
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the output folder cannot be written to", str(nearest))


def _run(pipeline: SaliencyPipeline, jobs: Sequence[_Job], options: _Options) -> Iterator[FileReport]:
    """Reports in the order of the jobs. Readers, network and writers work beside each other.

    One pool reads and writes: with a thread per core it keeps the machine busy where files take longer than
    the network, and where the network takes longer it mostly waits and leaves the cores to it.
    """
    workers = min(4, os.cpu_count() or 1)
    pixels = workers * _PIXELS_PER_WORKER
    pool = ThreadPoolExecutor(workers, "u2net-files")
    try:
        found = ((job, _pixels(job, options)) for job in jobs)
        read = _map(pool, lambda job: _read(pipeline, job, options), found, pipeline.batch_size, pixels)
        results = ((result, _area(result[1])) for result in _infer(pipeline, read, pixels))
        ahead = max(pipeline.batch_size, workers + 1)
        yield from _map(pool, lambda result: _write(*result, options), results, ahead, pixels)
    finally:
        # after Ctrl-C: what is being written is finished, the rest is dropped
        pool.shutdown(cancel_futures=True)


def _map(
    pool: ThreadPoolExecutor,
    work: Callable[[_T], _R],
    items: Iterable[tuple[_T, int]],
    ahead: int,
    pixels: int,
) -> Iterator[_R]:
    """`map` in threads, in order, over items and their sizes in pixels.

    At most `ahead` items, and `pixels` in all unless one has more, are begun and not yet taken.
    """
    begun: deque[tuple[Future[_R], int]] = deque()
    total = 0
    for item, size in items:
        results = []
        while begun and (len(begun) == ahead or total + size > pixels):
            future, taken = begun.popleft()
            results.append(future.result())
            total -= taken
        begun.append((pool.submit(work, item), size))
        total += size
        while results:  # none is kept here once it is taken
            yield results.pop(0)
    while begun:
        yield begun.popleft()[0].result()


def _pixels(job: _Job, options: _Options) -> int:
    """Of a photo, by its header, before it is read; 0 where that does not say."""
    if job.source is None or _to_be_skipped(job, options):
        return 0
    height, width = peek_size(job.source) or (0, 0)
    return height * width


def _area(each: _Sized) -> int:
    if isinstance(each, FileReport):
        return 0
    height, width = each.photo.size
    return height * width


def _to_be_skipped(job: _Job, options: _Options) -> bool:
    return options.existing == "skip" and job.target is not None and os.path.lexists(job.target)


def _read(pipeline: SaliencyPipeline, job: _Job, options: _Options) -> tuple[_Job, Prepared | FileReport]:
    if _to_be_skipped(job, options):
        return job, _report(job, "skipped")
    map_only = options.kind == "mask"
    try:
        if job.source is None:
            return job, pipeline.prepare(sys.stdin.buffer, name="standard input", map_only=map_only)
        return job, pipeline.prepare(job.source, map_only=map_only)
    except _FAILURES as e:
        return job, _report(job, "failed", error=_reason(e, str(job.source or "standard input")))


def _infer(
    pipeline: SaliencyPipeline, read: Iterator[tuple[_Job, Prepared | FileReport]], pixels: int
) -> Iterator[tuple[_Job, SaliencyResult | FileReport]]:
    """The network on batches of what was read; what could not be read passes by in its place."""
    some: deque[tuple[_Job, Prepared | FileReport]] = deque()
    total = 0
    for job_and_photo in read:
        some.append(job_and_photo)
        total += _area(job_and_photo[1])
        if len(some) == pipeline.batch_size or total >= pixels:
            del job_and_photo
            yield from _infer_batch(pipeline, some)
            total = 0
    yield from _infer_batch(pipeline, some)


def _infer_batch(
    pipeline: SaliencyPipeline, some: deque[tuple[_Job, Prepared | FileReport]]
) -> Iterator[tuple[_Job, SaliencyResult | FileReport]]:
    results = pipeline.run([each for _, each in some if not isinstance(each, FileReport)])
    while some:
        job, each = some.popleft()
        yield job, each if isinstance(each, FileReport) else next(results)


def _write(job: _Job, result: SaliencyResult | FileReport, options: _Options) -> FileReport:
    if isinstance(result, FileReport):
        return result
    report = _report(job, "written", size=result.size, confidence=result.confidence, found=result.found)
    try:
        data = encode(_render(result, options), options.format)
        if job.target is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            _write_whole(data, job.target, overwrite=options.existing == "overwrite")
    except FileExistsError:
        if options.existing == "skip":
            return replace(report, status="skipped")
        error = f"{job.target} has appeared since the run began, and was not overwritten"
        return replace(report, status="failed", error=error)
    except _FAILURES as e:
        return replace(report, status="failed", error=_reason(e, str(job.target or "standard output")))
    return report


def _render(result: SaliencyResult, options: _Options) -> Image.Image:
    if options.label is not None:
        result = result.for_class(options.label)
    if options.kind == "mask":
        picture = result.mask(options.threshold)
    elif options.background is None:
        picture = result.cutout(options.threshold, clean_edges=options.clean_edges)
    else:
        picture = result.over(options.background, options.threshold, clean_edges=options.clean_edges)
    box = result.bbox() if options.crop else None
    return picture if box is None else picture.crop(box)


def encode(picture: Image.Image, format: Format) -> memoryview:
    """A picture as the bytes of a file, lossless but for JPEG, with its ICC profile."""
    name, how = _WRITTEN[format]
    if picture.mode == "P" and name in ("JPEG", "WEBP"):
        picture = picture.convert("RGB")
    if profile := picture.info.get("icc_profile"):
        how = {**how, "icc_profile": profile}
    if format == "png" and picture.mode in MODES:
        return memoryview(encode_png(picture))
    buffer = BytesIO()
    picture.save(buffer, name, **how)
    return buffer.getbuffer()


def _write_whole(data: memoryview, target: Path, *, overwrite: bool) -> None:
    """Write a file that appears with all its content, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".u2net-{secrets.token_hex(8)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
        if overwrite:
            os.replace(unfinished, target)
        else:
            _rename_to_new(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename, but never onto a file that is there: os.rename would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "is there already", str(target)) from None
        os.replace(source, target)


def _report(
    job: _Job,
    status: Status,
    *,
    error: str | None = None,
    size: tuple[int, int] | None = None,
    confidence: float | None = None,
    found: bool | None = None,
) -> FileReport:
    source, target = (str(path) if path is not None else "-" for path in job)
    return FileReport(source, target, status, error, size, confidence, found)


def _reason(error: BaseException, name: str) -> str:
    """What went wrong with the file of that name, in the system's words but without its number."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return reason if name in reason else f"{name}: {reason}"
