"""Requests that would take too much memory or time are refused before they do."""

from __future__ import annotations

import tracemalloc

import pytest
from starlette.testclient import TestClient

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def refused(answer: object) -> str:
    assert answer.status_code == 400  # type: ignore[attr-defined]
    return str(answer.json()["error"]["code"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["bgc", "model", "an_unknown_one"])
def test_a_long_text_is_refused(client: TestClient, photo: bytes, name: str) -> None:
    answer = client.post("/api/remove", files={"file": photo}, data={name: "1," * 5_000})
    assert refused(answer) == "field_too_long"


def test_a_photo_in_base64_may_be_long(client: TestClient) -> None:
    answer = client.post("/v1.0/removebg", data={"image_file_b64": "A" * 8_000})
    assert answer.json()["errors"][0]["code"] == "unreadable_photo"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"model=" + b"%41" * 300_000, FORM),
        (b'{"model": [' + b"[]," * 300_000 + b"[]]}", JSON),
        (b'{"model": ' + b'{"a":' * 150_000 + b"}" * 150_000 + b"}", JSON),
        (b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b"}", JSON),
    ],
    ids=["escapes", "lists", "objects", "members"],
)
def test_a_body_of_many_small_values_takes_no_memory(
    client: TestClient, body: bytes, headers: dict[str, str]
) -> None:
    tracemalloc.start()
    try:
        answer = client.post("/api/remove", content=body, headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused(answer) in ("damaged_form", "damaged_json")
    assert peak < 10 * len(body)
