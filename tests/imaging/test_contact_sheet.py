"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from u2net_hub.imaging.contact_sheet import Entry, _shortened, draw_sheet

RED, GREEN, BLUE, ORANGE = (255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 128, 0)


def corner(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """The left and the top of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(columns.min()), int(rows.min())


def plain(*colours: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (10, 10), colour) for colour in colours]


def test_every_picture_is_on_the_sheet_with_its_aspect():
    colours = [RED, GREEN, BLUE, ORANGE]
    pictures = [Image.new("RGB", (400, 100), colour) for colour in colours]
    entries = [Entry(pictures[:2], "first"), Entry(pictures[2:], "second")]
    sheet = np.asarray(draw_sheet(entries, columns=1, tile=80))
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(axis=2))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 80)


# In the next four tests the gap is 6, and a line of text is 12 high with a gap under it, which makes 18.


def test_entries_without_text_stand_in_a_grid_with_gaps_of_six_pixels():
    entries = [Entry(plain(colour), "") for colour in (RED, GREEN, BLUE)]
    sheet = draw_sheet(entries, columns=2, tile=10)
    assert [corner(sheet, c) for c in (RED, GREEN, BLUE)] == [(6, 6), (34, 6), (6, 22)]
    assert sheet.size == (2 * (10 + 6 + 12), 6 + 2 * (10 + 6))


def test_the_pictures_of_an_entry_stand_side_by_side():
    sheet = draw_sheet([Entry(plain(RED, GREEN), "")], columns=1, tile=10)
    assert [corner(sheet, c) for c in (RED, GREEN)] == [(6, 6), (22, 6)]


def test_captions_take_thirty_pixels_under_each_row():
    sheet = draw_sheet([Entry(plain(RED), "a"), Entry(plain(GREEN), "")], columns=1, tile=10)
    assert [corner(sheet, c) for c in (RED, GREEN)] == [(6, 6), (6, 6 + 10 + 30)]
    assert sheet.size == (28, 6 + 2 * (10 + 30))


def test_a_title_takes_thirty_pixels_above_the_first_row():
    sheet = draw_sheet([Entry(plain(RED), "")], columns=1, tile=10, title="T")
    assert corner(sheet, RED) == (6, 30)


def test_a_caption_stands_under_its_picture():
    sheet = np.asarray(draw_sheet([Entry([Image.new("RGB", (60, 40), RED)], "M")], tile=60))
    rows = np.nonzero((sheet < 100).all(axis=2))[0]
    assert rows.min() > 6 + 40
    assert rows.max() < sheet.shape[0]


def test_a_caption_that_fits_is_written_whole():
    assert _shortened("short", ImageFont.load_default(12), 200) == "short"


def test_a_cut_caption_keeps_both_ends_of_the_name():
    cut = _shortened("a_long_name_of_a_file_0001.jpg", ImageFont.load_default(12), 100)
    start, end = cut.split("…")
    assert len(start) == len(end) >= 4
    assert "a_long_name_of_a_file_0001.jpg".startswith(start)
    assert "a_long_name_of_a_file_0001.jpg".endswith(end)


def test_a_cut_caption_uses_the_width_that_it_has():
    font = ImageFont.load_default(12)
    text = "i" * 100
    cut = _shortened(text, font, 100)
    # at most the two letters of the next longer cut are missing
    assert 100 - 3 * font.getlength("i") < font.getlength(cut) <= 100


def test_a_large_picture_is_averaged():
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::2] = 200
    sheet = draw_sheet([Entry([Image.fromarray(stripes)], "")], columns=1, tile=10)
    assert sheet.getpixel((6 + 5, 6 + 5)) == (100, 100, 100)


def test_a_small_picture_is_enlarged_in_squares():
    halves = Image.new("RGB", (2, 1), RED)
    halves.putpixel((1, 0), BLUE)
    sheet = draw_sheet([Entry([halves], "")], columns=1, tile=10)
    assert {sheet.getpixel((6 + x, 6)) for x in range(5)} == {RED}
    assert {sheet.getpixel((6 + x, 6)) for x in range(5, 10)} == {BLUE}


def test_two_entries_stand_in_a_row_where_nothing_else_is_said():
    sheet = draw_sheet([Entry(plain(colour), "") for colour in (RED, GREEN, BLUE)], tile=10)
    assert corner(sheet, GREEN)[1] == corner(sheet, RED)[1] < corner(sheet, BLUE)[1]


def test_a_long_caption_stays_inside_its_entry():
    entry = Entry([Image.new("L", (50, 50))], "a very long name of a file " * 20)
    sheet = np.asarray(draw_sheet([entry, Entry(entry.pictures, "")], tile=50))
    half = sheet.shape[1] // 2
    assert (sheet[:, half:] >= 250).all(axis=2).sum() == sheet[:, half:, 0].size - 50 * 50


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got no entries"):
        draw_sheet([])


def test_a_cut_takes_out_as_few_letters_as_it_can():
    font = ImageFont.load_default(12)
    text = "W" * 20
    assert _shortened(text, font, int(font.getlength(text)) - 1) == "W" * 9 + "…" + "W" * 9


def test_a_long_title_keeps_the_gap_on_the_right():
    sheet = np.asarray(draw_sheet([Entry(plain(RED), "")], columns=1, tile=100, title="WM" * 40))
    columns = np.nonzero((sheet[:24] < 250).any(axis=(0, 2)))[0]
    assert columns.min() >= 6
    assert columns.max() < sheet.shape[1] - 6
