"""Find what is wrong with a data set before a network is trained or scored on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from .dataset import SaliencyDataset, name_of
from .duplicates import grouped, near_duplicates, signature
from .masks import FOREGROUND, IGNORED, class_numbers, mask_values, open_mask, read_image, without_classes
from .mixing import parse_share
from .pairing import Pair, Pairing, pair_files
from .report import DEFECTS, DataReport, Finding, write_report

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# A pixel counts as grey if its channels differ by at most this much.
_GREY = 16
# A soft mask should reach at least this level somewhere.
_WHITE = 250
# Two masks count as equal if their mean absolute error is at most this; compression and size cause less.
_SAME_MASK = 0.02


class _Facts(NamedTuple):
    """The facts that are kept about one pair. A fact is None if its file could not be read."""

    findings: list[Finding]
    size: tuple[int, int] | None = None
    """The (height, width) of the photo in pixels."""
    digest: bytes | None = None
    """A hash of the photo's pixels: identical photos have the same."""
    signature: Float32 | None = None
    """The photo's `duplicates.signature`: similar photos have similar ones."""
    mask: Float32 | None = None
    """The mask as a 16 × 16 thumbnail in [0, 1]."""
    kind: str = ""
    """The kind of values in the mask: "0 and 255", "soft" or "classes"."""
    foreground: float | None = None
    """The share of foreground in the mask; with classes, of all that is neither background nor ignored."""
    soft: float | None = None
    """The share of the mask's pixels between 0 and 255."""
    labels: npt.NDArray[np.int64] | None = None
    """With classes, the number of the mask's pixels of each class, 255 included."""


