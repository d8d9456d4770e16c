"""A contact sheet: many small pictures with captions on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_GAP = 6
_FONT = 12


class Entry(NamedTuple):
    """Pictures that belong together, side by side, over one caption."""

    pictures: Sequence[Image.Image]
    caption: str


def draw_sheet(
    entries: Sequence[Entry], *, columns: int = 2, tile: int = 150, title: str = ""
) -> Image.Image:
    """Lay entries out from left to right and top to bottom: an RGB picture.

    Args:
        entries: All with as many pictures as the first.
        columns: Entries per row.
        tile: Side of the square that each picture is fitted into, in pixels; its aspect is kept.
        title: A line above them.

    Raises:
        ValueError: there are no entries.
    """
    if not entries:
        raise ValueError("got no entries for a sheet, expected at least one")
    font = ImageFont.load_default(_FONT)
    line = _FONT + _GAP
    small = [[_fitted(picture, tile) for picture in entry.pictures] for entry in entries]
    rows = [range(start, min(start + columns, len(entries))) for start in range(0, len(entries), columns)]
    heights = [max(picture.height for i in row for picture in small[i]) for row in rows]
    width = len(small[0]) * (tile + _GAP) + 2 * _GAP
    top = line + 2 * _GAP if title else _GAP
    sheet = Image.new(
        "RGB", (len(rows[0]) * width, top + sum(heights) + len(rows) * (line + 2 * _GAP)), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _shortened(title, font, sheet.width - 2 * _GAP), _INK, font)
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = column * width + _GAP
            for j, picture in enumerate(small[i]):
                sheet.paste(picture, (left + j * (tile + _GAP), top))
            caption = _shortened(entries[i].caption, font, width - 2 * _GAP)
            draw.text((left, top + height + 2), caption, _INK, font)
        top += height + line + 2 * _GAP
    return sheet


def _fitted(picture: Image.Image, tile: int) -> Image.Image:
    scale = tile / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    )


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut the middle out of a line that is too wide: both ends of a file's name tell it from others."""
    cut = text
    while len(cut) > 3 and font.getlength(cut) > width:
        half = (len(cut) - 2) // 2
        cut = f"{text[:half]}…{text[-half:]}"
    return cut
