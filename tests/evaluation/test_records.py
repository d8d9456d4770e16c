"""Dataclasses from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from u2net_hub.evaluation.records import read_record


@dataclass(frozen=True)
class Inner:
    side: int
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    seconds: tuple[float, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    note: str | None = None
    done: bool = False


def test_what_asdict_made_is_read_back():
    outer = Outer(Inner(3, "b"), (0.5, 1.0), {"mae": 0.1, "hce": None}, "x", True)
    assert read_record(Outer, json.loads(json.dumps(asdict(outer))), "it") == outer


def test_fields_with_a_default_may_be_missing():
    assert read_record(Outer, {"inner": {"side": 3}}, "it") == Outer(Inner(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner": {}}, r"it\.inner has the fields \[\], expected \['kind', 'side'\]"),
        ({"inner": 3}, r"it\.inner has the fields int"),
        ({"inner": {"side": True}}, r"it\.inner: side is True, expected int"),
        ({"inner": {"side": 3, "kind": "c"}}, "kind is 'c', expected Literal"),
        ({"inner": {"side": 3, "kind": []}}, r"kind is \[\], expected Literal"),
        ({"seconds": 3}, "it: seconds is 3, expected tuple"),
        ({"seconds": ["x"]}, "it: seconds is"),
        ({"scores": {"mae": "low"}}, "it: scores is"),
        ({"note": 3}, "it: note is 3, expected str"),
        ({"done": 1}, "it: done is 1, expected bool"),
        ({"other": 1}, "it has the fields .*'other'"),
    ],
)
def test_fields_of_another_form_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_record(Outer, {"inner": {"side": 3}, **changes}, "it")
