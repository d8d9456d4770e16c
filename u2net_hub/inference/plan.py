"""Plan which input becomes which output file, and refuse impossible requests before work starts."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

from ..imaging import (
    FORMAT_OF_SUFFIX,
    IMAGE_SUFFIXES,
    WRITTEN,
    Cleanup,
    Edges,
    Format,
)
from .backgrounds import read_background
from .result import CUTOUT_EDGES, class_index

if TYPE_CHECKING:
    from ..config import U2NetConfig
    from .backgrounds import Background, ReadBackground


_SORTED_AT_ONCE = 10_000

Kind: TypeAlias = Literal["mask", "cutout"]
Existing: TypeAlias = Literal["refuse", "overwrite", "skip"]


class Job(NamedTuple):
    """One photo to process."""

    source: Path | None
    """The file to read; None for standard input."""
    target: Path | None
    """The file to write; None for standard output."""


class Options(NamedTuple):
    """The settings of a run, see `run_files`."""

    kind: Kind
    format: Format
    background: ReadBackground | None
    threshold: float | None
    crop: bool
    edges: Edges
    clean_edges: bool
    label: int | None
    existing: Existing
    cleanup: Cleanup
    sync: bool
    """Whether each output is on the disk before it is reported."""


def read_options(
    config: U2NetConfig | None,
    *,
    kind: Kind = "cutout",
    format: Format,
    background: str | Background | None = None,
    threshold: float | None = None,
    crop: bool = False,
    edges: Edges | None = None,
    clean_edges: bool = False,
    label: int | str | None = None,
    existing: Existing = "refuse",
    cleanup: Cleanup | None = None,
    sync: bool = False,
) -> Options:
    """Read and check the settings of a run, see `run_files`; without a config there can be no label.

    Raises:
        ValueError: A setting is invalid, or two settings exclude each other.
        OSError: The background is a file that cannot be read.
    """
    options = Options(
        kind,
        format,
        None if background is None else read_background(background),
        threshold,
        crop,
        edges or (CUTOUT_EDGES if kind == "cutout" else "soft"),
        clean_edges,
        None if label is None or config is None else class_index(config, label),
        existing,
        cleanup or Cleanup(),
        sync,
    )
    check_options(options)
    return options


def check_options(options: Options) -> None:
    """Raise a ValueError if an option is invalid, or if two options exclude each other."""
    if options.kind not in ("mask", "cutout"):
        raise ValueError(f"kind is {options.kind!r}, expected 'mask' or 'cutout'")
    if options.kind == "mask" and options.background is not None:
        raise ValueError("a background is for kind 'cutout', and kind is 'mask'")
    if options.kind == "cutout" and options.background is None and options.format == "jpg":
        raise ValueError("JPEG has no transparency; use png, webp or tiff, or give the cutout a background")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ValueError(f"threshold is {options.threshold!r}, expected 0 to 1")
    if options.edges not in get_args(Edges):
        raise ValueError(f"unknown edges {options.edges!r}, expected one of {list(get_args(Edges))}")
    if options.existing not in ("refuse", "overwrite", "skip"):
        raise ValueError(f"existing is {options.existing!r}, expected 'refuse', 'overwrite' or 'skip'")


def choose_format(format: Format | None, out: str | Path | None, names: Sequence[str | Path]) -> Format:
    """Choose the format of the outputs: the requested one, else that of the output's suffix, else PNG."""
    if format is not None and format not in WRITTEN:
        raise ValueError(f"unknown format {format!r}, expected one of {list(WRITTEN)}")
    if out is None or not _is_file(out, names):
        return format or "png"
    found = FORMAT_OF_SUFFIX.get(Path(out).suffix.lower())
    if found is None:
        raise ValueError(f"{out} has an unknown suffix, expected one of {list(FORMAT_OF_SUFFIX)}")
    if format not in (None, found):
        raise ValueError(f"{out} is not a name for the format {format!r}; change one of the two")
    return found


def _is_file(out: str | Path, names: Sequence[str | Path]) -> bool:
    """Tell whether `out` names a file: there is one input, it is not a folder, and `out` has a suffix."""
    return (
        len(names) == 1 and not Path(names[0]).is_dir() and Path(out).suffix != "" and not Path(out).is_dir()
    )


