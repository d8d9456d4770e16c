"""Read one photo from any source, turn it upright by its EXIF orientation, and separate its alpha."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, TypeAlias

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


# Pillow may open only these formats of photos. An EPS file with the name x.png would start Ghostscript.
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
"""The suffixes of picture files, in lower case. A folder's files with other suffixes are not read."""

# The errors that Pillow raises while it decodes a damaged file
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
    """A decoded, upright photo with the colours of its file; they are not multiplied by alpha."""

    rgb: Image.Image
    """The colours: a picture of mode RGB."""
    alpha: Image.Image | None = None
    """The opacity: a picture of mode L. None for an opaque photo."""
    icc_profile: bytes | None = None
    """The ICC colour profile of `rgb`. None means sRGB."""
    name: str = "image"
    """The name of the photo in messages: the path of its file, if it has one."""
    full_size: tuple[int, int] | None = None
    """The (height, width) of the photo in its file, if `load` decoded `rgb` at a smaller size."""

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels of the upright photo at the full size of its file."""
        return self.full_size or (self.rgb.height, self.rgb.width)

    def on(self, colour: tuple[int, int, int]) -> Image.Image:
        """Put the photo on a background of one colour, so that no transparency is left: mode RGB."""
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
    """Read one photo, turn it upright by its EXIF orientation, and convert its colours to 8 bits.

    Args:
        image: A path, the bytes of a file, a binary file object, a PIL image of any mode, or an array of
            shape (H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4). An array holds uint8, uint16 (which
            is scaled to 8 bits), bool, or float in [0, 1]. Only the first frame of an animation is read.
        name: The name of the photo in messages, if the image itself has none.
        max_pixels: The largest number of pixels. A larger picture is refused before it is decoded. With None,
            only Pillow's own limit holds.
        enough: A length in pixels. A large JPEG file is decoded at ½, ¼ or ⅛ of its size, which is several
            times faster, as long as both sides keep at least this length. None decodes all pixels.

    Raises:
        ValueError: The image cannot be read or is too large; the message names it.
        OSError: The path cannot be opened.
        ImportError: The file is HEIC, and pillow-heif is not installed.
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
    # AVIF and HEIC are both ISO media files ("ftyp"). Pillow reads AVIF itself; HEIC needs pillow-heif.
    heif = head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis")
    formats = (*_FORMATS, "HEIF") if heif and _register_heif() else _FORMATS
    try:
        return _decode(lambda: Image.open(stream, formats=formats), name, max_pixels, enough)
    except ValueError as e:
        if heif and "HEIF" not in formats and isinstance(e.__cause__, UnidentifiedImageError):
            raise ImportError(f"{name} looks like HEIC; to read it: pip install 'u2net-hub[heif]'") from e
        raise


def peek_size(picture: str | os.PathLike[str] | bytes) -> tuple[int, int] | None:
    """Read the (height, width) in pixels from the header of a picture file; None if that is not possible.

    Args:
        picture: The path of the file, or its bytes.
    """
    file = BytesIO(picture) if isinstance(picture, bytes) else picture
    try:
        if isinstance(file, BytesIO) or os.path.isfile(file):  # a pipe can be read only once
            with Image.open(file, formats=_FORMATS) as image:
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
        return None  # only the EXIF block is damaged; the picture itself can be used


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
        # This drops the "transparency" entry. A conversion to RGB would warn of it or keep it.
        image = image.convert("L" if image.mode == "LA" else "RGBA")
    if profile is not None and profile[16:20] != b"RGB ":  # the profile's colour space (ICC.1:2022, 7.2.6)
        return Photo(_to_srgb(image, profile), alpha, name=name)
    return Photo(image.convert("RGB"), alpha, profile, name)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture with a CMYK, grey or Lab profile to sRGB: that profile does not fit RGB pixels."""
    try:
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, BytesIO(profile), srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError):
        # The profile is damaged or of another mode, or Pillow has no LittleCMS.
        return image.convert("RGB")
    assert converted is not None  # only with inPlace=True
    return converted


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """Convert a picture of mode I;16…, I or F to mode L.

    Modes I and F have no fixed range, so the maximum decides what white is: 1 (F only), 255 or 65535.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bit(values))
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # this form also refuses NaN
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
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # resizing may overshoot a little; NaN is refused
            raise ValueError(
                f"{name} has float values from {low:g} to {high:g}, expected [0, 1]; "
                "an image of 0 to 255 goes in as .astype('uint8')"
            )
        values = np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(f"{name} has dtype {values.dtype}, expected uint8, uint16, bool or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(values))
