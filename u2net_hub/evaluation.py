"""Scores of a network, or of maps given as files, on data sets; with curves and sheets of pictures."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import __version__, metrics
from . import image as im
from .data import SaliencyDataset, read_image, read_mask
from .metrics import ImageScores
from .pairing import pictures_by_stem
from .results import DatasetScores, Results, file_name
from .sheet import Entry, draw_sheet

if TYPE_CHECKING:
    from .pipeline import SaliencyPipeline

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Confusion = npt.NDArray[np.int64]
Data: TypeAlias = "SaliencyDataset | str | Path"

# Of one photo: probabilities (h, w) of a network, class numbers (H, W), or a file of either.
_Map: TypeAlias = "Float32 | UInt8 | Path"
_Maps: TypeAlias = Callable[[Iterable[int]], Iterable[_Map]]
_R = TypeVar("_R")

_SHEET_ROWS = 6
_PLOTS = (("precision_recall", "recall", "precision"), ("f_threshold", "threshold", "f_measure"))


def evaluate(
    pipeline: SaliencyPipeline,
    dataset: Data | Sequence[Data],
    *,
    out: str | Path | None = None,
    hce: bool = False,
    workers: int | None = None,
    weights_sha256: str | None = None,
    command: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Results:
    """Score a network on one or several data sets.

    Each map is stretched by the official min–max (whatever the pipeline does with its own results), resized
    to the ground truth's size by Pillow's bilinear filter, and rounded to 8 bit. A network with several
    classes is scored by the IoU of each.

    Processes of their own score while the network runs, so a script that calls this has to do so under
    `if __name__ == "__main__":`, or with `workers=0`.

    Args:
        pipeline: What makes the maps.
        dataset: Data sets, or their folders or list files.
        out: Folder for results.json, curves.npz, and, of each set, the scores of each picture (.csv), plots
            of the curves, and a sheet of the best and worst pictures.
        hce: Also count the human correction effort, made for the DIS sets.
        workers: Processes that score; 0 scores in this one. By default one per core.
        weights_sha256: Of the file of weights, for results.json.
        command: Likewise.
        progress: Called with 1 after each picture.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a file is damaged, or a data set does not fit the network.
        ImportError: pysodmetrics or matplotlib is not installed.
        RuntimeError: the processes that score could not start, or died.
    """
    config = pipeline.config
    classes = config.out_channels if config.out_channels > 1 else None
    labels = None if classes is None else list(config.labels or map(str, range(classes)))

    def maps_of(dataset: SaliencyDataset) -> _Maps:
        def maps(indices: Iterable[int]) -> Iterator[_Map]:
            for result in pipeline(dataset.pairs[i].image for i in indices):
                yield result.probability if result.labels is None else result.labels

        return maps

    tasks = []
    for each in _opened(dataset, classes):
        if each.classes != classes:
            raise ValueError(
                f"{each.name} has {each.classes or 1} classes, but the network makes {classes or 1}; "
                "say how many with SaliencyDataset(…, classes=…)"
            )
        tasks.append(_Task(each, maps_of(each), labels))
    results = _score(tasks, hce=hce, workers=workers, progress=progress)
    return _finish(replace(results, weights_sha256=weights_sha256, command=command), tasks, out)


def evaluate_maps(
    maps: str | Path,
    dataset: Data | Sequence[Data],
    *,
    out: str | Path | None = None,
    hce: bool = False,
    workers: int | None = None,
    command: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Results:
    """Score maps that lie in a folder, one per photo and of its name: like `evaluate`.

    Maps of several classes, for a data set with classes, hold class numbers.

    Raises:
        FileNotFoundError: there is no such folder, or no map for a photo.
    """
    folder = Path(maps)
    files = pictures_by_stem(folder)
    tasks = []
    for each in _opened(dataset, None):
        missing = [pair.name for pair in each.pairs if pair.name not in files]
        if missing:
            raise FileNotFoundError(
                f"no map for {missing[0]} in {folder} (looked for {missing[0]}.png, …), nor for "
                f"{len(missing) - 1} more of the {len(each)} photos of {each.name}"
            )
        chosen = [files[pair.name] for pair in each.pairs]
        labels = None if each.classes is None else [str(i) for i in range(each.classes)]
        tasks.append(_Task(each, partial(map, chosen.__getitem__), labels))
    results = _score(tasks, hce=hce, workers=workers, progress=progress)
    return _finish(replace(results, command=command), tasks, out)


def plot_curves(models: Mapping[str, Results], out: str | Path) -> list[Path]:
    """Draw precision over recall and F over the threshold: a plot for each data set, a line for each model.

    Args:
        models: Results with curves, by what the legend calls them.
        out: Folder for `<data set>_precision_recall.png` and `<data set>_f_threshold.png`.

    Returns:
        The files written.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError("plots need matplotlib; install it with: pip install 'u2net-hub[eval]'") from e
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    for dataset in dict.fromkeys(name for results in models.values() for name in results.datasets):
        rows = {name: results.datasets.get(dataset) for name, results in models.items()}
        lines = {name: row for name, row in rows.items() if row is not None and row.curves}
        for kind, x, y in _PLOTS if lines else ():
            figure = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")
            axes = figure.subplots()
            for name, row in lines.items():
                label = f"maxF {row.scores['max_f']:.3f}, MAE {row.scores['mae']:.3f}"
                curves = {"threshold": np.arange(256), **row.curves}
                axes.plot(curves[x], curves[y], label=f"{name}: {label}" if name else label)
            axes.set(title=f"{dataset}, {max(row.n for row in lines.values()):,} pictures")
            axes.set(xlabel=x, ylabel=y if y == "precision" else "F-measure (β² = 0.3)")
            axes.set(xlim=(0, 255 if x == "threshold" else 1.01), ylim=(0, 1.01))
            axes.grid(alpha=0.3)
            axes.legend(loc="lower center", fontsize="small")
            path = Path(out) / f"{file_name(dataset)}_{kind}.png"
            figure.savefig(path)
            written.append(path)
    return written


