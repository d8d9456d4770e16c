"""Make masks or cutouts of millions of photos on a cluster, with Ray; an interrupted run can be continued."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...engines import EngineName, Precision
from ...hub import Source, resolve
from ...imaging import Cleanup, Edges, Format, Photo
from ..pipeline import MinMax
from ..plan import Existing, Kind, Options, choose_format, read_options
from .feed import BlockFeed
from .lease import Lease
from .manifest import Done, Manifest, compare_settings
from .photo_sources import find_photos
from .pool import Progress, WorkerPool
from .remote_files import is_url, list_folder
from .session import open_ray
from .shipped_weights import ShippedWeights, pack_weights
from .worker import WorkerPlan

if TYPE_CHECKING:
    from ..backgrounds import Background
    from ..folders import Status

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterSummary:
    """The outcome of a run on a cluster."""

    written: int
    skipped: int
    """The number of photos that were done before."""
    failed: int
    errors: tuple[tuple[str, str], ...]
    """The paths and the errors of the first photos that failed; the manifest has all."""
    manifest: str
    """The folder of the manifest, a Parquet data set."""
    device: str
    """The device of the first worker; "-" if no photo was left to do, as the following two."""
    engine: str
    precision: str
    seconds: float
    """The time from the first to the last photo."""

    def count(self, status: Status) -> int:
        """Count the photos with a status: "written", "skipped" or "failed"."""
        return {"written": self.written, "skipped": self.skipped, "failed": self.failed}[status]


def run_on_ray(
    source: str | Path,
    destination: str | Path,
    *,
    model: str | Path = "u2netp",
    kind: Kind = "cutout",
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
    format: Format | None = None,
    background: str | Background | None = None,
    threshold: float | None = None,
    crop: bool = False,
    edges: Edges | None = None,
    label: int | str | None = None,
    cleanup: Cleanup | None = None,
    existing: Existing = "refuse",
    column: str | None = None,
    minmax: MinMax | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "exact",
    batch_size: int = 8,
    allow_pickle: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ClusterSummary:
    """Make a mask or a cutout of every photo of a source on a Ray cluster.

    The destination holds a manifest, a Parquet data set with a row for each photo. If a run ends early, the
    same call continues it: photos that are missing or failed are done, the others are counted as skipped.
    A photo that fails is a row with an error. An output is written completely or not at all.

    Args:
        source: A folder, a bucket (`s3://`, `gs://`, `hf://datasets/…`), a shard (.tar, .parquet with
            pictures), a folder of shards, or a list of paths (.txt, .parquet with paths).
        destination: A folder or a bucket, which keeps the tree of the source; or a name that ends in
            ".parquet", for a Parquet data set that holds the pictures.
        model: A source of weights that this machine can read; it sends the files to the others.
        kind: `"mask"` or `"cutout"`, see `run_files`.
        address: "local" for this machine alone, "auto" for the cluster that this machine belongs to, or
            "ray://host:port". None: the Ray that is initialised already, else "local".
        workers: The number of workers; each holds the network once. None: as many as fit, also on machines
            that join later.
        cpus_per_worker: The number of cores of each worker.
        gpus_per_worker: The number of GPUs of each worker; 0.5 lets two workers share one.
        format: The format of the outputs; None for PNG.
        background: See `run_files`, as the following six.
        threshold: Hard edges from this saliency on.
        crop: Whether to crop to the object.
        edges: How edges are made.
        label: The number or the name of a class.
        cleanup: The steps that clean each mask.
        existing: "refuse" a destination that holds files of another run, "overwrite" them and begin anew, or
            "skip" photos whose output exists.
        column: The column of a Parquet file that holds the pictures or the paths; None to find it.
        minmax: Replaces the config's setting.
        device: See `SaliencyPipeline`, as the following three.
        engine: The engine that runs the network.
        precision: The precision of the engine.
        batch_size: The number of photos that the network sees at once.
        allow_pickle: Accept a pickle where a folder or repo holds no other weights.
        on_progress: A function to call about once a second.

    Returns:
        The numbers of photos and the first errors.

    Raises:
        ValueError: An argument is invalid, the source holds no picture, or the destination was made with
            other settings. As with the exceptions below, no photo has been processed.
        FileExistsError: The destination holds files without a manifest, or another run writes to it.
        OSError: The source cannot be read, or the destination cannot be written to.
        ImportError: Ray or another package is not installed.
        ConnectionError: The cluster cannot be reached.
        RuntimeError: The workers cannot start, or die again and again.
    """
    _check_numbers(workers, cpus_per_worker, gpus_per_worker, batch_size)
    options = read_options(
        None,
        kind=kind,
        format=choose_format(format, None, ()),
        background=background,
        threshold=threshold,
        crop=crop,
        edges=edges,
        existing=existing,
        cleanup=cleanup,
    )
    pipeline: dict[str, Any] = {
        "device": "cuda" if gpus_per_worker and device == "auto" else device,
        "engine": engine,
        "precision": precision,
        "batch_size": batch_size,
        "minmax": minmax,
    }
    weights = resolve(model, allow_pickle=allow_pickle)
    # the workers have other current folders
    places = [str(place) if is_url(str(place)) else os.path.abspath(place) for place in (source, destination)]
    run = _Run(places[0], Manifest(places[1]), options, label, pipeline, weights, column)
    return run.start(
        lambda: open_ray(address, cpus_per_worker, gpus_per_worker),
        (workers, cpus_per_worker, gpus_per_worker),
        on_progress,
    )


class _Run:
    """A run that is checked, and ready to start."""

    def __init__(
        self,
        source: str,
        manifest: Manifest,
        options: Options,
        label: int | str | None,
        pipeline: dict[str, Any],
        weights: Source,
        column: str | None,
    ) -> None:
        _check_places(source, manifest.destination)
        self._manifest = manifest
        self._existing = options.existing
        shipped, self._contents = pack_weights(weights)
        self._settings = _settings(source, options, shipped, label, pipeline)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid4().hex[:8]}"
        self._find = partial(
            find_photos, source, options.format, leave_out=manifest.destination, column=column
        )
        self._plan = WorkerPlan(name, manifest, shipped, options, label, pipeline)

    def start(
        self,
        cluster: Callable[[], AbstractContextManager[None]],
        size: tuple[int | None, int, float],
        on_progress: Callable[[Progress], None] | None,
    ) -> ClusterSummary:
        """Process the photos that are left to do.

        Args:
            cluster: A function that opens the cluster; it is called only if there is something to do.
            size: The number of workers, and the numbers of cores and GPUs of each.
            on_progress: A function to call about once a second.
        """
        manifest = self._manifest
        continued = _check_destination(manifest, self._settings, self._existing)
        with Lease(manifest.folder, self._plan.run) as lease:
            feed = BlockFeed(self._find(), manifest.load() if continued else Done(), self._find)
            try:
                feed.start()
                if not feed.has_work():
                    return _summarise(Progress(0, feed.skipped, 0, feed.listed, 0, 0.0, 0.0), manifest)
                with cluster():
                    if not continued:
                        manifest.clear()
                        manifest.write_settings(self._settings)
                    pool = WorkerPool(self._plan, self._contents, feed, lease, size)
                    return _summarise(pool.run(on_progress), manifest, pool.errors, pool.about)
            finally:
                feed.close()


def _check_numbers(workers: int | None, cpus: int, gpus: float, batch_size: int) -> None:
    for name, number in (("workers", workers), ("cpus_per_worker", cpus), ("batch_size", batch_size)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ValueError(f"{name} is {number!r}, expected a whole number from 1")
    if gpus < 0:
        raise ValueError(f"gpus_per_worker is {gpus!r}, expected 0 or more")


def _check_places(source: str, destination: str) -> None:
    """Refuse a destination whose files would be taken for photos of the source, or replace them."""
    if destination.startswith("hf://"):
        raise ValueError(
            f"{destination} would get one commit for each photo; write to a folder, and upload that"
        )
    if not is_url(destination) and os.path.exists(destination) and not os.path.isdir(destination):
        raise FileExistsError(f"{destination} is a file, expected a folder or a name that is not in use")
    if is_url(source) != is_url(destination):
        return
    one, other = (place if is_url(place) else str(Path(place).resolve()) for place in (source, destination))
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    if one.startswith(other):
        raise ValueError(f"{source} lies in the destination {destination}; choose another destination")


def _settings(
    source: str, options: Options, weights: ShippedWeights, label: object, pipeline: dict[str, Any]
) -> dict[str, object]:
    """Return what must be the same for a run to be continued: everything that changes an output."""
    background: object = options.background
    if isinstance(background, Photo):
        background = f"picture {hashlib.sha256(background.rgb.tobytes()).hexdigest()}"
    place = source.rstrip("/") if is_url(source) else str(Path(source).resolve())
    chosen = {name: value for name, value in options._asdict().items() if name not in ("existing", "sync")}
    return {
        **chosen,
        "background": background,
        "cleanup": asdict(options.cleanup),
        "label": label,
        "source": place,
        "weights_sha256": weights.source.sha256,
        "files_sha256": weights.digest,
        **{name: pipeline[name] for name in ("engine", "precision", "minmax")},
    }


def _check_destination(manifest: Manifest, settings: dict[str, object], existing: Existing) -> bool:
    """Refuse a destination that this run would spoil; tell whether this run continues another.

    Raises:
        ValueError: It was made with other settings.
        FileExistsError: It holds files, but no manifest.
    """
    before = None if existing == "overwrite" else manifest.read_settings()
    changed = None if before is None else compare_settings(before, settings)
    if changed == []:
        return True
    held = next((name for name in list_folder(manifest.destination) if not name.startswith("_")), None)
    if changed and (held or manifest.has_rows()):
        raise ValueError(
            f"{manifest.destination} was made with other settings: {'; '.join(changed)}; "
            "choose another destination, or begin anew with --overwrite"
        )
    if held and existing == "refuse":
        raise FileExistsError(
            f"{manifest.destination} holds files already, e.g. {held}, but no manifest of an earlier run; "
            "overwrite them (--overwrite) or skip those photos (--skip-existing)"
        )
    return False


def _summarise(
    progress: Progress,
    manifest: Manifest,
    errors: Sequence[tuple[str, str]] = (),
    about: Mapping[str, str] | None = None,
) -> ClusterSummary:
    about = about or {"device": "-", "engine": "-", "precision": "-"}
    return ClusterSummary(
        progress.written,
        progress.skipped,
        progress.failed,
        tuple(errors),
        manifest.folder,
        about["device"],
        about["engine"],
        about["precision"],
        progress.seconds,
    )
