"""Score a network, or a folder of maps, on data sets; write the scores, curves and sheets of pictures."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from .. import __version__, imaging as im
from ..atomic import file_name
from ..config import U2NetConfig
from ..datasets import SaliencyDataset, pictures_by_stem, read_image, read_mask
from ..imaging import Entry, draw_sheet
from . import metrics
from .metrics import ImageScores
from .plots import plot_curves
from .results import DatasetScores, Results
from .workers import Result, map_in_processes

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Confusion = npt.NDArray[np.int64]
Data: TypeAlias = "SaliencyDataset | str | Path"

# The map of one photo: a network's probabilities (h, w), class numbers (H, W), or a file with one of the two.
_Map: TypeAlias = "Float32 | UInt8 | Path"
_Maps: TypeAlias = Callable[[Iterable[int]], Iterable[_Map]]

_SHEET_ROWS = 6


class MapsOfPhoto(Protocol):
    """The maps of one photo; `SaliencyResult` is such an object."""

    @property
    def probability(self) -> Float32:
        """The network's map before min–max: float32 (h, w) in [0, 1], at the network's own size."""

    @property
    def labels(self) -> UInt8 | None:
        """The most probable class of each pixel: uint8 (H, W); None if the network has one output channel."""


class MapMaker(Protocol):
    """An object that makes maps of photos; `SaliencyPipeline` is one."""

    @property
    def config(self) -> U2NetConfig:
        """The config of the network, which tells whether the maps are saliency or classes."""

    @property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the file of weights, in hexadecimal; None for a network that is only in memory."""

    def __call__(self, images: Iterator[Path], /) -> Iterator[MapsOfPhoto]:
        """Yield the maps of the photos, in order."""


def evaluate(
    pipeline: MapMaker,
    dataset: Data | Sequence[Data],
    *,
    out: str | Path | None = None,
    hce: bool = False,
    workers: int | None = 0,
    weights_sha256: str | None = None,
    command: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Results:
    """Score a network on one or several data sets.

    Each map is stretched by the official min–max (whatever the pipeline does with its own results), resized
    to the ground truth's size by Pillow's bilinear filter, and rounded to 8 bit. A network with several
    classes is scored by the IoU of each.

    Args:
        pipeline: The pipeline that makes the maps.
        dataset: One or several data sets, or their folders or list files.
        out: The folder to write into: results.json, curves.npz, and for each data set the scores of each
            picture (.csv), plots of the curves, and a sheet of the best and worst pictures.
        hce: Whether to count the human correction effort too, a measure that was designed for DIS5K.
        workers: The number of processes that compute scores while the network runs; None starts one per core.
            With 0, this process computes them. A script that asks for other processes must call this function
            under `if __name__ == "__main__":`.
        weights_sha256: The SHA-256 of the file of weights, for results.json. By default it is the pipeline's.
        command: The command line that results.json records.
        progress: A function that is called with 1 after each picture.

    Raises:
        OSError: A file cannot be opened.
        ValueError: A file is damaged, or a data set does not fit the network.
        ImportError: pysodmetrics or matplotlib is not installed.
        RuntimeError: The processes that compute scores could not start, or died.
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
    sha256 = pipeline.weights_sha256 if weights_sha256 is None else weights_sha256
    return _finish(replace(results, weights_sha256=sha256, command=command), tasks, out)


def evaluate_maps(
    maps: str | Path,
    dataset: Data | Sequence[Data],
    *,
    out: str | Path | None = None,
    hce: bool = False,
    workers: int | None = 0,
    command: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Results:
    """Score the maps in a folder, which holds one map for each photo, with the same name.

    The arguments are those of `evaluate`. For a data set with classes, the maps hold class numbers.

    Raises:
        FileNotFoundError: The folder does not exist, or a photo has no map in it.
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


class _Task(NamedTuple):
    """A data set to score, and the function that gives the maps of its photos."""

    dataset: SaliencyDataset
    maps: _Maps
    """A function from the indices of pairs to their maps."""
    labels: list[str] | None
    """The names of the classes; None for saliency."""


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
            done = map_in_processes(partial(_score_saliency, hce=hce), jobs, workers)
            scores[dataset.name] = _summary(names, list(_ticking(done, progress)))
        else:
            counted = map_in_processes(partial(_score_labels, classes=len(labels)), jobs, workers)
            scores[dataset.name] = _class_summary(names, list(_ticking(counted, progress)), labels)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Results(scores, versions=_versions(), date=date)


def _ticking(items: Iterable[Result], progress: Callable[[int], object] | None) -> Iterator[Result]:
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
    """Return a map in the form that is scored: 8 bits, resized to the ground truth's size (H, W)."""
    height, width = size
    if isinstance(given, Path):
        picture = Image.fromarray(read_mask(given))
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    stretched = im.postprocess(given.astype(np.float32, copy=False), (height, width), minmax="always")
    return np.rint(stretched * 255).astype(np.uint8)


def _labels(given: _Map, size: tuple[int, ...], classes: int) -> UInt8:
    """Return the class numbers at the ground truth's size (H, W)."""
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
    """Average the IoU over the classes that occur; 1 if none occurs, because then no pixel is wrong."""
    there = [value for value in iou if value is not None]
    return float(np.mean(there)) if there else 1.0


def _versions() -> dict[str, str]:
    loaded = [name for name in ("torch", "onnxruntime", "openvino") if name in sys.modules]
    packages = {name: version(name) for name in ("numpy", "pillow", "pysodmetrics", *loaded)}
    return {"python": platform.python_version(), "u2net-hub": __version__} | packages


def _finish(results: Results, tasks: Sequence[_Task], out: str | Path | None) -> Results:
    """Write the results, plots and sheets if a folder for them is given; return the results."""
    if out is not None:
        results.save(out)
        plot_curves({"": results}, out)
        for task in tasks:
            name = task.dataset.name
            sheet = _best_and_worst(task, results.datasets[name])
            sheet.save(Path(out) / f"{file_name(name)}_best_worst.png")
    return results


def _best_and_worst(task: _Task, scores: DatasetScores) -> Image.Image:
    """Draw photo, ground truth and map: the best pictures on the left, the worst on the right."""
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
