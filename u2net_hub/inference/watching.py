"""Make masks or cutouts of the photos that arrive in a folder.

The folder is looked through again and again. The events of the operating system would be quicker, but they
are not sent for changes that another machine makes on a network drive, they are lost when too many come at
once, and they do not say when a file is complete. So a program that uses them has to look through the folder
as well.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from ..imaging import IMAGE_SUFFIXES, Cleanup, Edges, Format
from .folders import FileReport, run_jobs
from .journal import Entry, Journal, Look
from .plan import Existing, Job, Kind, Options, check_out_folder, choose_format, read_options

if TYPE_CHECKING:
    from .backgrounds import Background
    from .pipeline import SaliencyPipeline

logger = logging.getLogger(__name__)

# Seconds until a photo is tried again whose file could not be opened, or whose output could not be written
_RETRY = 60.0
# The pause between two looks is at least this many times as long as a look takes.
_REST = 4


def watch_files(
    pipeline: SaliencyPipeline,
    folder: str | Path,
    out: str | Path,
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
    on_file: Callable[[FileReport], None] | None = None,
    stop: Event | None = None,
    interval: float = 1.0,
) -> None:
    """Make a mask or a cutout of every photo in a folder, and of those that arrive there, until stopped.

    A photo is taken when its file has had the same size and time at two looks, and did not change while it
    was read. What became of it is kept in a journal in the output folder. A photo that is in the journal is
    not done again after a restart; one that failed is tried again when its file changes.

    Args:
        pipeline: The pipeline that makes the saliency maps.
        folder: The folder; its subfolders are watched too. Hidden files and the output folder are not.
        out: The folder for the outputs, see `run_files`.
        kind: See `run_files`.
        format: See `run_files`; None is PNG.
        background: See `run_files`.
        threshold: See `run_files`.
        crop: See `run_files`.
        edges: See `run_files`.
        clean_edges: See `run_files`.
        label: See `run_files`.
        existing: What to do if an output exists, also because its photo was changed: "overwrite" it, "skip"
            the photo, or "refuse", which is to skip it with a reason.
        cleanup: See `run_files`.
        on_file: A function to call with each report.
        stop: An event that ends the function. The files being written are finished, as after Ctrl-C.
        interval: The seconds between two looks, or longer for a folder that takes long to look through.

    Raises:
        ValueError: An argument is invalid, or the output folder is the folder or one above it.
        OSError: The folder cannot be read, or the output folder cannot be written to.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder, expected one to watch")
    if not interval > 0:
        raise ValueError(f"interval is {interval!r}, expected seconds above 0")
    if os.path.realpath(folder).startswith(os.path.join(os.path.realpath(out), "")) or (
        out.exists() and out.samefile(folder)
    ):
        raise ValueError(f"outputs in {out} would be taken for photos of {folder}; choose another --out")
    options = read_options(
        pipeline.config,
        kind=kind,
        format=choose_format(format, None, [folder]),
        background=background,
        threshold=threshold,
        crop=crop,
        edges=edges,
        clean_edges=clean_edges,
        label=label,
        existing=existing,
        cleanup=cleanup,
        sync=True,
    )
    check_out_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    stop = stop or Event()
    watch = _Watch(pipeline, folder, out, options)
    while not stop.is_set():
        began = time.monotonic()
        ready = watch.look()
        took = time.monotonic() - began
        with closing(watch.work(ready)) as reports:
            for report in reports:
                if on_file is not None:
                    on_file(report)
                if stop.is_set():
                    break
        stop.wait(max(interval, _REST * took))


