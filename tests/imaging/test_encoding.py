"""Pictures as the bytes of a file."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from u2net_hub.imaging import encoding
from u2net_hub.imaging.encoding import encode


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8))


@pytest.mark.parametrize(("format", "name"), [("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_every_pixel_comes_back_from_a_lossless_format(format: encoding.Format, name: str) -> None:
    picture = noise()
    with Image.open(BytesIO(encode(picture, format))) as back:
        assert back.format == name
        assert np.array_equal(np.asarray(back), np.asarray(picture))


def test_a_jpeg_of_one_colour_keeps_it() -> None:
    with Image.open(BytesIO(encode(Image.new("RGB", (16, 16), (200, 100, 50)), "jpg"))) as back:
        assert back.format == "JPEG"
        assert np.abs(np.asarray(back).astype(int) - (200, 100, 50)).max() <= 2


def test_a_palette_stays_in_a_png() -> None:
    labels = Image.new("P", (3, 2), 1)
    labels.putpalette([0, 0, 0, 128, 0, 0])
    with Image.open(BytesIO(encode(labels, "png"))) as back:
        assert back.mode == "P"
        assert back.convert("RGB").getpixel((0, 0)) == (128, 0, 0)


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_a_palette_becomes_colours_where_the_format_has_none(format: encoding.Format) -> None:
    labels = Image.new("P", (16, 16), 1)
    labels.putpalette([0, 0, 0, 128, 0, 0])
    with Image.open(BytesIO(encode(labels, format))) as back:
        assert back.mode == "RGB"
        assert np.abs(np.asarray(back).astype(int) - (128, 0, 0)).max() <= 2


@pytest.mark.parametrize("format", ["png", "webp", "jpg", "tiff"])
def test_the_profile_is_kept_in_every_format(format: encoding.Format) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.new("RGB", (8, 8))
    picture.info["icc_profile"] = profile
    with Image.open(BytesIO(encode(picture, format))) as back:
        assert back.info["icc_profile"] == profile


def test_our_own_writer_makes_the_png_of_a_photo() -> None:
    picture = noise()
    assert encode(picture, "png") == encoding.encode_png(picture)