class _Task(NamedTuple):
    """A data set to score, and what to score on it."""

    dataset: SaliencyDataset
    maps: _Maps
    """The maps of the pairs at some places."""
    labels: list[str] | None
    """Names of the classes, where there are several."""


def _opened(dataset: Data | Sequence[Data], classes: int | None) -> list[SaliencyDataset]:
    several = [dataset] if isinstance(dataset, SaliencyDataset | str | Path) else dataset
    opened = [
        each if isinstance(each, SaliencyDataset) else SaliencyDataset(each, classes=classes)
        for each in several
    ]
    names = [each.name for each in opened]
    if len(set(names)) < len(names) or not names:
        raise ValueError(
            f"got data sets named {names}, expected at least one, and a name of its own for each"
        )
    return opened


def _score(
    tasks: Sequence[_Task], *, hce: bool, workers: int | None, progress: Callable[[int], object] | None
) -> Results:
    scores = {}
    for dataset, maps, labels in tasks:
        masks = [dataset.mask_path(i) for i in range(len(dataset))]
        jobs = zip(maps(range(len(dataset))), masks, strict=True)
        names = [pair.name for pair in dataset.pairs]
        if labels is None:
            done = _beside(partial(_score_saliency, hce=hce), jobs, workers)
            scores[dataset.name] = _summary(names, list(_ticking(done, progress)))
        else:
            counted = _beside(partial(_score_labels, classes=len(labels)), jobs, workers)
            scores[dataset.name] = _class_summary(names, list(_ticking(counted, progress)), labels)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Results(scores, versions=_versions(), date=date)


def _ticking(items: Iterable[_R], progress: Callable[[int], object] | None) -> Iterator[_R]:
    for item in items:
        yield item
        if progress is not None:
            progress(1)


def _score_saliency(given: _Map, mask: Path, *, hce: bool) -> ImageScores:
    gt = read_mask(mask)
    return metrics.score_image(_saliency(given, gt.shape), gt, hce=hce)


def _score_labels(given: _Map, mask: Path, *, classes: int) -> Confusion:
    gt = read_mask(mask, classes=classes)
    return metrics.confusion(_labels(given, gt.shape, classes), gt, classes=classes)


def _saliency(given: _Map, size: tuple[int, ...]) -> UInt8:
    """A map as it is scored: 8 bit at the ground truth's size (H, W)."""
    height, width = size
    if isinstance(given, Path):
        picture = Image.fromarray(read_mask(given))
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    stretched = im.postprocess(given.astype(np.float32, copy=False), (height, width), minmax="always")
    return np.rint(stretched * 255).astype(np.uint8)


