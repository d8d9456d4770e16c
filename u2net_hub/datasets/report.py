"""The report of a data set's check: the kinds of defects, the findings, the text and the contact sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from PIL import Image

from .. import imaging as im
from ..atomic import file_name, write_file
from ..imaging import Entry, draw_sheet
from .masks import FOREGROUND, mask_values, open_mask
from .pairing import Pairing

Level: TypeAlias = Literal["error", "warning"]
DEFECTS: Mapping[str, tuple[Level, str]] = {
    "no-mask": ("error", "photo without a mask"),
    "no-photo": ("error", "mask without a photo"),
    "unreadable": ("error", "file that cannot be read"),
    "size": ("error", "photo and mask of different sizes"),
    "values": ("error", "mask that is neither 0 and 255 nor soft"),
    "classes": ("error", "mask with a class that is not there"),
    "class-numbers": ("error", "set whose masks look like class numbers"),
    "no-classes": ("error", "set whose masks hold 0 and 255, but no classes"),
    "colour": ("error", "mask in colours"),
    "leak": ("error", "photo that is in two of the sets"),
    "near-leak": ("warning", "photo that is in two of the sets, with small changes"),
    "duplicate": ("warning", "photo that is there twice"),
    "near-duplicate": ("warning", "photo that is there twice, with small changes"),
    "empty": ("warning", "mask without an object"),
    "full": ("warning", "mask without a background"),
    "dim": ("warning", "soft mask that never reaches white"),
    "jpeg": ("warning", "mask stored as JPEG, which blurs its edges"),
    "rgb": ("warning", "grey mask stored in colour channels"),
}
"""The defects that a check looks for, in the order of reports, each with its level and its meaning."""

_SOFT = f"soft masks train with their values as they are; scores count values from {FOREGROUND} as the object"
_SHEET_PAIRS = 24
_SHEET_EACH = 6


class Finding(NamedTuple):
    """One defect that was found in one or several files."""

    defect: str
    """The kind of defect: a key of `DEFECTS`."""
    dataset: str
    """The name of the data set; several names for a photo in several sets."""
    files: tuple[str, ...]
    """The paths of the files concerned."""
    detail: str = ""
    """More about the defect, in words; may be empty."""

    @property
    def level(self) -> Level:
        """The level: an error makes training fail or scores wrong; a person should look at a warning."""
        return DEFECTS[self.defect][0]


@dataclass(frozen=True)
class DataReport:
    """The findings of `check_dataset`, and statistics of the data sets."""

    findings: Sequence[Finding]
    statistics: Mapping[str, Mapping[str, object]]
    """For each data set: the number of complete pairs, the sizes in pixels, the share of foreground, and the
    kinds of files."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that must be corrected."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that a person should look at."""
        return [finding for finding in self.findings if finding.level == "warning"]

    def to_dict(self) -> dict[str, object]:
        """Return the report as values for JSON."""
        return {
            "errors": [finding._asdict() for finding in self.errors],
            "warnings": [finding._asdict() for finding in self.warnings],
            "statistics": dict(self.statistics),
        }

    def text(self, *, each: int = 5) -> str:
        """Return the statistics as text, and the number and the first `each` files of each kind of defect."""
        lines = []
        for name, statistics in self.statistics.items():
            lines += [
                name,
                *(f"  {key.replace('_', ' ')}: {_told(value)}" for key, value in statistics.items()),
                *([f"  {_SOFT}"] if "soft_pixels" in statistics else []),
            ]
        for level, findings in (("error", self.errors), ("warning", self.warnings)):
            lines += ["", f"{len(findings)} {level}{'' if len(findings) == 1 else 's'}"]
            for defect, (_, meaning) in DEFECTS.items():
                of_kind = [finding for finding in findings if finding.defect == defect]
                if not of_kind:
                    continue
                lines.append(f"  {defect}: {len(of_kind)} × {meaning}")
                for finding in of_kind[:each]:
                    detail = f" ({finding.detail})" if finding.detail else ""
                    lines.append(f"    {' · '.join(finding.files)}{detail}")
                if len(of_kind) > each:
                    lines.append(f"    … and {len(of_kind) - each} more")
        return "\n".join(lines)


def _told(value: object) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in value.items()) if isinstance(value, dict) else f"{value}"


def write_report(report: DataReport, sets: Mapping[str, Pairing], out: Path, classes: int | None) -> None:
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    write_file(out / "report.json", f"{text}\n".encode())
    for name, found in sets.items():
        pairs = [pair for pair in found.pairs if pair.mask is not None]
        sample = pairs[:: max(1, len(pairs) // _SHEET_PAIRS)][:_SHEET_PAIRS]
        entries = [
            Entry([_photo(pair.image), _mask(pair.mask, classes)], pair.name) for pair in sample if pair.mask
        ]
        if entries:
            title = f"{name}: {len(sample)} of {len(pairs)} pairs"
            draw_sheet(entries, columns=4, title=title).save(out / f"{file_name(name)}_sheet.png")
    masks = {str(pair.mask) for found in sets.values() for pair in found.pairs}
    masks |= {str(path) for found in sets.values() for path in found.orphans}
    entries = []
    for defect in DEFECTS:
        for finding in islice((f for f in report.findings if f.defect == defect), _SHEET_EACH):
            shown = [
                _mask(Path(file), classes) if file in masks else _photo(Path(file))
                for file in finding.files[:2]
            ]
            caption = f"{defect}: {Path(finding.files[0]).name} {finding.detail}"
            entries.append(Entry([*shown, *[_nothing()] * (2 - len(shown))], caption))
    if entries:
        draw_sheet(entries, columns=3, title="examples of what was found").save(out / "findings.png")


def _photo(path: Path) -> Image.Image:
    try:
        return im.load(path).rgb
    except (OSError, ValueError, ImportError):
        return _nothing()


def _mask(path: Path | None, classes: int | None) -> Image.Image:
    if path is None:
        return _nothing()
    try:
        with open_mask(path) as picture:
            shown = Image.fromarray(mask_values(picture, classes=classes))
    except (OSError, ValueError):
        return _nothing()
    if classes is not None:
        shown = shown.convert("P")
        shown.putpalette(im.palette())
    return shown


def _nothing() -> Image.Image:
    return Image.new("RGB", (1, 1), (200, 200, 200))
