"""The route /v1.0/removebg, for clients of remove.bg."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Request, Response
from PIL import Image, ImageColor
from pydantic import BeforeValidator, Field

from ..imaging import Format, encode, load
from .options import AS_TEXT, Options, describe_form, parse
from .problems import Problem, shortened
from .state import Shared, answer, read, take_file
from .uploads import Fields

if TYPE_CHECKING:
    from ..imaging import Edges
    from ..inference import SaliencyResult

router = APIRouter(tags=["Photos"])

# The largest number of pixels of each size, as remove.bg's documentation gives them
_MOST_PIXELS = {"preview": 0.25e6, "small": 0.25e6, "regular": 0.25e6, "medium": 1.5e6, "hd": 4e6, "4k": 10e6}
_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_HEX = re.compile(r"#?([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_COLOUR = re.compile(rf"{_HEX.pattern}|[a-zA-Z]{{1,30}}")
_NO_SPACE = dict.fromkeys(map(ord, " \t\r\n"))
_LENGTH = re.compile(r"(\d{1,4}(?:\.\d+)?)(px|%)")


def _read_colour(text: object) -> object:
    """Read a colour as remove.bg's clients write it: 81d4fa, fff, 81d4fa77 or green."""
    name = str(text)
    try:
        if not _COLOUR.fullmatch(name):  # Pillow also reads rgb(…) with numbers of any size
            raise ValueError
        return ImageColor.getcolor(f"#{name.lstrip('#')}" if _HEX.fullmatch(name) else name, "RGBA")
    except ValueError:
        raise ValueError("expected a colour as 81d4fa, fff, 81d4fa77 or green") from None


def _read_margin(text: object) -> object:
    """Read one, two or four lengths: "10px", "5% 10px"."""
    lengths = [_LENGTH.fullmatch(each) for each in str(text).split()]
    if len(lengths) not in (1, 2, 4) or not all(lengths):
        raise ValueError("expected one, two or four lengths as 10px or 5%")
    given = [(float(each[1]), each[2]) for each in lengths if each]
    if any(number > (50 if unit == "%" else 500) for number, unit in given):
        raise ValueError("expected at most 50% or 500px")
    top, right = given[0], given[1 % len(given)]
    return (top, right, given[2], given[3]) if len(given) == 4 else (top, right, top, right)


_Length = tuple[float, str]
_Margin = tuple[_Length, _Length, _Length, _Length]
_NO_MARGIN: _Margin = ((0, "px"),) * 4


class RemoveBgOptions(Options):
    """The parameters of /v1.0/removebg, with remove.bg's names."""

    image_file_b64: str = Field("", description="The photo in Base64, instead of image_file.")
    image_url: str = Field("", description="The address of a photo; only with --allow-urls, else an error.")
    size: Literal["auto", "full", "preview", "small", "regular", "medium", "hd", "4k", "50MP"] = Field(
        "auto", description="auto, full or absent: the photo's own size. Others: at most so many pixels."
    )
    type: str = Field("auto", description="Accepted; one network knows all types of objects.")
    type_level: str = Field("1", description="Accepted; X-Type is always 'other'.")
    format: Literal["auto", "png", "jpg", "webp"] = Field(
        "auto", description="auto: PNG if the picture has transparency, else JPG. zip is not available."
    )
    bg_color: Annotated[tuple[int, int, int, int] | None, BeforeValidator(_read_colour), AS_TEXT] = Field(
        None, description="A background colour: 81d4fa, fff, 81d4fa77 or green."
    )
    crop: bool = Field(False, description="Crop to the object.")
    crop_margin: Annotated[_Margin, BeforeValidator(_read_margin), AS_TEXT] = Field(
        _NO_MARGIN, description="A margin around the object when cropping: 10px, 5%, or four of them."
    )
    channels: Literal["rgba", "alpha"] = Field("rgba", description="alpha: only the mask, 8-bit grey.")
    semitransparency: bool = Field(
        True, description="Accepted; see-through objects keep the network's alpha."
    )
    scale: Literal["original"] = Field("original", description="Only original.")
    position: Literal["original"] = Field("original", description="Only original.")
    roi: Literal["0% 0% 100% 100%"] = Field("0% 0% 100% 100%", description="Only the whole photo.")
    add_shadow: Literal["false"] = Field("false", description="Only false; no shadows are drawn.")
    shadow_type: Literal["none"] = Field("none", description="Only none; no shadows are drawn.")
    shadow_opacity: str = Field("", description="Accepted; no shadows are drawn.")
    model: str = Field("", description="Not of remove.bg: the name of a loaded model.")


@dataclass(frozen=True)
class _Made:
    """A picture that was made, with what the headers of the answer say of it."""

    data: memoryview
    media: str
    width: int
    height: int
    box: tuple[int, int, int, int]
    """The object's (left, top, right, bottom) in the picture; zeros if no object was found."""

    def foreground(self) -> dict[str, int]:
        """Return the object's place and size with remove.bg's names."""
        left, top, right, bottom = self.box
        return {"top": top, "left": left, "width": right - left, "height": bottom - top}


_FILES = {
    "image_file": "The photo.",
    "bg_image_file": "A picture for the background, scaled and cropped to the size of the photo.",
}


