"""A contact sheet: many small pictures with captions on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_GAP = 6
_FONT = 12


class Entry(NamedTuple):
    """A group of pictures that are drawn side by side above one caption."""

    pictures: Sequence[Image.Image]
    caption: str


def draw_sheet(
    entries: Sequence[Entry], *, columns: int = 2, tile: int = 150, title: str = ""
) -> Image.Image:
    """Draw entries from left to right and from top to bottom on one RGB picture.

    Args:
        entries: The entries. All have the same number of pictures.
        columns: The number of entries in a row.
        tile: The side in pixels of the square that each picture is fitted into. Pictures keep their aspect.
        title: A line of text above the entries.

    Raises:
        ValueError: `entries` is empty.
    """
    if not entries:
        raise ValueError("got no entries for a sheet, expected at least one")
    font = ImageFont.load_default(_FONT)
    line = _FONT + _GAP
    below = line + 2 * _GAP if any(entry.caption for entry in entries) else _GAP
    small = [[_fitted(picture, tile) for picture in entry.pictures] for entry in entries]
    rows = [range(start, min(start + columns, len(entries))) for start in range(0, len(entries), columns)]
    heights = [max(picture.height for i in row for picture in small[i]) for row in rows]
    width = len(small[0]) * (tile + _GAP) + 2 * _GAP
    top = line + 2 * _GAP if title else _GAP
    sheet = Image.new("RGB", (len(rows[0]) * width, top + sum(heights) + len(rows) * below), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _shortened(title, font, sheet.width - 2 * _GAP), _INK, font)
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left = column * width + _GAP
            for j, picture in enumerate(small[i]):
                sheet.paste(picture, (left + j * (tile + _GAP), top))
            caption = _shortened(entries[i].caption, font, width - 2 * _GAP)
            draw.text((left, top + height + 2), caption, _INK, font)
        top += height + below
    return sheet


def _fitted(picture: Image.Image, tile: int) -> Image.Image:
    scale = tile / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(
        size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    )


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a line that is too wide in its middle, because the ends of file names distinguish them."""
    cut = text
    while len(cut) > 3 and font.getlength(cut) > width:
        half = (len(cut) - 2) // 2
        cut = f"{text[:half]}…{text[-half:]}"
    return cut
