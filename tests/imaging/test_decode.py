"""One image in and out: every kind of input, the network's view of it, and the map at the photo's size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps

from u2net_hub import U2NetConfig
from u2net_hub.imaging import decode
from u2net_hub.imaging.decode import Photo, load, peek_size
from u2net_hub.imaging.transforms import (
    confidence,
    most_likely,
    normalise,
    palette,
    postprocess,
    preprocess,
    resize,
    stretch,
    to_grey,
)

CONFIG = U2NetConfig()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def first_pixel(photo: Photo) -> object:
    return photo.rgb.getpixel((0, 0))


# ---- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGB", (200, 100, 50), (200, 100, 50)),
        ("RGBA", (200, 100, 50, 128), (200, 100, 50)),
        ("RGBX", (200, 100, 50, 0), (200, 100, 50)),
        ("CMYK", (55, 155, 205, 0), (200, 100, 50)),  # 255 - ink, without black ink
        ("I;16", 30000, (117, 117, 117)),  # 30000 / 257 = 116.7
        ("I;16B", 30000, (117, 117, 117)),
        ("I", 30000, (117, 117, 117)),
        ("I", 100, (100, 100, 100)),
        ("F", 100.0, (100, 100, 100)),
        ("F", 0.5, (128, 128, 128)),
        ("F", 30000.0, (117, 117, 117)),
        ("HSV", (0, 255, 200), (200, 0, 0)),
        ("YCbCr", (100, 128, 128), (100, 100, 100)),
    ],
)
def test_every_mode_is_read(mode: str, colour: object, expected: tuple[int, ...]) -> None:
    photo = load(Image.new(mode, (3, 2), colour))
    assert photo.size == (2, 3)
    assert first_pixel(photo) == expected


@pytest.mark.parametrize(
    ("mode", "straight", "colour"), [("RGBa", "RGBA", (200, 100, 50, 128)), ("La", "LA", (200, 128))]
)
def test_premultiplied_modes_give_their_true_colours(
    mode: str, straight: str, colour: tuple[int, ...]
) -> None:
    photo = load(Image.new(straight, (2, 2), colour).convert(mode))
    assert abs(photo.rgb.getpixel((0, 0))[0] - 200) <= 1  # 8 bits lose a half on the way


def test_a_palette_picture_is_read_with_its_colours() -> None:
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    assert first_pixel(load(picture)) == (200, 100, 50)


def test_a_transparent_palette_colour_becomes_alpha() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    photo = load(encoded(picture, "PNG", transparency=0))
    assert photo.alpha is not None
    assert list(photo.alpha.tobytes()) == [0, 255]


def test_an_opaque_alpha_is_no_alpha() -> None:
    assert load(Image.new("RGBA", (2, 2), (1, 2, 3, 255))).alpha is None


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("uint8", 100, 100),
        ("uint16", 30000, 117),
        ("float32", 0.5, 128),
        ("float64", 1.0, 255),
        ("bool", True, 255),
    ],
)
def test_every_array_is_read(shape: tuple[int, ...], dtype: str, value: float, expected: int) -> None:
    photo = load(np.full(shape, value, dtype))
    assert photo.size == (4, 5)
    assert first_pixel(photo) == (expected,) * 3


def test_the_fourth_channel_of_an_array_is_alpha() -> None:
    photo = load(np.full((2, 2, 4), 40, np.uint8))
    assert photo.alpha is not None
    assert photo.alpha.getpixel((0, 0)) == 40


def test_a_strided_array_is_read() -> None:
    pixels = noise(6, 8)
    assert np.array_equal(np.asarray(load(pixels[::2, ::-1]).rgb), pixels[::2, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), 2.0), "float values from 2 to 2, expected"),
        (np.full((2, 2), -1.0), "float values"),
        (np.full((2, 2), np.nan), "float values"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((3, 20, 20), np.uint8), r"shape \(3, 20, 20\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5), np.uint8), r"shape \(0, 5\)"),
        (np.zeros((2, 2), np.int64), "dtype int64"),
        (np.zeros((2, 2), complex), "dtype complex128"),
    ],
)
def test_an_array_that_is_no_image_raises(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(array)


@pytest.mark.parametrize("value", [-1.0, 70000.0, float("nan")])
def test_a_float_picture_out_of_range_raises(value: float) -> None:
    with pytest.raises(ValueError, match="mode F with values"):
        load(Image.new("F", (2, 2), value))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    picture = Image.fromarray(noise(4, 6))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert np.array_equal(np.asarray(load(data).rgb), np.asarray(upright))


def test_a_damaged_exif_block_does_not_spoil_the_picture() -> None:
    data = encoded(Image.new("RGB", (4, 4), "red"), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):  # Pillow's own
        assert load(data).size == (4, 4)


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000", "MPO"]
)
def test_every_format_is_read(format: str) -> None:
    photo = load(encoded(Image.new("RGB", (16, 8), (0, 0, 250)), format))
    assert photo.size == (8, 16)
    assert np.allclose(first_pixel(photo), (0, 0, 250), atol=6)


def test_heic_is_read_where_pillow_heif_is_there() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 32), (0, 0, 250))).save(buffer)
    assert load(buffer).size == (32, 64)


def test_heic_without_pillow_heif_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_register_heif", lambda: False)
    with pytest.raises(ImportError, match=r"u2net-hub\[heif\]"):
        load(b"\0\0\0\x18ftypheic" + bytes(40))


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert first_pixel(load(data)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "unseekable", "image", "array", "photo"])
def test_every_kind_of_source_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = noise(5, 7)
    Image.fromarray(pixels).save(path)

    class Unseekable(BytesIO):
        def seekable(self) -> bool:
            return False

    sources = {
        "str": lambda: str(path),
        "path": lambda: path,
        "bytes": path.read_bytes,
        "file": lambda: BytesIO(path.read_bytes()),
        "unseekable": lambda: Unseekable(path.read_bytes()),
        "image": lambda: Image.open(path),
        "array": lambda: pixels,
        "photo": lambda: load(path),
    }
    assert np.array_equal(np.asarray(load(sources[kind]()).rgb), pixels)


def test_a_file_object_is_read_from_its_start() -> None:
    buffer = BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    assert load(buffer).size == (2, 2)


def test_the_callers_picture_is_left_as_it_is() -> None:
    picture = Image.new("P", (4, 4))
    before = (picture.mode, picture.size, dict(picture.info))
    load(picture)
    assert (picture.mode, picture.size, dict(picture.info)) == before


def test_an_rgb_profile_is_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert load(encoded(Image.new("RGB", (2, 2)), "PNG", icc_profile=profile)).icc_profile == profile


def test_a_profile_of_other_colours_than_rgb_is_not_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = load(encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "JPEG", icc_profile=profile))
    assert photo.icc_profile is None
    assert first_pixel(photo) == (255, 255, 255)


def test_a_lab_picture_is_converted_by_its_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = Image.new("LAB", (2, 2), (255, 128, 128))  # L* = 100, a* = b* = 0: white
    lab.info["icc_profile"] = profile
    assert np.allclose(first_pixel(load(lab)), (255, 255, 255), atol=1)


# ---- reading what cannot be read -------------------------------------------------------------------------


def jpeg() -> bytes:
    return encoded(Image.fromarray(noise(64, 64)), "JPEG")


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: jpeg()[:2000], "truncated"),
        (lambda: encoded(Image.fromarray(noise(64, 64)), "PNG")[:2000], "cannot be read"),
        (lambda: encoded(Image.fromarray(noise(64, 64)), "WEBP")[:2000], "cannot be read|not a picture"),
        (lambda: encoded(Image.fromarray(noise(64, 64)), "TIFF")[:2000], "cannot be read"),
        (lambda: b"hello, world, this is text", "not a picture in a format"),
        (lambda: b"", r"empty \(0 bytes\)"),
        (lambda: png_that_claims(50000, 50000), r"too large: .*2500000000 pixels"),
        (lambda: encoded(Image.new("RGB", (4, 4)), "EPS"), "not a picture in a format"),
        (lambda: bytes(1000), "not a picture in a format"),
    ],
    ids=[
        "jpeg cut off",
        "png cut off",
        "webp cut off",
        "tiff cut off",
        "text",
        "empty",
        "bomb",
        "eps",
        "zeros",
    ],
)
def test_a_bad_file_raises_and_is_named(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert "holiday.png" in str(error.value)


def test_a_missing_path_raises() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        load("nowhere.jpg")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_a_file_open_as_text_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    with path.open() as file, pytest.raises(ValueError, match="text mode"):
        load(file)  # type: ignore[arg-type]


def test_something_else_raises_and_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match="image 3 is a int, expected a path"):
        load(5, name="image 3")  # type: ignore[arg-type]


# ---- what the network sees -------------------------------------------------------------------------------


def test_preprocessing_divides_by_the_images_own_maximum() -> None:
    pixels = np.zeros((320, 320, 3), np.uint8)
    pixels[:, :160] = (100, 50, 0)
    x = preprocess(load(pixels), CONFIG)
    assert x.shape == (3, 320, 320)
    assert x.dtype == np.float32
    # by hand: 100/100, 50/100, 0/100, less ImageNet's mean, over its std
    assert np.allclose(x[:, 0, 0], [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225])


def test_preprocessing_divides_by_255_where_the_config_says_so() -> None:
    x = preprocess(load(np.full((8, 8, 3), 51, np.uint8)), CONFIG.replace(scale="255"))
    assert np.allclose(x[:, 0, 0], [(0.2 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])


def test_a_black_image_does_not_divide_by_zero() -> None:
    x = preprocess(load(np.zeros((5, 5, 3), np.uint8)), CONFIG)
    assert np.allclose(x[:, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20000, 20), (20, 20000)])
def test_any_size_fits_the_network_and_comes_back(height: int, width: int) -> None:
    photo = load(np.zeros((height, width, 3), np.uint8))
    assert preprocess(photo, CONFIG).shape == (3, 320, 320)
    assert postprocess(np.eye(320, dtype=np.float32), photo.size).shape == (height, width)


def test_the_input_size_is_height_then_width() -> None:
    assert preprocess(load(noise(30, 40)), CONFIG.replace(input_size=(96, 64))).shape == (3, 96, 64)


def test_a_transparent_photo_is_shown_to_the_network_on_white() -> None:
    transparent = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    transparent.paste((200, 0, 0, 255), (2, 2, 6, 6))
    white = Image.new("RGB", (8, 8), "white")
    white.paste((200, 0, 0), (2, 2, 6, 6))
    assert np.array_equal(preprocess(load(transparent), CONFIG), preprocess(load(white), CONFIG))


def test_a_network_for_grey_gets_one_channel() -> None:
    config = CONFIG.replace(in_channels=1, mean=(0.5,), std=(0.25,), scale="255")
    x = preprocess(load(np.full((8, 8, 3), 51, np.uint8)), config)
    assert x.shape == (1, 320, 320)
    assert np.allclose(x, (0.2 - 0.5) / 0.25)


def test_a_network_for_other_channels_takes_no_photos() -> None:
    config = CONFIG.replace(in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(ValueError, match="takes 4 channels"):
        preprocess(load(noise(8, 8)), config)


# ---- the network's map at the photo's size ---------------------------------------------------------------


def test_minmax_reaches_zero_and_one() -> None:
    stretched = stretch(np.array([[0.2, 0.4], [0.3, 0.25]], np.float32))
    assert np.allclose(stretched, [[0, 1], [0.5, 0.25]])


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_minmax_of_a_constant_map_is_empty(value: float) -> None:
    assert np.array_equal(stretch(np.full((4, 4), value, np.float32)), np.zeros((4, 4)))


def test_upsampling_is_bilinear() -> None:
    saliency = np.random.default_rng(0).random((20, 30), np.float32)
    expected = F.interpolate(torch.from_numpy(saliency)[None, None], size=(47, 91), mode="bilinear")[0, 0]
    assert np.allclose(resize(saliency, (47, 91)), expected, atol=1e-5)


def test_never_keeps_the_probabilities() -> None:
    probability = np.full((4, 4), 0.7, np.float32)
    assert np.allclose(postprocess(probability, (8, 8), minmax="never"), 0.7)


def test_confidence_is_the_mean_of_what_minmax_makes_foreground() -> None:
    probability = np.array([[0.1, 0.2, 0.8, 0.9, 0.5]], np.float32)  # halfway between .1 and .9 is .5
    assert confidence(probability) == pytest.approx((0.8 + 0.9 + 0.5) / 3)


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_a_constant_map_has_no_confidence(value: float) -> None:
    assert confidence(np.full((4, 4), value, np.float32)) == 0


def test_auto_leaves_an_unsure_map_empty() -> None:
    unsure = np.array([[0.01, 0.5], [0.02, 0.4]], np.float32)  # a confidence of .45
    assert not postprocess(unsure, (2, 2), minmax="auto").any()
    assert postprocess(unsure, (2, 2), minmax="always").max() == 1


def test_auto_stretches_a_sure_map_as_always_does() -> None:
    sure = np.array([[0.01, 0.9], [0.02, 0.7]], np.float32)
    assert np.array_equal(postprocess(sure, (2, 2), minmax="auto"), stretch(sure))


def test_each_pixel_gets_its_likeliest_class() -> None:
    probabilities = np.array([[[0.5, 0.1]], [[0.2, 0.6]], [[0.3, 0.3]]], np.float32)
    labels = most_likely(probabilities, (1, 2))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1]]


def test_the_palette_is_that_of_pascal_voc() -> None:
    colours = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    # from the VOC development kit: background, aeroplane, bicycle, bird, person, void
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128)}
    assert {n: tuple(colours[n].tolist()) for n in expected} == expected
    assert tuple(colours[255].tolist()) == (224, 224, 192)


def test_a_large_map_is_resized_as_pillow_does_it(rng: np.random.Generator) -> None:
    saliency = rng.random((32, 40), np.float32)
    for size in ((32, 40), (33, 400), (517, 40), (1000, 701), (20, 400), (500, 30), (5, 7)):
        expected = Image.fromarray(saliency).resize(size[::-1], Image.Resampling.BILINEAR)
        assert np.abs(resize(saliency, size) - np.asarray(expected)).max() <= 1e-5


def test_a_grey_map_is_the_resized_one_in_256_levels(rng: np.random.Generator) -> None:
    saliency = rng.random((32, 40), np.float32)
    for size in ((70, 90), (10, 20)):
        assert np.array_equal(to_grey(saliency, size), np.rint(resize(saliency, size) * 255))


def test_a_jpeg_of_which_less_is_enough_keeps_its_size() -> None:
    data = encoded(Image.fromarray(noise(900, 1201)), "JPEG")
    small = load(data, enough=300)
    assert small.rgb.size == (601, 450)  # a third would do, but JPEG has halves only
    assert small.size == (900, 1201)


def test_a_jpeg_that_is_small_already_is_read_whole() -> None:
    data = encoded(Image.fromarray(noise(90, 120)), "JPEG")
    assert load(data, enough=300) == load(data)
    assert load(data, enough=300).full_size is None


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_read_whole(format: str) -> None:
    data = encoded(Image.fromarray(noise(900, 1200)), format)
    assert load(data, enough=100).rgb.size == (1200, 900)


def test_a_smaller_jpeg_is_turned_upright_with_its_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(noise(800, 799)), "JPEG", exif=exif)
    small = load(data, enough=100)
    assert small.rgb.size == (200, 200)
    assert small.size == (799, 800)


def test_the_size_is_known_from_the_header(tmp_path: Path) -> None:
    Image.fromarray(noise(9, 12)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert peek_size(tmp_path / "a.png") == (9, 12)
    assert peek_size(tmp_path / "b.png") is None
    assert peek_size(tmp_path / "c.png") is None


def test_a_mistyped_minmax_is_refused():
    message = "minmax is 'alwyas', expected 'auto', 'always' or 'never'"
    with pytest.raises(ValueError, match=message):
        postprocess(np.zeros((2, 2), np.float32), (4, 4), minmax="alwyas")
    with pytest.raises(ValueError, match=message):
        normalise(np.zeros((2, 2), np.float32), "alwyas")


def test_an_open_picture_is_called_by_its_file(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert load(picture).name == str(tmp_path / "a.png")


def test_a_picture_from_memory_is_called_image() -> None:
    assert load(Image.new("RGB", (2, 2))).name == "image"


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_an_array_of_too_many_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="5 × 4 pixels, expected at most 19"):
        load(np.zeros(shape, np.uint8), max_pixels=19)
    assert load(np.zeros(shape, np.uint8), max_pixels=20).size == (4, 5)


def test_a_float_picture_whose_highest_value_is_one_is_taken_for_shares_of_white() -> None:
    assert first_pixel(load(Image.new("F", (2, 2), 1.0))) == (255, 255, 255)


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight() -> None:
    # 65406 / 257 = 254.498: not quite half way
    assert first_pixel(load(Image.new("I", (2, 2), 65406))) == (254, 254, 254)
    assert first_pixel(load(np.full((2, 2), 65406, np.uint16))) == (254, 254, 254)


def test_the_highest_value_of_sixteen_bits_is_white() -> None:
    assert first_pixel(load(Image.new("I", (2, 2), 65535))) == (255, 255, 255)


def test_a_damaged_avif_is_not_taken_for_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_register_heif", lambda: False)
    with pytest.raises(ValueError, match=r"cannot be read|not a picture"):
        load(b"\0\0\0\x1cftypavif" + bytes(16))