@router.post(
    "/v1.0/removebg",
    summary="Remove the background, as remove.bg does.",
    response_class=Response,
    responses={200: {"description": "The picture.", "content": {"image/png": {}, "application/json": {}}}},
    openapi_extra=describe_form(RemoveBgOptions, _FILES, []),
)
async def removebg(request: Request) -> Response:
    """Answer with the picture, or with `Accept: application/json` with the picture in Base64.

    Example: `curl -s -F image_file=@photo.jpg http://localhost:7000/v1.0/removebg -o out.png`
    """
    fields = await read(request)
    background = fields.files.pop("bg_image_file", None)
    options = parse(RemoveBgOptions, fields.texts)
    if background is not None and options.bg_color is not None:
        raise Problem(400, "invalid_parameters", "got bg_color and bg_image_file, expected one of them")
    photo = await asyncio.to_thread(_photo, fields, options)
    settings = Shared.of(request).settings
    as_json = request.headers.get("accept", "").partition(";")[0].strip() == "application/json"

    def make(result: SaliencyResult) -> _Made:
        made = render(result, options, background, settings.edges, settings.max_pixels)
        return _as_json(made) if as_json else made

    made = await answer(request, photo, options.model, make, background)
    headers = {
        "X-Type": "other",
        "X-Width": str(made.width),
        "X-Height": str(made.height),
        "X-Credits-Charged": "0",
        **{f"X-Foreground-{name.title()}": str(value) for name, value in made.foreground().items()},
    }
    return Response(made.data, media_type=made.media, headers=headers)


def _photo(fields: Fields, options: RemoveBgOptions) -> bytes | str:
    """Find the photo of a request: bytes, or an address.

    Raises:
        Problem: The request has none or several.
    """
    given = [name for name in ("image_file_b64", "image_url") if getattr(options, name)]
    given += ["image_file"] if fields.files else []
    if len(given) != 1:
        raise Problem(
            400,
            "missing_source" if not given else "multiple_sources",
            f"got {given or 'no photo'}, expected one of image_file, image_file_b64 and image_url",
        )
    if options.image_url:
        return options.image_url
    if not options.image_file_b64:
        return take_file(fields, "image_file")
    text = options.image_file_b64
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text.translate(_NO_SPACE), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            400, "invalid_base64", f"image_file_b64 is {shortened(text, 20)}, expected Base64"
        ) from None


def render(
    result: SaliencyResult,
    options: RemoveBgOptions,
    background: bytes | None,
    edges: Edges,
    max_pixels: int,
) -> _Made:
    """Make the picture of an answer."""
    if options.channels == "alpha":
        picture = result.alpha(edges=edges)
    elif background is not None:
        try:
            behind = load(background, name="bg_image_file", max_pixels=max_pixels)
        except (ValueError, ImportError) as e:
            raise Problem(400, "unreadable_photo", str(e)) from e
        picture = result.over(behind, edges=edges)
    else:
        picture = result.cutout(edges=edges)
        if options.bg_color is not None:
            info = picture.info
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, options.bg_color), picture)
            picture.info = info
    found = result.bbox(edges=edges)
    box = found or (0, 0, 0, 0)
    if options.crop and found is not None:
        area = _with_margin(found, options.crop_margin, picture.size)
        picture = _cropped(picture, area)
        box = (found[0] - area[0], found[1] - area[1], found[2] - area[0], found[3] - area[1])
    limit = _MOST_PIXELS.get(options.size, float("inf"))
    if picture.width * picture.height > limit:
        scale = (limit / (picture.width * picture.height)) ** 0.5
        info, size = picture.info, (int(picture.width * scale) or 1, int(picture.height * scale) or 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture.info = info
        left, top, right, bottom = (round(each * scale) for each in box)
        box = (left, top, right, bottom)
    return _encoded(picture, options.format, box)


def _as_json(made: _Made) -> _Made:
    """Put the picture into remove.bg's JSON."""
    told = {f"foreground_{name}": value for name, value in made.foreground().items()}
    text = json.dumps({"data": {"result_b64": base64.b64encode(made.data).decode("ascii"), **told}})
    return replace(made, data=memoryview(text.encode("ascii")), media="application/json")


def _with_margin(
    box: tuple[int, int, int, int], margin: _Margin, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Enlarge a box; a percentage is of the box's own side. The result stays within the picture."""
    left, top, right, bottom = box
    sides = (bottom - top, right - left, bottom - top, right - left)
    up, out, down, back = (
        round(number * side / 100 if unit == "%" else number)
        for (number, unit), side in zip(margin, sides, strict=True)
    )
    return max(left - back, 0), max(top - up, 0), min(right + out, size[0]), min(bottom + down, size[1])


def _cropped(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    info = picture.info
    picture = picture.crop(box)
    picture.info = info
    return picture


def _encoded(picture: Image.Image, wanted: str, box: tuple[int, int, int, int]) -> _Made:
    is_opaque = picture.mode != "RGBA" or picture.getchannel("A").getextrema()[0] == 255
    chosen: Format = "png"
    if wanted == "jpg" or (wanted == "auto" and is_opaque and picture.mode != "L"):
        chosen = "jpg"
        if picture.mode == "RGBA":  # remove.bg puts the object on white
            info = picture.info
            white = Image.new("RGB", picture.size, (255, 255, 255))
            white.paste(picture, mask=picture.getchannel("A"))
            picture, picture.info = white, info
    elif wanted == "webp":
        chosen = "webp"
    return _Made(encode(picture, chosen), _MEDIA[chosen], picture.width, picture.height, box)
