"""Bounds for files that are made to take memory or time: headers that never end, and JPEGs of many scans."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from typing import IO, Any

_HEADER_READS = 20_000
"""The largest number of reads of a header. Pillow reads each segment, chunk, block or tag by itself."""
_HEADER_TIMES = 4
"""How many times the size of the file the reads of a header may add up to: tags may name the same bytes."""
_BYTES_PER_READ = 64
"""The smallest mean size of the reads while pixels are decoded."""
MOST_SCANS = 100
"""The largest number of scans of a JPEG, as in libtiff; each takes as long as a whole picture."""
MOST_COMMENTS = 100
MOST_NUMBERS = 1 << 18
"""The largest number of numbers in a tag: there is an offset for each strip or tile of a TIFF."""
_BYTES = (1, 2, 7)
"""The types of tags that Pillow keeps as bytes."""
_LONGEST_EXIF = 1 << 16
_ORIENTATION = 0x0112
# A marker; FF 00 and the restart markers FF D0 to FF D7 belong to a scan
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOS, _EOI = 0xDA, 0xD9
_ALONE = (0x01, 0xD8)
"""The markers TEM and SOI, which no length follows."""


class BoundedFile(io.RawIOBase):
    """A file for Pillow, which gives up if reading the picture's header takes too many reads or bytes.

    Args:
        file: A binary file that can be sought in.

    Raises:
        ValueError: `read` raises it when a bound is reached.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._reads_left = _HEADER_READS
        self._bytes_left: float = _HEADER_TIMES * self._size + (1 << 20)

    def allow_pixels(self) -> None:
        """Allow the reads that decoding the pixels needs, after the header has been read."""
        self._reads_left += self._size // _BYTES_PER_READ
        self._bytes_left = float("inf")

    def read(self, size: int | None = -1) -> bytes:
        """Read as files do."""
        data = self._file.read(-1 if size is None else size)
        self._reads_left -= 1
        self._bytes_left -= len(data)
        if self._reads_left < 0 or self._bytes_left < 0:
            raise ValueError("its header has too many parts")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek as files do."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Tell the position as files do."""
        return self._file.tell()

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that this can be sought in."""
        return True


def check_scans(file: IO[bytes], components: int, is_progressive: bool) -> None:
    """Refuse a JPEG of too many scans: 14 bytes of an empty scan cost the decoder a pass over all pixels.

    Args:
        file: The file. Its position does not change.
        components: The number of the picture's components.
        is_progressive: Whether the picture is progressive.

    Raises:
        ValueError: There are more than `MOST_SCANS`.
    """
    start = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(start)
    scans = position = 0
    # This reads as libjpeg does: bytes between segments are skipped, and a scan ends at the next marker.
    while (found := _MARKER.search(data, position)) is not None:
        kind, position = data[found.end() - 1], found.end()
        if kind in _ALONE:
            continue
        if kind == _EOI:
            return
        if kind == _SOS:
            if not is_progressive and data[position + 2 : position + 3] == bytes([components]):
                return  # this scan holds the whole picture
            scans += 1
            if scans > MOST_SCANS:
                raise ValueError(f"it has more than {MOST_SCANS} scans")
        position += int.from_bytes(data[position : position + 2], "big")


def check_tags(file: IO[bytes]) -> None:
    """Refuse a TIFF with a tag of too many numbers, for each of which Pillow makes an object.

    Args:
        file: The file. Its position does not change.

    Raises:
        ValueError: A tag has more than `MOST_NUMBERS`.
    """
    start = file.tell()
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    try:
        if order is None:
            return
        is_big = struct.unpack_from(f"{order}H", head, 2)[0] == 43  # BigTIFF
        where, number, entry = ("8xQ", "Q", "HHQ8x") if is_big else ("4xI", "H", "HHI4x")
        file.seek(struct.unpack_from(order + where, head)[0])
        n = struct.unpack(order + number, file.read(struct.calcsize(order + number)))[0]
        size = struct.calcsize(order + entry)
        for _ in range(min(n, 1 << 16)):
            _, kind, count = struct.unpack(order + entry, file.read(size))
            if kind not in _BYTES and count > MOST_NUMBERS:
                raise ValueError(f"one of its tags has more than {MOST_NUMBERS:,} numbers")
    except (struct.error, OverflowError):
        pass  # Pillow says what is wrong with it
    finally:
        file.seek(start)


def check_comments(file: IO[bytes]) -> None:
    """Refuse a plain PPM file of many comments: Pillow copies a megabyte of pixels for each.

    Args:
        file: The file. Its position does not change.

    Raises:
        ValueError: There are more than `MOST_COMMENTS`.
    """
    start = file.tell()
    file.seek(0)
    kind = file.read(2)
    if kind in (b"P1", b"P2", b"P3") and file.read().count(b"#") > MOST_COMMENTS:
        raise ValueError(f"it has more than {MOST_COMMENTS} comments")
    file.seek(start)


def long_exif_orientation(info: Mapping[Any, object]) -> tuple[bool, int | None]:
    """Read the orientation of a long EXIF block, of which Pillow would keep a copy for each tag.

    Args:
        info: The facts about a picture that Pillow read.

    Returns:
        Whether there is a long block, and its orientation.
    """
    text = info.get("Raw profile type exif")  # of PNG files by ImageMagick, in hexadecimal
    if isinstance(text, str) and len(text) > 2 * _LONGEST_EXIF:
        return True, None
    data = info.get("exif")
    if not isinstance(data, bytes) or len(data) <= _LONGEST_EXIF:
        return False, None
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    try:
        if order is not None:
            start = struct.unpack_from(f"{order}I", data, 4)[0]
            for i in range(struct.unpack_from(f"{order}H", data, start)[0]):
                tag, value = struct.unpack_from(f"{order}H6xH", data, start + 2 + 12 * i)
                if tag == _ORIENTATION:
                    return True, value
    except struct.error:
        pass  # only the block is damaged; the picture itself can be used
    return True, None
