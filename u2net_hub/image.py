"""One image: read it, bring it to the network, bring the network's map back to it. Pure functions."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .config import U2NetConfig

# What Pillow may open: the formats of photos, so that nothing hidden in a .png starts Ghostscript (EPS)
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        AvifImagePlugin.AvifImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        PpmImagePlugin.PpmImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
    )
    if plugin.format in Image.OPEN
)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".gif", ".bmp",
    ".ppm", ".pgm", ".jp2",
)  # fmt: skip
"""What a picture's name ends in, in lower case; files so named are taken from a folder."""

# What Pillow raises while it decodes a damaged file
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright, with its colours as they are in the file (never premultiplied)."""

    rgb: Image.Image
    """Mode RGB."""
    alpha: Image.Image | None = None
    """Mode L; None where the photo is opaque."""
    icc_profile: bytes | None = None
    """The colour profile that `rgb` is in; None is sRGB."""
    name: str = "image"
    """The file's path, or what the photo is called in messages."""
    full_size: tuple[int, int] | None = None
    """(height, width) of the photo in its file, where `rgb` is a smaller version of it; see `load`."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, of the photo as it is in its file."""
        return self.full_size or (self.rgb.height, self.rgb.width)

    def on(self, colour: tuple[int, int, int]) -> Image.Image:
        """The photo without transparency, RGB, on a background of one colour."""
        if self.alpha is None:
            return self.rgb
        return Image.composite(self.rgb, Image.new("RGB", self.rgb.size, colour), self.alpha)


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[np.generic] | Photo"
)


def load(
    image: ImageSource,
    *,
    name: str | None = None,
    max_pixels: int | None = None,
    enough: int | None = None,
) -> Photo:
    """Read one photo: EXIF orientation applied, alpha apart, colours in 8 bits.

    Args:
        image: a path, the bytes of a file, a binary file object, a PIL image of any mode, or an array (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), the last with alpha: uint8, uint16 (scaled to 8 bits), bool, or
            float in [0, 1]. Of an animation the first frame is taken.
        name: what to call it in messages, where the image itself has no name.
        max_pixels: refuse a larger picture, before it is decoded; None: up to Pillow's own limit.
        enough: a length in pixels. The file of a large JPEG is decoded at ½, ¼ or ⅛ of its size, several
            times faster, where both sides stay at least as long; None: all pixels.

    Raises:
        ValueError: the image cannot be read or is too large; the message names it.
        OSError: the path cannot be opened.
        ImportError: it is HEIC, and pillow-heif is not installed.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image.Image):
        return _decode(lambda: image, name or str(getattr(image, "filename", "") or "image"), max_pixels)
    if isinstance(image, np.ndarray):
        name = name or "array"
        if max_pixels is not None and image.ndim > 1 and image.shape[0] * image.shape[1] > max_pixels:
            raise _too_large(name, image.shape[1::-1], max_pixels)
        return _from_pil(_from_array(image, name), name)
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            return _from_file(file, str(image), max_pixels, enough)
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_file(BytesIO(image), name or "bytes", max_pixels, enough)
    if hasattr(image, "read"):
        return _from_file(image, name or str(getattr(image, "name", "stream")), max_pixels, enough)
    raise ValueError(
        f"{name or 'image'} is a {type(image).__name__}, "
        "expected a path, bytes, a binary file, a PIL image or an array"
    )


def _from_file(file: IO[bytes], name: str, max_pixels: int | None, enough: int | None = None) -> Photo:
    stream = file if file.seekable() else BytesIO(file.read())
    stream.seek(0)
    head = stream.read(16)
    if isinstance(head, str):
        raise ValueError(f"{name} is open in text mode, expected binary: open(path, 'rb')")
    if not head:
        raise ValueError(f"{name} is empty (0 bytes), expected a picture")
    stream.seek(0)
    # ISO media files: AVIF, which Pillow reads, and HEIC, which it leaves to pillow-heif
    heif = head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis")
    formats = (*_FORMATS, "HEIF") if heif and _register_heif() else _FORMATS
    try:
        return _decode(lambda: Image.open(stream, formats=formats), name, max_pixels, enough)
    except ValueError as e:
        if heif and "HEIF" not in formats and isinstance(e.__cause__, UnidentifiedImageError):
            raise ImportError(f"{name} looks like HEIC; to read it: pip install 'u2net-hub[heif]'") from e
        raise


def peek_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(height, width) in pixels that the header of a picture's file names; None where it cannot be told."""
    try:
        if os.path.isfile(path):  # a pipe can be read only once
            with Image.open(path, formats=_FORMATS) as image:
                return image.height, image.width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *_DAMAGED):
        pass
    return None


