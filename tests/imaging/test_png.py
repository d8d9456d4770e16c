"""Our own PNG writer, read back by Pillow."""

from __future__ import annotations

import builtins
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from u2net_hub.imaging import png
from u2net_hub.imaging.png import encode_png


def opened(data: bytearray) -> Image.Image:
    # "rb" data of a file: Pillow checks each chunk's CRC
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    n = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], n), np.uint8)
    return Image.fromarray(pixels.squeeze(2) if n == 1 else pixels)


@pytest.fixture
def without_isal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where isal is not installed."""
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name == "isal":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    png._deflate.cache_clear()
    yield
    png._deflate.cache_clear()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (300, 1), (640, 1300)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_come_back(mode: str, size: tuple[int, int]) -> None:
    picture = noise(mode, size)
    back = opened(encode_png(picture))
    assert (back.format, back.mode, back.size) == ("PNG", mode, size)
    assert np.array_equal(np.asarray(back), np.asarray(picture))


@pytest.mark.usefixtures("without_isal")
def test_pixels_come_back_without_isal() -> None:
    assert png._deflate() is zlib.compressobj
    picture = noise("RGBA", (640, 700))
    assert np.array_equal(np.asarray(opened(encode_png(picture))), np.asarray(picture))


def test_isal_is_used_where_it_is_installed() -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    png._deflate.cache_clear()
    assert png._deflate() is isal_zlib.compressobj


def test_the_profile_is_kept_and_nothing_else() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = noise("RGB", (5, 4))
    picture.info = {"icc_profile": profile, "exif": b"Exif\0\0", "comment": "here"}
    back = opened(encode_png(picture))
    assert back.info == {"icc_profile": profile}


@pytest.mark.usefixtures("without_isal")
def test_a_photo_is_not_larger_than_pillow_makes_it() -> None:
    y, x = np.mgrid[:400, :600]
    rng = np.random.default_rng(0)
    waves = 128 + 90 * np.sin(x / 37 + y / 91) + 20 * np.cos(y / 5)
    photo = Image.fromarray(
        np.clip(waves[..., None] + rng.normal(0, 2, (400, 600, 3)), 0, 255).astype(np.uint8)
    )
    buffer = BytesIO()
    photo.save(buffer, "PNG", compress_level=1)
    assert len(encode_png(photo)) <= 1.1 * buffer.tell()


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode CMYK was given, expected one of"):
        encode_png(Image.new("CMYK", (2, 2)))