def plan_jobs(names: Sequence[str | Path], out: str | Path | None, options: Options) -> list[Job]:
    """Make a job for each picture, without duplicates, in the order of the inputs.

    Raises:
        ValueError: There are no inputs or no pictures in them, or "-" cannot be used with these names.
    """
    if not names:
        raise ValueError("no input, expected files, folders or '-'")
    if "-" in (str(out), *map(str, names)):
        return [_plan_standard(names, out)]
    jobs: dict[Job, None] = {}  # an ordered set
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
            jobs[Job(picture, target)] = None
    if not jobs:
        raise ValueError(
            f"no picture in {', '.join(map(str, names))} (looked for {' '.join(IMAGE_SUFFIXES)})"
        )
    return list(jobs)


def _plan_standard(names: Sequence[str | Path], out: str | Path | None) -> Job:
    """Make the job that reads standard input or writes standard output."""
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
    return Job(source, target)


def _walk(folder: Path, out: str | Path | None) -> list[Path]:
    """List the pictures in a folder and its subfolders, sorted."""
    pictures = sorted(walk_files(folder, out))
    return pictures if out is not None else _without_own_outputs(pictures)


def walk_files(
    folder: Path, out: str | Path | None, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> Iterator[Path]:
    """Yield the files with these suffixes in a folder and its subfolders, except hidden ones.

    Args:
        folder: The folder. Links in it are followed, to each folder once.
        out: An output folder, which holds no inputs if it lies inside the folder.
        suffixes: The suffixes in lower case.
    """
    visited = set()
    if out is not None and Path(out).is_dir() and not Path(out).samefile(folder):
        visited.add(_identity(Path(out)))
    folders, links = [folder], deque[Path]()
    while folders or links:
        # Links come last, so that a picture is listed under its own path, not under a link's.
        current = folders.pop() if folders else links.popleft()
        if _identity(current) in visited:
            continue
        visited.add(_identity(current))
        try:
            scanned = os.scandir(current)
        except PermissionError:
            yield current  # opening it fails later, and the failure is reported
            continue
        with scanned:
            # sorted in parts, because the names of a very large folder need not fit into memory
            while part := sorted(islice(scanned, _SORTED_AT_ONCE), key=lambda entry: entry.name):
                for entry in part:
                    if entry.name.startswith("."):
                        continue
                    path = current / entry.name
                    link = entry.is_symlink()  # one to itself, whose target no DirEntry can tell
                    if path.is_dir() if link else entry.is_dir():
                        (links if link else folders).append(path)
                    elif path.suffix.lower() in suffixes and (path.is_file() or not path.exists()):
                        yield path  # a dead link too, whose failure is reported later


def _without_own_outputs(pictures: list[Path]) -> list[Path]:
    """Leave out the outputs of earlier runs beside their source, e.g. cat_mask.png if there is a cat.jpg."""
    sources = {picture.with_suffix("") for picture in pictures}
    made = {source.with_name(f"{source.name}_{kind}") for source in sources for kind in get_args(Kind)}
    return [picture for picture in pictures if picture.with_suffix("") not in made]


def _identity(path: Path) -> tuple[int, int]:
    """Return the device and the inode of a file. They are the same for every link to it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def check_targets(jobs: Sequence[Job], read: Iterable[Path], existing: Existing) -> None:
    """Refuse a run that would lose a file, before work starts.

    Raises:
        ValueError: Two inputs share an output, or an output would replace an input.
        FileExistsError: An output exists, and `existing` is "refuse".
        OSError: An output folder cannot be made or written to.
    """
    inputs = {_identity(path) for path in read if path.exists()}
    folders: dict[Path, str] = {}
    takers: dict[str, Path | None] = {}
    shared, replaced, there = [], [], []
    for source, target in jobs:
        if target is None:
            continue
        if target.parent not in folders:
            check_out_folder(target.parent)
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
        raise ValueError(
            f"several inputs would share an output: {_some(shared)}; rename them or run them apart"
        )
    if replaced:
        raise ValueError(f"outputs would replace an input: {_some(replaced)}; choose another output folder")
    if there and existing == "refuse":
        raise FileExistsError(
            f"outputs are there already: {_some(there)}; "
            "overwrite them (--overwrite) or skip those photos (--skip-existing)"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_out_folder(folder: Path) -> None:
    """Raise if an output folder cannot be made or written to. Only the first output really makes it."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not nearest.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "the output folder cannot be made inside a file", str(nearest)
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the output folder cannot be written to", str(nearest))


def to_be_skipped(job: Job, options: Options) -> bool:
    """Tell whether a job is skipped, because its output exists and `existing` is "skip"."""
    return options.existing == "skip" and job.target is not None and os.path.lexists(job.target)
