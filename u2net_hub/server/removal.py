"""The routes /api/remove, as rembg has it, and /mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from PIL import Image

from ..imaging import Cleanup, Edges, encode, foreground_colours
from .options import MaskOptions, RemoveOptions, describe_form, describe_query, parse
from .problems import Problem
from .state import Shared, answer, read, take_file

if TYPE_CHECKING:
    from ..inference import SaliencyResult

router = APIRouter(tags=["Photos"])
_PNG = {200: {"description": "The picture.", "content": {"image/png": {}}}}
_FILE = {"file": "The photo: JPEG, PNG, WebP, TIFF, AVIF, GIF, BMP or JPEG 2000."}


@router.post(
    "/api/remove",
    summary="Cut the object out of a photo.",
    response_class=Response,
    responses=_PNG,  # type: ignore[arg-type]  # a dict is invariant
    openapi_extra=describe_form(RemoveOptions, _FILE, ["file"]),
)
async def remove(request: Request) -> Response:
    """Answer with a PNG: the cutout in RGBA, or only the mask. The parameters are rembg's.

    Example: `curl -s -F file=@photo.jpg "http://localhost:7000/api/remove" -o cutout.png`
    """
    fields = await read(request)
    options = parse(RemoveOptions, fields.texts)
    return await _removed(request, options.url or take_file(fields, "file"), options)


@router.get(
    "/api/remove",
    summary="Cut the object out of a photo at an address.",
    response_class=Response,
    responses=_PNG,  # type: ignore[arg-type]
    openapi_extra=describe_query(RemoveOptions),
)
async def remove_from_address(request: Request) -> Response:
    """Answer as POST does, if the server was started with `--allow-urls` for the host of `url`."""
    options = parse(RemoveOptions, dict(request.query_params))
    if not options.url:
        raise Problem(
            400, "no_photo", "got no photo; send it with POST as the field file: -F file=@photo.jpg"
        )
    return await _removed(request, options.url, options)


async def _removed(request: Request, photo: bytes | str, options: RemoveOptions) -> Response:
    edges: Edges = "hair" if options.a else Shared.of(request).settings.edges
    data = await answer(request, photo, options.model, lambda result: render(result, options, edges))
    return Response(data, media_type="image/png")


def render(result: SaliencyResult, options: RemoveOptions, edges: Edges) -> memoryview:
    """Make the PNG of an answer: that of `inference.remove` with the same arguments."""
    cleanup = Cleanup(smooth=True) if options.ppm else None
    if options.om:
        return encode(result.alpha(edges=edges, cleanup=cleanup), "png")
    picture = result.cutout(edges=edges, cleanup=cleanup)
    profile = picture.info
    if options.dc and edges == "soft":
        alpha = picture.getchannel("A")
        picture = foreground_colours(result.photo.rgb, alpha)
        picture.putalpha(alpha)
    if options.bgc is not None:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, options.bgc), picture)
    picture.info = profile
    return encode(picture, "png")


@router.post(
    "/mask",
    summary="Make the mask of a photo.",
    response_class=Response,
    responses=_PNG,  # type: ignore[arg-type]
    openapi_extra=describe_form(MaskOptions, _FILE, ["file"]),
)
async def mask(request: Request) -> Response:
    """Answer with a PNG in 8-bit grey: the saliency map, or 0 and 255 with `threshold`.

    Example: `curl -s -F file=@photo.jpg "http://localhost:7000/mask" -o mask.png`
    """
    fields = await read(request)
    options = parse(MaskOptions, fields.texts)
    data = await answer(
        request,
        options.url or take_file(fields, "file"),
        options.model,
        lambda result: encode(result.mask(options.threshold, edges=options.edges), "png"),
    )
    return Response(data, media_type="image/png")