def check_dataset(
    root: str | Path | Sequence[str | Path] | None = None,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    classes: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> DataReport:
    """Check every pair of one or several data sets, such as a training set and a test set.

    Args:
        root: A folder or a list file, as for `find_pairs`. Several are also compared with each other. A
            share, as in DUTS-TR:0.2, means nothing here: all pairs are checked.
        images: The folder of the photos.
        masks: The folder of the masks.
        classes: The number of classes, if the masks hold class numbers.
        out: The folder for report.json, `<data set>_sheet.png` (a sample of pairs) and findings.png
            (examples).
        workers: The number of threads that read files; None starts one per core.
        progress: A function that is called with 1 after each pair.

    Raises:
        FileNotFoundError: A folder does not exist, or holds no photos.
        PermissionError: A folder may not be listed.
        ValueError: It is unclear which folder holds the masks, or two files differ only in their suffix.
    """
    given = [root] if root is None or isinstance(root, str | Path) else list(root)
    roots = [parse_share(each).path if isinstance(each, str) else each for each in given]
    names = [name_of(each, images) for each in roots]
    if len(set(names)) < len(names):
        names = [str(each) for each in roots]
    sets = {n: pair_files(r, images=images, masks=masks) for n, r in zip(names, roots, strict=True)}
    jobs = [(name, pair) for name, found in sets.items() for pair in found.pairs]
    facts = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        for each in threads.map(lambda job: _inspect(job[0], job[1], classes), jobs):
            facts.append(each)
            if progress is not None:
                progress(1)
    by_set = {name: [f for (n, _), f in zip(jobs, facts, strict=True) if n == name] for name in sets}
    findings = [finding for each in facts for finding in each.findings]
    for name, found in sets.items():
        findings += [Finding("no-photo", name, (str(path),)) for path in found.orphans]
        findings += _other_masks(name, by_set[name], found, classes)
    findings += _duplicates(jobs, facts)
    order = list(DEFECTS)
    findings.sort(key=lambda finding: (order.index(finding.defect), finding.dataset, finding.files))
    report = DataReport(findings, {name: _statistics(by_set[name], found) for name, found in sets.items()})
    if out is not None:
        write_report(report, sets, Path(out), classes)
    return report


def check_saliency_masks(dataset: SaliencyDataset) -> None:
    """Refuse masks that look like class numbers where saliency masks are expected.

    Raises:
        ValueError: Most labelled pixels of the inspected masks hold small numbers, and none holds a grey.
        OSError: A mask cannot be opened.
    """
    if seen := class_numbers([dataset.mask_path(i) for i in range(len(dataset))]):
        raise ValueError(
            f"the masks of {dataset.name} hold the values {seen[:12]}, which look like class numbers; "
            "expected 0 for background and 255 for the object. For masks of classes say how many there are, "
            "background included (--classes N); masks of 0 and 1 must be multiplied by 255"
        )


def check_class_masks(dataset: SaliencyDataset) -> None:
    """Refuse saliency masks where class numbers are expected: a network would learn the background alone.

    Raises:
        ValueError: The inspected masks hold nothing but 0 and 255.
        OSError: A mask cannot be opened.
    """
    if without_classes([dataset.mask_path(i) for i in range(len(dataset))]):
        raise ValueError(
            f"the masks of {dataset.name} hold 0 and 255 alone, as masks of saliency do; expected class "
            "numbers, where 255 means no label. Leave out --classes, or write 1 for the object"
        )


def _inspect(dataset: str, pair: Pair, classes: int | None) -> _Facts:
    findings: list[Finding] = []

    def find(defect: str, *files: Path, detail: str = "") -> None:
        findings.append(Finding(defect, dataset, tuple(map(str, files)), detail))

    facts = _Facts(findings)
    photo = None
    try:
        photo = read_image(pair.image)
    except (OSError, ValueError, ImportError) as e:
        find("unreadable", pair.image, detail=str(e))
    else:
        digest = hashlib.blake2b(photo.tobytes(), key=str(photo.shape).encode()).digest()
        look = signature(Image.fromarray(photo))
        facts = facts._replace(size=photo.shape[:2], digest=digest, signature=look)
    if pair.mask is None:
        find("no-mask", pair.image)
        return facts
    try:
        with open_mask(pair.mask) as picture:
            values = mask_values(picture, classes=classes)
            defects = list(_storage_defects(picture, classes))
    except (OSError, ValueError) as e:
        find("unreadable", pair.mask, detail=str(e))
        return facts
    if photo is not None and photo.shape[:2] != values.shape:
        (h, w), (mask_h, mask_w) = photo.shape[:2], values.shape
        turned = "; turned by EXIF?" if (h, w) == (mask_w, mask_h) else ""
        find("size", pair.image, pair.mask, detail=f"{w} × {h} and {mask_w} × {mask_h}{turned}")
    if not any(defect == "colour" for defect, _ in defects):  # the grey values of a colour mask mean nothing
        defects += _value_defects(values, classes)
    for defect, detail in defects:
        find(defect, pair.mask, detail=detail)
    small = Image.fromarray(values).resize((16, 16), Image.Resampling.BOX)
    facts = facts._replace(mask=np.asarray(small, np.float32) / np.float32(255))
    if classes is None:
        soft = float(((values > 0) & (values < 255)).mean())
        kind = "soft" if soft else "0 and 255"
        return facts._replace(kind=kind, foreground=float(values.mean()) / 255, soft=soft)
    foreground = float(((values > 0) & (values != IGNORED)).mean())
    labels = np.bincount(values.ravel(), minlength=256)
    return facts._replace(kind="classes", foreground=foreground, labels=labels)


def _storage_defects(picture: Image.Image, classes: int | None) -> Iterator[tuple[str, str]]:
    """Find defects in the way in which the file stores the mask: JPEG, colours, RGB."""
    if picture.format == "JPEG":
        yield "jpeg", ""
    if picture.mode in ("1", "L", "F") or picture.mode.startswith("I") or (classes and picture.mode == "P"):
        return
    colours = np.asarray(picture.convert("RGB")).astype(np.int16)
    spread = int((colours.max(axis=2) - colours.min(axis=2)).max())
    # JPEG makes the channels of a grey picture differ by a little.
    yield ("colour" if spread > _GREY else "rgb"), f"mode {picture.mode}"


def _value_defects(values: UInt8, classes: int | None) -> Iterator[tuple[str, str]]:
    """Find defects in the values of the mask, such as wrong classes or no foreground."""
    there = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    low, high = int(there[0]), int(there[-1])
    if classes is not None:
        wrong = there[(there >= classes) & (there != IGNORED)]
        if wrong.size:
            yield "classes", f"{wrong.tolist()[:8]} of 0 to {classes - 1}"
        elif set(there.tolist()) <= {0, IGNORED}:
            yield "empty", ""
    elif high == 0:
        yield "empty", ""
    elif high < FOREGROUND:
        yield "values", f"values up to {high}, foreground is from {FOREGROUND}"
    elif len(there) <= 2 and not {low, high} <= {0, 255}:
        yield "values", f"only {there.tolist()}"
    elif low >= FOREGROUND:
        yield "full", ""
    elif high < _WHITE:
        yield "dim", f"values up to {high}"


def _other_masks(
    dataset: str, facts: Sequence[_Facts], found: Pairing, classes: int | None
) -> Iterator[Finding]:
    """Find masks of classes although the number of classes was not given, and masks of saliency if it was."""
    both = zip(found.pairs, facts, strict=True)
    readable = [pair.mask for pair, each in both if pair.mask and each.mask is not None]
    if classes is not None:
        if without_classes(readable):
            detail = "255 means no label; without --classes they are checked as saliency"
            yield Finding("no-classes", dataset, (str(readable[0]),), detail)
    elif seen := class_numbers(readable):
        detail = f"values {seen[:12]}; with --classes N they are checked as classes"
        yield Finding("class-numbers", dataset, (str(readable[0]),), detail)


def _duplicates(jobs: Sequence[tuple[str, Pair]], facts: Sequence[_Facts]) -> Iterator[Finding]:
    """Find photos that are there several times, with equal pixels or nearly the same."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for i, each in enumerate(facts):
        if each.digest is not None:
            same[each.digest].append(i)
    copies = [group for group in same.values() if len(group) > 1]
    first = [group[0] for group in same.values()]
    looks = [look for i in first if (look := facts[i].signature) is not None]
    alike = [[first[k] for k in group] for group in grouped(near_duplicates(looks), len(looks))]
    for groups, within, across in ((copies, "duplicate", "leak"), (alike, "near-duplicate", "near-leak")):
        for group in groups:
            names = sorted({jobs[i][0] for i in group})
            known = [mask for i in group if (mask := facts[i].mask) is not None]
            apart = max((float(np.abs(mask - known[0]).mean()) for mask in known), default=0.0)
            yield Finding(
                across if len(names) > 1 else within,
                ", ".join(names),
                tuple(str(jobs[i][1].image) for i in group),
                f"their masks differ, MAE {apart:.3f}" if apart > _SAME_MASK else "",
            )


def _statistics(facts: Sequence[_Facts], found: Pairing) -> dict[str, object]:
    def spread(values: Sequence[float], digits: int) -> dict[str, float]:
        if not values:
            return {}
        quantiles = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()
        names = ("least", "5 %", "median", "95 %", "most")
        return {name: round(quantile, digits) for name, quantile in zip(names, quantiles, strict=True)}

    sizes = [each.size for each in facts if each.size is not None]
    parts = [each.foreground for each in facts if each.foreground is not None]
    files = [pair.image for pair in found.pairs], [pair.mask for pair in found.pairs if pair.mask]
    soft = [each.soft for each in facts if each.soft]
    labels = np.sum([each.labels for each in facts if each.labels is not None], axis=0)
    return {
        "pairs": sum(each.size is not None and each.foreground is not None for each in facts),
        "width": spread([width for _, width in sizes], 0),
        "height": spread([height for height, _ in sizes], 0),
        "foreground": spread(parts, 3),
        "photos": dict(Counter(path.suffix.lower() for path in files[0]).most_common()),
        "mask_files": dict(Counter(path.suffix.lower() for path in files[1]).most_common()),
        "masks": dict(Counter(each.kind for each in facts if each.kind).most_common()),
        **({"soft_pixels": spread(soft, 3)} if soft else {}),
        **({"classes": _shares(labels)} if np.any(labels) else {}),
    }


def _shares(labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Compute the share of each class in the labelled pixels, and that of the ignored ones in all pixels."""
    known = labels[:IGNORED].sum()
    shares = {str(i): round(float(labels[i] / known), 4) for i in np.flatnonzero(labels[:IGNORED])}
    if labels[IGNORED]:
        shares["255 (ignored)"] = round(float(labels[IGNORED] / labels.sum()), 4)
    return shares