class _Watch:
    """A watched folder with its journal."""

    def __init__(self, pipeline: SaliencyPipeline, folder: Path, out: Path, options: Options) -> None:
        self._pipeline = pipeline
        self._folder = Path(os.path.abspath(folder))  # the journal holds these paths
        self._out = Path(os.path.abspath(out))
        self._real_out = os.path.realpath(out)
        self._options = options
        self._journal = Journal(self._out / f".u2net-{options.kind}.jsonl")
        self._makers = {
            entry.target: entry.source
            for entry in self._journal.entries.values()
            if entry.status in ("started", "written")
        }
        """The photo of each output that was made or is being made."""
        self._looks: dict[str, Look] = {}
        self._retry: dict[str, float] = {}
        self._complained: set[str] = set()

    def look(self) -> list[str]:
        """Find the photos that are not done, and that have not changed since the last look; oldest first."""
        looks = {}
        for path, look in _scan(self._folder, self._out, self._complain):
            entry = self._journal.entries.get(path)
            if entry is None or entry.look != look or entry.status == "started":
                looks[path] = look
        now = time.monotonic()
        same = [path for path, look in looks.items() if self._looks.get(path) == look]
        self._looks = looks
        self._retry = {path: at for path, at in self._retry.items() if path in looks and at > now}
        return sorted((path for path in same if path not in self._retry), key=lambda p: (looks[p][1], p))

    def work(self, ready: list[str]) -> Generator[FileReport]:
        """Do photos, and yield a report for each that is done or failed."""
        jobs = []
        starts = []
        for path in ready:
            target = self._target(Path(path))
            if self._is_made(path, target):
                continue
            report = self._refuse(path, target)
            if report is not None:
                self._journal.add([Entry(path, self._looks[path], report.status, str(target))])
                yield report
            else:
                jobs.append(Job(Path(path), target))
                starts.append(Entry(path, self._looks[path], "started", str(target), _look(str(target))))
                self._makers[str(target)] = path
        if jobs:
            self._journal.add(starts)
            options = self._options
            with closing(run_jobs(self._pipeline, jobs, options, is_whole=self._is_whole)) as reports:
                for report in reports:
                    if self._keep(report):
                        yield report

    def _target(self, source: Path) -> Path:
        below = source.parent.relative_to(self._folder)
        return self._out / below / f"{source.stem}.{self._options.format}"

    def _refuse(self, path: str, target: Path) -> FileReport | None:
        """Return the report of a photo that has no place for its output."""
        maker = self._makers.get(str(target))
        if maker not in (None, path) and os.path.lexists(str(maker)):
            error = f"{path} and {maker} would share the output {target}; rename one of them"
            return FileReport(path, str(target), "failed", error)
        real = os.path.realpath(target.parent)
        if not os.path.join(real, "").startswith(os.path.join(self._real_out, "")):
            error = f"{target} leads out of the output folder {self._out} by a link; remove the link"
            return FileReport(path, str(target), "failed", error)
        if not os.path.lexists(target) or self._options.existing == "overwrite":
            return None
        error = f"{target} exists already, and {path} was skipped; --overwrite replaces outputs"
        return FileReport(path, str(target), "skipped", None if self._options.existing == "skip" else error)

    def _is_made(self, path: str, target: Path) -> bool:
        """Tell whether the output of a photo was written by a run that was stopped before it said so."""
        entry = self._journal.entries.get(path)
        there = _look(str(target))
        if (
            entry is None
            or entry.status != "started"
            or (entry.look, entry.target) != (self._looks[path], str(target))
            or there in (None, entry.before)
        ):
            return False
        self._journal.add([entry._replace(status="written")])
        return True

    def _is_whole(self, job: Job) -> bool:
        path = str(job.source)
        return _look(path) == self._looks[path]

    def _keep(self, report: FileReport) -> bool:
        """Write a report into the journal; return False for a photo that is to be tried again."""
        path, target = report.source, report.target
        if report.status != "written":
            if _look(path) != self._looks[path]:
                return False  # it is still being written, or it is gone
            if report.status == "skipped" and not os.path.lexists(target):
                return False
            if report.status == "failed" and (report.size is not None or not _can_open(path)):
                # not the photo's fault
                self._retry[path] = time.monotonic() + _RETRY
                return self._complain_once(f"{path}: {report.error}")
        self._journal.add([Entry(path, self._looks[path], report.status, target)])
        if report.status != "written" and self._makers.get(target) == path:
            del self._makers[target]
        return True

    def _complain(self, message: str) -> None:
        if self._complain_once(message):
            logger.warning("%s", message)

    def _complain_once(self, message: str) -> bool:
        """Tell whether a message is new."""
        new = message not in self._complained
        self._complained.add(message)
        return new


def _scan(folder: Path, out: Path, complain: Callable[[str], None]) -> Iterator[tuple[str, Look]]:
    """Yield the pictures in a folder and its subfolders, without hidden files and the output folder."""
    try:
        visited = {_identity(out)}
    except OSError:
        visited = set()
    folders = [str(folder)]
    while folders:
        current = folders.pop()
        try:
            identity = _identity(current)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                        look = _look(entry.path)
                        if look is not None:
                            yield entry.path, look
        except FileNotFoundError as e:
            if current == str(folder):
                complain(f"the watched folder {folder} is gone: {e.strerror}")
        except OSError as e:
            complain(f"the folder {current} cannot be read: {e.strerror}")


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _look(path: str) -> Look | None:
    """Return the size and the time of a file; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _can_open(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True
