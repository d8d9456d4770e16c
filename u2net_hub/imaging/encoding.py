"""Encode pictures as the bytes of a file; all formats except JPEG are lossless."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image

from .png import MODES, encode_png

if TYPE_CHECKING:
    pass

Format: TypeAlias = Literal["png", "webp", "jpg", "tiff"]

# Pillow's name of each format, and how it is written: nothing but JPEG loses anything
WRITTEN: dict[Format, tuple[str, dict[str, object]]] = {
    "png": ("PNG", {"compress_level": 1}),  # of the modes that encode_png leaves to Pillow
    "webp": ("WEBP", {"lossless": True, "exact": True}),  # exact: colours stay where alpha is 0
    "jpg": ("JPEG", {"quality": 95}),
    "tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".tiff": "tiff",
    ".tif": "tiff",
}


def encode(picture: Image.Image, format: Format) -> memoryview:
    """Encode a picture as the bytes of a file, with its ICC profile; all formats but JPEG are lossless."""
    name, how = WRITTEN[format]
    if picture.mode == "P" and name in ("JPEG", "WEBP"):
        picture = picture.convert("RGB")
    if profile := picture.info.get("icc_profile"):
        how = {**how, "icc_profile": profile}
    if format == "png" and picture.mode in MODES:
        return memoryview(encode_png(picture))
    buffer = BytesIO()
    picture.save(buffer, name, **how)
    return buffer.getbuffer()
