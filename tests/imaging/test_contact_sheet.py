"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_hub.imaging.contact_sheet import Entry, draw_sheet


def test_every_picture_is_on_the_sheet_with_its_aspect():
    colours = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 128, 0)]
    pictures = [Image.new("RGB", (400, 100), colour) for colour in colours]
    entries = [Entry(pictures[:2], "first"), Entry(pictures[2:], "second")]
    sheet = np.asarray(draw_sheet(entries, columns=1, tile=80))
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(axis=2))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 80)


def test_a_long_caption_stays_inside_its_entry():
    entry = Entry([Image.new("L", (50, 50))], "a very long name of a file " * 20)
    sheet = np.asarray(draw_sheet([entry, Entry(entry.pictures, "")], tile=50))
    half = sheet.shape[1] // 2
    assert (sheet[:, half:] >= 250).all(axis=2).sum() == sheet[:, half:, 0].size - 50 * 50


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got no entries"):
        draw_sheet([])
