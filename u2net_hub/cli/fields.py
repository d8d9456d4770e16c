"""Options that are made from the fields of dataclasses: their names, types, defaults and help texts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from ..training import field_help


def options_of(
    cls: type, *, leave_out: Collection[str] = (), optional: bool = False
) -> list[inspect.Parameter]:
    """Make an option for each field of a dataclass.

    A field that holds a tuple becomes an option that can be repeated.

    Args:
        cls: The dataclass.
        leave_out: Names of fields that become no options.
        optional: Whether every option may be left out and is None then, whatever the default of its field.

    Returns:
        Parameters for the signature of a verb.
    """
    types, texts = get_type_hints(cls), field_help(cls)
    options = []
    for field in fields(cls):
        if field.name in leave_out:
            continue
        kind, default = types[field.name], field.default
        if get_origin(part := _without_none(kind)) is tuple:
            element = get_args(part)[0]
            # typer has no lists of literals; the dataclass checks the words
            kind = list[str] | None if get_origin(element) is Literal else list[element] | None  # type: ignore[valid-type]
            default = None
        if optional or default is MISSING:
            kind, default = kind | None, None
        name = f"--{field.name.replace('_', '-')}"
        switch = name if default is False else f"{name}/--no-{name[2:]}"
        declared = [switch] if _without_none(kind) is bool else [name]
        help_text = re.sub(
            r"`(\w+)`", lambda match: f"--{match[1].replace('_', '-')}", texts.get(field.name, "")
        )
        options.append(option(field.name, kind, default, *declared, help=help_text))
    return options


def option(name: str, kind: Any, default: object, *declared: str, help: str) -> inspect.Parameter:
    """Make one option of a verb.

    Args:
        name: The name of the parameter.
        kind: The type of its value.
        default: The value if the option is not given.
        declared: How the option is written, for instance "--resume".
        help: The help text.
    """
    annotation = Annotated[kind, typer.Option(*declared, help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _without_none(kind: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    parts = [part for part in get_args(kind) if part is not NoneType]
    return parts[0] if len(parts) == 1 else kind
