"""Files that are made to take memory or time."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2net_hub.imaging import load
from u2net_hub.imaging.decode import peek_size
from u2net_hub.imaging.untrusted import MOST_SCANS


def encoded(format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = BytesIO()
    Image.new(mode, (40, 24), 120 if mode in ("L", "P") else (9, 200, 30)).save(buffer, format, **options)
    return buffer.getvalue()


def many_tags(tags: int, area: int, *, orientation: int | None = None) -> bytes:
    """A TIFF or EXIF block whose tags all point to the same bytes."""
    entries = [] if orientation is None else [struct.pack("<HHII", 0x0112, 3, 1, orientation)]
    offset = 8 + 2 + 12 * (tags + len(entries)) + 4
    entries += [struct.pack("<HHII", 1000 + i, 1, area, offset) for i in range(tags)]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4 + b"\1" * area


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    added = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return png[:33] + b"".join(added) + png[33:]


def with_comments(gif: bytes, comments: int) -> bytes:
    start = 13 + 3 * (2 << (gif[10] & 7))  # after the header and the palette
    return gif[:start] + b"!\xfe\1a\0" * comments + gif[start:]


def with_scans(jpeg: bytes, scans: int) -> bytes:
    """The last scan of a JPEG again and again."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * scans + jpeg[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    progressive = encoded("JPEG", "L", progressive=True)
    with pytest.raises(ValueError, match=f"more than {MOST_SCANS} scans"):
        load(with_scans(progressive, 3000))


def test_markers_without_a_length_hide_no_scans() -> None:
    progressive = encoded("JPEG", "L", progressive=True)
    start = progressive.rindex(b"\xff\xda")
    hidden = progressive[:start] + b"\xff\x01" + progressive[start:-2] * 3000 + progressive[-2:]
    with pytest.raises(ValueError, match="scans"):
        load(hidden)


def test_bytes_between_segments_hide_no_scans() -> None:
    progressive = encoded("JPEG", "L", progressive=True)
    start = progressive.index(b"\xff\xdb")
    with pytest.raises(ValueError, match="scans"):
        load(progressive[:start] + b"\0" * 3 + with_scans(progressive, 3000)[start:])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str)
def test_usual_jpegs_are_read(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", **options))
    assert load(tmp_path / "a.jpg").size == (24, 40)


def test_scan_marks_after_the_picture_do_not_count() -> None:
    # phones append a film to a photo, whose bytes are anything
    assert load(encoded("JPEG", progressive=True) + b"\xff\xda\0\2" * 500).size == (24, 40)


@pytest.mark.parametrize(
    "file",
    [
        with_comments(encoded("GIF", "P"), 40_000),
        encoded("JPEG")[:2] + b"\xff\xfe\0\2" * 40_000 + encoded("JPEG")[2:],
        with_chunks(encoded("PNG"), *[(b"prVt", b"")] * 40_000),
        b"P6\n" + b"#\n" * 40_000 + b"2 2 255\n" + b"\0" * 12,
    ],
    ids=["GIF", "JPEG", "PNG", "PPM"],
)
def test_a_header_of_tens_of_thousands_of_parts_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="header has too many parts"):
        load(file)
    assert peek_size(file) is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_a_tiff_tag_of_millions_of_numbers_is_refused(order: str, is_big: bool) -> None:
    mark = b"II" if order == "<" else b"MM"
    if is_big:
        head = (
            mark
            + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, 1)
            + struct.pack(f"{order}HHQQ", 273, 4, 1 << 22, 0)
        )
    else:
        head = mark + struct.pack(f"{order}HIH", 42, 8, 1) + struct.pack(f"{order}HHII", 273, 4, 1 << 22, 0)
    with pytest.raises(ValueError, match="one of its tags has more than 262,144 numbers"):
        load(head + b"\0" * 64)


def test_a_plain_ppm_of_many_comments_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 100 comments"):
        load(b"P3 2 2 255\n" + b"#\n" * 500)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # by Pillow 13, which counts them too
@pytest.mark.parametrize(
    ("file", "is_read"),
    [
        (with_chunks(encoded("PNG"), (b"eXIf", many_tags(200, 300_000))), True),
        (many_tags(200, 300_000), False),
    ],
    ids=["EXIF", "TIFF"],
)
def test_tags_of_the_same_bytes_take_little_memory(file: bytes, is_read: bool) -> None:
    tracemalloc.start()
    try:
        if is_read:
            load(file)
        else:
            with pytest.raises(ValueError, match="cannot be read"):
                load(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000  # each tag for itself would take 60 MB together


def test_a_long_exif_block_turns_the_photo() -> None:
    block = many_tags(3, 100_000, orientation=6)
    assert load(with_chunks(encoded("PNG"), (b"eXIf", block))).size == (40, 24)


def test_a_damaged_long_exif_block_does_no_harm() -> None:
    block = many_tags(3, 100_000, orientation=6)
    block = block[:4] + b"\xff\xff\xff\xff" + block[8:]
    assert load(with_chunks(encoded("PNG"), (b"eXIf", block))).size == (24, 40)


def test_a_tiff_of_one_row_in_each_strip_is_read() -> None:
    buffer = BytesIO()
    values = np.arange(3000, dtype=np.uint8)[:, None].repeat(2, 1)
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo={278: 1})
    assert np.array_equal(np.asarray(load(buffer.getvalue()).rgb)[..., 0], values)
