"""Read dataclasses back from the JSON objects that `dataclasses.asdict` made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def read_record(kind: type[Record], content: object, name: str) -> Record:
    """Make a dataclass from a JSON object, and check the type of every field.

    Args:
        kind: The dataclass. Its fields are text, numbers, booleans, literals, other dataclasses, and optional
            values, tuples of one type, and mappings of these.
        content: The decoded JSON. Fields that have a default may be missing.
        name: The name of the record in messages.

    Raises:
        ValueError: A field is missing, unknown, or of another type; the message names it.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {key for key, field in fields.items() if (field.default, field.default_factory) == missing}
    if not isinstance(content, dict) or not needed <= set(content) <= set(fields):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{name} has the fields {got}, expected {sorted(fields)}")
    hints = get_type_hints(kind)
    read = {}
    for key, value in content.items():
        try:
            read[key] = _read(hints[key], value, f"{name}.{key}")
        except TypeError:
            raise ValueError(f"{name}: {key} is {value!r}, expected {fields[key].type}") from None
    return kind(**read)


def _read(hint: Any, value: object, name: str) -> object:
    """Convert one value to its type, or raise TypeError."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (object, Any):
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_record(hint, value, name)
    if origin in (Union, UnionType):
        for option in inner:
            try:
                return _read(option, value, name)
            except TypeError:
                continue
    elif origin is Literal:
        if value in inner and not isinstance(value, list | dict):
            return value
    elif origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], each, f"{name}[{i}]") for i, each in enumerate(value))
    elif origin is Mapping and isinstance(value, dict):
        return {key: _read(inner[1], each, f"{name}.{key}") for key, each in value.items()}
    else:
        kinds = (int, float) if hint is float else (hint,)
        if hint in (str, int, float, bool, NoneType) and type(value) in kinds:
            return value
    raise TypeError(name)
