"""The parameters of the routes: their names, their ranges and their descriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from ..imaging import Edges
from .problems import Problem, shortened

_Options = TypeVar("_Options", bound="Options")
Rgba = tuple[int, int, int, int]
AS_TEXT = WithJsonSchema({"type": "string"})
"""Describes a parameter that is written as a text and read as something else."""

_MODEL = Field("", description="The name of a loaded model. By default the first one.")


class Options(BaseModel):
    """The parameters of one route."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _read_rgba(text: object) -> object:
    """Read a colour as rembg writes it: "255,136,0,255"."""
    try:
        numbers = tuple(int(each) for each in str(text).split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or not all(0 <= each <= 255 for each in numbers):
        raise ValueError("expected red,green,blue,alpha from 0 to 255, e.g. 255,136,0,255")
    return numbers


def _refuse_vitmatte(value: bool) -> bool:
    if value:
        raise ValueError("expected false, because ViTMatte is another network; for hair there is a=true")
    return value


class RemoveOptions(Options):
    """The parameters of /api/remove, with rembg's names."""

    model: str = _MODEL
    a: bool = Field(False, description="Edges for hair and fur, in the place of rembg's alpha matting.")
    af: int = Field(240, ge=0, le=255, description="Accepted as by rembg; the edges here need no thresholds.")
    ab: int = Field(10, ge=0, le=255, description="Accepted as by rembg; the edges here need no thresholds.")
    ae: int = Field(10, ge=0, description="Accepted as by rembg; the edges here need no erosion.")
    om: bool = Field(False, description="Only the mask, 8-bit grey.")
    ppm: bool = Field(False, description="Round the outline off and make it hard.")
    dc: bool = Field(False, description="Clean colours for soft edges too; other edges have them anyway.")
    vm: Annotated[bool, AfterValidator(_refuse_vitmatte)] = Field(
        False, description="Only false: ViTMatte is another network. For hair there is a."
    )
    extras: Literal["", "{}"] = Field("", description="Only empty: a request loads no model and no file.")
    bgc: Annotated[Rgba | None, BeforeValidator(_read_rgba), AS_TEXT] = Field(
        None, description="A background colour: red,green,blue,alpha from 0 to 255."
    )
    url: str = Field("", description="The address of a photo; only with --allow-urls, else an error.")


class MaskOptions(Options):
    """The parameters of /mask."""

    model: str = _MODEL
    threshold: float | None = Field(
        None, ge=0, le=1, description="The saliency from which a pixel is 255, else 0. By default 256 levels."
    )
    edges: Edges = Field("soft", description="soft: the network's map. sharp or hair: the cutout's edges.")
    url: str = Field("", description="The address of a photo; only with --allow-urls, else an error.")


def parse(kind: type[_Options], texts: dict[str, str]) -> _Options:
    """Read the parameters of a request; empty ones are absent.

    Raises:
        Problem: A parameter is unknown, or its value is invalid.
    """
    try:
        return kind.model_validate({name: text for name, text in texts.items() if text != ""})
    except ValidationError as e:
        error = e.errors(include_url=False)[0]
        name = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            known = sorted(kind.model_fields)
            raise Problem(
                400, "unknown_parameter", f"unknown parameter {shortened(name)}, expected one of {known}"
            ) from None
        why = (
            error["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "expected")
        )
        raise Problem(400, "invalid_parameter", f"{name} is {shortened(error['input'])}: {why}") from None


def describe_form(kind: type[Options], files: dict[str, str], required: list[str]) -> dict[str, Any]:
    """Describe the form of a route for OpenAPI.

    Args:
        kind: The parameters.
        files: The names of the files and their descriptions.
        required: The names that must be there.
    """
    pictures = {
        name: {"type": "string", "format": "binary", "description": words} for name, words in files.items()
    }
    properties = kind.model_json_schema()["properties"]
    for name in properties:
        if isinstance(properties[name].get("default"), list):
            del properties[name]["default"]
    schema = {"type": "object", "properties": {**pictures, **properties}, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def describe_query(kind: type[Options]) -> dict[str, Any]:
    """Describe the parameters of a route in its address for OpenAPI."""
    properties = kind.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "description": each.get("description", ""), "schema": each}
            for name, each in properties.items()
        ]
    }