def _labels(given: _Map, size: tuple[int, ...], classes: int) -> UInt8:
    """Class numbers at the ground truth's size (H, W)."""
    height, width = size
    picture = Image.fromarray(read_mask(given, classes=classes) if isinstance(given, Path) else given)
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))


def _summary(names: Sequence[str], done: Sequence[ImageScores]) -> DatasetScores:
    summary, curves = metrics.summarise(done)
    pictures = [(name, image.row()) for name, image in zip(names, done, strict=True)]
    return DatasetScores(len(done), summary, curves=curves._asdict(), pictures=pictures)


def _class_summary(names: Sequence[str], done: Sequence[Confusion], labels: Sequence[str]) -> DatasetScores:
    iou = metrics.iou_per_class(np.sum(done, axis=0))
    means = [_mean_iou(metrics.iou_per_class(image)) for image in done]
    pictures = [(name, {"mean_iou": mean}) for name, mean in zip(names, means, strict=True)]
    by_label = dict(zip(labels, iou, strict=True))
    return DatasetScores(len(done), {"mean_iou": _mean_iou(iou)}, iou=by_label, pictures=pictures)


def _mean_iou(iou: Sequence[float | None]) -> float:
    """Over the classes that are there; 1 where none is, for nothing is wrong then."""
    there = [value for value in iou if value is not None]
    return float(np.mean(there)) if there else 1.0


def _beside(
    function: Callable[..., _R], jobs: Iterable[tuple[object, ...]], workers: int | None
) -> Iterator[_R]:
    """Call a function in other processes while the jobs are still being made; results in order.

    Only a few jobs wait at a time, so that maps do not pile up in memory.
    """
    if workers == 0:
        yield from (function(*job) for job in jobs)
        return
    workers = workers or os.cpu_count() or 1
    # spawn: a fork of a process that runs torch's threads may hang
    with ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts) as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, *job))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as e:
            raise RuntimeError(
                "the processes that score died or could not start; a script has to call this under "
                '`if __name__ == "__main__":`, or with workers=0'
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that shows the progress."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _versions() -> dict[str, str]:
    loaded = [name for name in ("torch", "onnxruntime", "openvino") if name in sys.modules]
    packages = {name: version(name) for name in ("numpy", "pillow", "pysodmetrics", *loaded)}
    return {"python": platform.python_version(), "u2net-hub": __version__} | packages


def _finish(results: Results, tasks: Sequence[_Task], out: str | Path | None) -> Results:
    """Write everything, where that is wanted."""
    if out is not None:
        results.save(out)
        plot_curves({"": results}, out)
        for task in tasks:
            name = task.dataset.name
            sheet = _best_and_worst(task, results.datasets[name])
            sheet.save(Path(out) / f"{file_name(name)}_best_worst.png")
    return results


def _best_and_worst(task: _Task, scores: DatasetScores) -> Image.Image:
    """Photo, ground truth and map of the best pictures on the left and of the worst on the right."""
    dataset, classes = task.dataset, task.dataset.classes
    measure = "s_measure" if classes is None else "mean_iou"
    order = sorted(range(scores.n), key=lambda i: -scores.pictures[i][1][measure])
    rows = min(_SHEET_ROWS, max(scores.n // 2, 1))
    chosen = [i for both in zip(order[:rows], order[::-1][:rows], strict=True) for i in both]
    entries = []
    for i, given in zip(chosen, task.maps(chosen), strict=True):
        gt = read_mask(dataset.mask_path(i), classes=classes)
        found = _saliency(given, gt.shape) if classes is None else _labels(given, gt.shape, classes)
        photo = Image.fromarray(read_image(dataset.pairs[i].image))
        caption = f"{scores.pictures[i][1][measure]:.3f}  {dataset.pairs[i].name}"
        entries.append(Entry([photo, _shown(gt, classes), _shown(found, classes)], caption))
    title = f"{dataset.name}: photo, ground truth, map; best on the left, worst on the right, by {measure}"
    return draw_sheet(entries, columns=2, title=title)


def _shown(values: UInt8, classes: int | None) -> Image.Image:
    picture = Image.fromarray(values)
    if classes is not None:
        picture = picture.convert("P")
        picture.putpalette(im.palette())
    return picture