@cache
def _register_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _decode(
    open_image: Callable[[], Image.Image], name: str, max_pixels: int | None, enough: int | None = None
) -> Photo:
    try:
        image = open_image()
        if max_pixels is None or image.width * image.height <= max_pixels:
            width, height = image.size
            if enough is not None:
                image.draft(None, (enough, enough))
            reduced = image.size != (width, height)
            image.load()
            orientation = _orientation(image)
            upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
            photo = _from_pil(upright, name)
            turned = orientation in (5, 6, 7, 8)
            full_size = (width, height) if turned else (height, width)
            return replace(photo, full_size=full_size) if reduced else photo
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        if max_pixels is not None:
            raise ValueError(f"{name} is too large, expected at most {max_pixels:,} pixels") from e
        raise ValueError(
            f"{name} is too large: {e} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from e
    except UnidentifiedImageError as e:
        raise ValueError(
            f"{name} is not a picture in a format that is read here ({', '.join(_FORMATS)})"
        ) from e
    except MemoryError as e:
        raise ValueError(f"{name} does not fit into memory") from e
    except _DAMAGED as e:
        raise ValueError(f"{name} cannot be read as a picture: {e}") from e
    raise _too_large(name, image.size, max_pixels)


def _too_large(name: str, size: tuple[int, ...], max_pixels: int) -> ValueError:
    width, height = size
    return ValueError(
        f"{name} is too large: {width} × {height} pixels, expected at most {max_pixels:,} in all; shrink it"
    )


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except _DAMAGED:
        return None  # the picture is whole, only its EXIF block is not


def _from_pil(image: Image.Image, name: str) -> Photo:
    profile = image.info.get("icc_profile") or None
    if image.mode == "F" or image.mode.startswith("I"):
        return Photo(_to_8_bit(image, name).convert("RGB"), name=name)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    alpha = None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
        # without the "transparency" entry, which a conversion to RGB would warn of or carry along
        image = image.convert("L" if image.mode == "LA" else "RGBA")
    if profile is not None and profile[16:20] != b"RGB ":  # ICC.1:2022, 7.2.6: the colour space of the data
        return Photo(_to_srgb(image, profile), alpha, name=name)
    return Photo(image.convert("RGB"), alpha, profile, name)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture with a CMYK, grey or Lab profile, in sRGB: its own profile does not fit RGB pixels."""
    try:
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, BytesIO(profile), srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError):  # a damaged profile, or one of another mode; or no LittleCMS
        return image.convert("RGB")
    assert converted is not None  # only with inPlace=True
    return converted


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """A picture of mode I;16…, I or F as mode L.

    Modes I and F have no fixed range: values up to 1 (F only) are shares of white, up to 255 they are 8-bit,
    up to 65535 16-bit.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bit(values))
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # also where they are NaN
        raise ValueError(
            f"mode {image.mode} with values from {low:g} to {high:g}, expected 0 to 1, 255 or 65535"
        )
    top = 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _from_16_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _from_array(values: NDArray[np.generic], name: str) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.size == 0 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        raise ValueError(
            f"{name} has shape {values.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        )
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype == np.uint16:
        values = _from_16_bit(values)
    elif np.issubdtype(values.dtype, np.floating):
        low, high = values.min(), values.max()
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # rounding of a resize is forgiven; NaN is not
            raise ValueError(
                f"{name} has float values from {low:g} to {high:g}, expected [0, 1]; "
                "an image of 0 to 255 goes in as .astype('uint8')"
            )
        values = np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(f"{name} has dtype {values.dtype}, expected uint8, uint16, bool or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(values))


# A transparent photo is shown to the network on white. Tried on 120 photos of DUTS-TR cut out by their masks,
# with the authors' U²-Net†: it finds the object with an IoU of .988 on white, .985 on grey, .977 on black.
_BACKGROUND = (255, 255, 255)


def preprocess(photo: Photo, config: U2NetConfig) -> NDArray[np.float32]:
    """What the network sees of a photo: float32 (C, h, w), resized, scaled and normalised as the config says.

    Raises:
        ValueError: the network takes neither 3 channels (RGB) nor 1 (grey).
    """
    check_channels(config)
    height, width = config.input_size
    image = photo.on(_BACKGROUND)
    if config.in_channels == 1:
        image = image.convert("L")
    pixels = np.asarray(image.resize((width, height), _RESAMPLE[config.interpolation]), np.float32)
    # the image's own maximum, after resizing: ToTensorLab in the official data_loader.py; black stays black
    top = max(float(pixels.max()), 1.0) if config.scale == "image_max" else 255.0
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    x = (pixels.reshape(height, width, -1) / np.float32(top) - mean) / std
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def check_channels(config: U2NetConfig) -> None:
    """Raise ValueError where the network does not take photos: neither RGB nor grey."""
    if config.in_channels not in (1, 3):
        raise ValueError(
            f"the network takes {config.in_channels} channels, expected 3 (RGB) or 1 (grey) for photos"
        )


FOUND_FROM = 0.5
"""From this confidence on, a photo has a salient object: what min–max would make foreground is, on the mean,
more likely than not to be one.

Chosen on one half of a set made of DUTS-TR, with the authors' U²-Net†, against the map's maximum and its
99.9th percentile: it empties the most of 712 crops without a mask pixel (53 %, against 47 % and 50 %) and
none of 784 photos, the least sure of which has .71, so that weights that are less sure have room. On the
other half it empties 423 of 788 such crops, which all have a foreground with "always", and none of 816
photos; nor does it one of 100 of ECSSD. Most crops that keep their foreground do show something, unmarked
in their photo."""


def confidence(probability: NDArray[np.float32]) -> float:
    """How sure the network is that there is a salient object: (h, w) before min–max -> [0, 1].

    The mean probability of what min–max makes foreground, the pixels from halfway between the lowest and the
    highest up; 0 for a constant map, which has no foreground.
    """
    foreground = probability[stretch(probability) >= 0.5]
    return float(foreground.mean()) if foreground.size else 0.0


def postprocess(
    probability: NDArray[np.float32],
    size: tuple[int, int],
    *,
    minmax: Literal["auto", "always", "never"] = "always",
) -> NDArray[np.float32]:
    """The network's map at the photo's own size: (h, w) in [0, 1] -> saliency (H, W) in [0, 1].

    Args:
        probability: one map of the network, after its activation.
        size: (height, width) of the photo in pixels.
        minmax: `"always"` stretches the map to [0, 1] as the official code does; `"auto"` does so where
            something was found, and gives an empty map otherwise; `"never"` keeps the probabilities.
    """
    return resize(normalise(probability, minmax), size)


def normalise(
    probability: NDArray[np.float32], minmax: Literal["auto", "always", "never"]
) -> NDArray[np.float32]:
    """Min–max as `postprocess` says, at the network's own size: (h, w) -> (h, w), both in [0, 1]."""
    if minmax == "never":
        return probability
    if minmax == "auto" and confidence(probability) < FOUND_FROM:
        return np.zeros_like(probability)
    return stretch(probability)


def stretch(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min–max normalisation, (h, w) -> (h, w) from 0 to 1 (normPRED in the official u2net_test.py).

    A constant map, where it would divide by zero, has nothing in it: it becomes 0.
    """
    low, high = saliency.min(), saliency.max()
    if high <= low:
        return np.zeros_like(saliency)
    return np.asarray((saliency - low) / (high - low), np.float32)


def resize(saliency: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear, (h, w) in [0, 1] -> (H, W) in [0, 1]; `size` is (H, W) in pixels."""
    resized = np.empty(size, np.float32)
    for rows, values in _resized_strips(saliency, size):
        resized[rows] = values
    return resized


def to_grey(saliency: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`resize` in 256 levels: (h, w) in [0, 1] -> uint8 (H, W).

    It never holds a float map of the photo's size, which for 12 megapixels takes 48 MB.
    """
    grey = np.empty(size, np.uint8)
    for rows, values in _resized_strips(saliency, size):
        values *= 255
        grey[rows] = np.rint(values, out=values)
    return grey


# Rows of a large map that are made at once: few enough for the processor's cache
_STRIP_ROWS = 32


def _resized_strips(
    saliency: NDArray[np.float32], size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The resized map in strips, each with its rows; a strip may be changed."""
    height, width = size
    h, w = saliency.shape
    image = Image.fromarray(saliency)
    if height < h:
        values = np.array(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        yield slice(0, height), np.clip(values, 0, 1, out=values)
        return
    wide = np.asarray(image if width == w else image.resize((width, h), Image.Resampling.BILINEAR))
    # rows between two rows, centres of pixels on centres, as Pillow does it
    position = np.clip((np.arange(height) + 0.5) * (h / height) - 0.5, 0, h - 1)
    upper = position.astype(np.intp)
    lower = np.minimum(upper + 1, h - 1)
    share = (position - upper).astype(np.float32)[:, None]
    for top in range(0, height, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, height))
        values, above = wide[lower[rows]], wide[upper[rows]]
        values -= above
        values *= share[rows]
        values += above
        yield rows, np.clip(values, 0, 1, out=values)


def most_likely(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Class of each pixel of the photo: (out, h, w) -> labels uint8 (H, W); `size` is (H, W) in pixels.

    One class is resized after another, so that many classes on a large photo need the memory of two maps.
    """
    best = resize(probabilities[0], size)
    labels = np.zeros(size, np.uint8)
    for i in range(1, len(probabilities)):
        candidate = resize(probabilities[i], size)
        labels[candidate > best] = i
        np.maximum(best, candidate, out=best)
    return labels


def palette() -> bytes:
    """Colours of the classes 0 … 255 for a palette picture: the PASCAL VOC colour map, 0 is black."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(
        8
    ):  # bits 0, 1, 2 of the class number go to the top of red, green, blue; then the next three
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()
