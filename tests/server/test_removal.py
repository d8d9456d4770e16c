"""/api/remove answers as remove() does, and /mask as the pipeline does, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from u2net_hub import SaliencyPipeline, imaging, remove

PATHS = ["/api/remove", "/mask"]


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({}, {}),
        ({"a": "true"}, {"alpha_matting": True}),
        ({"a": "true", "af": "200", "ab": "20", "ae": "5"}, {"alpha_matting": True}),
        ({"om": "true"}, {"only_mask": True}),
        ({"ppm": "true"}, {"post_process_mask": True}),
        ({"om": "1", "ppm": "on"}, {"only_mask": True, "post_process_mask": True}),
        ({"bgc": "255,136,0,255"}, {"bgcolor": (255, 136, 0, 255)}),
        ({"bgc": "0,0,0,100"}, {"bgcolor": (0, 0, 0, 100)}),
        ({"dc": "true"}, {"decontaminate": True}),
        ({"model": "tiny", "vm": "false", "extras": ""}, {}),
    ],
)
@pytest.mark.parametrize("place", ["form", "query"])
def test_the_parameters_are_those_of_rembg(
    client: TestClient,
    pipeline: SaliencyPipeline,
    photo: bytes,
    fields: dict[str, str],
    arguments: dict[str, Any],
    place: str,
) -> None:
    texts: dict[str, Any] = {"data": fields} if place == "form" else {"params": fields}
    answer = client.post("/api/remove", files={"file": photo}, **texts)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == remove(photo, session=pipeline, **arguments)


def test_the_edges_are_those_of_the_settings(pipeline: SaliencyPipeline, photo: bytes, settings: Any) -> None:
    from dataclasses import replace

    from u2net_hub.server import create_app

    with TestClient(create_app(replace(settings, edges="soft"), pipelines={"tiny": pipeline})) as client:
        plain = client.post("/api/remove", files={"file": photo})
        clean = client.post("/api/remove", files={"file": photo}, data={"dc": "true"})
    assert plain.content == remove(photo, session=pipeline, edges="soft")
    assert clean.content == remove(photo, session=pipeline, edges="soft", decontaminate=True)


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({}, {"threshold": None}),
        ({"threshold": "0.5"}, {"threshold": 0.5}),
        ({"edges": "sharp"}, {"threshold": None, "edges": "sharp"}),
    ],
)
def test_a_mask_is_that_of_the_pipeline(
    client: TestClient,
    pipeline: SaliencyPipeline,
    photo: bytes,
    fields: dict[str, str],
    arguments: dict[str, Any],
) -> None:
    answer = client.post("/mask", files={"file": photo}, data=fields)
    assert answer.content == bytes(imaging.encode(pipeline(photo).mask(**arguments), "png"))


# What is refused


def code_of(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message"}
    assert "Traceback" not in answer.text
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "fields",
    [
        {"af": "256"},
        {"af": "x"},
        {"a": "perhaps"},
        {"bgc": "red"},
        {"bgc": "1,2,3"},
        {"bgc": "1,2,3,256"},
        {"vm": "true"},
        {"extras": '{"model_path": "/etc/passwd"}'},
        {"threshold": "2"},
        {"threshold": "nan"},
        {"edges": "ragged"},
        {"nonsense": "1"},
        {"__class__": "1"},
    ],
)
def test_nonsense_is_refused_with_what_was_expected(
    client: TestClient, photo: bytes, path: str, fields: dict[str, str]
) -> None:
    answer = client.post(path, files={"file": photo}, data=fields)
    assert code_of(answer) in ("invalid_parameter", "unknown_parameter")
    name = next(iter(fields))
    assert name in answer.json()["error"]["message"]
    assert "expected" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["u2net", "/etc/passwd", "org/name", "../tiny", "https://host/x"])
def test_only_loaded_models_are_known(client: TestClient, photo: bytes, name: str) -> None:
    answer = client.post("/api/remove", files={"file": photo}, data={"model": name})
    assert code_of(answer) == "unknown_model"
    assert "expected one of ['tiny']" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(99), b"%!PS-Adobe", b"<svg/>"],
)
def test_what_is_no_picture_is_refused(client: TestClient, data: bytes) -> None:
    answer = client.post("/api/remove", files={"file": ("x.png", data)})
    assert code_of(answer) == "unreadable_photo"


def test_a_truncated_picture_is_refused(client: TestClient, photo: bytes) -> None:
    assert code_of(client.post("/mask", files={"file": photo[:-300]})) == "unreadable_photo"


@pytest.mark.parametrize("size", [(1000, 301), (2001, 1)])
def test_too_many_pixels_are_refused_unread(client: TestClient, encode: Any, size: tuple[int, int]) -> None:
    from PIL import Image

    data = encode(Image.new("1", size), "PNG")[:60]  # the header alone
    answer = client.post("/mask", files={"file": data})
    assert code_of(answer, 413) == "photo_too_large"
    assert f"{size[0]} × {size[1]}" in answer.json()["error"]["message"]


def test_a_large_request_is_refused_by_its_head(client: TestClient) -> None:
    answer = client.post("/mask", files={"file": bytes(1_000_001)})
    assert code_of(answer, 413) == "request_too_large"


def test_a_large_request_in_chunks_is_refused_when_it_grows_too_large(client: TestClient) -> None:
    sent = []

    def chunks() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for i in range(30):
            sent.append(i)
            yield bytes(100_000)

    answer = client.post(
        "/mask", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert code_of(answer, 413) == "request_too_large"


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("image", b"x")], "wrong_file"),
        ([("file", b"x"), ("file", b"y")], "field_given_twice"),
        ([("file", b"x"), ("other", b"y")], "wrong_file"),
        ([(str(i), b"x") for i in range(5)], "damaged_form"),
    ],
)
def test_the_one_file_is_called_file(client: TestClient, files: Any, code: str) -> None:
    assert code_of(client.post("/api/remove", files=files)) == code


def test_a_text_is_no_file(client: TestClient) -> None:
    answer = client.post("/api/remove", data={"file": "photo.jpg"}, files={"x": b""})
    assert code_of(answer) in ("not_a_file", "unknown_parameter")


@pytest.mark.parametrize("body", [b"", b"--b", b"--b\r\n\r\n\r\n--b--", b"\xff" * 99])
def test_a_damaged_form_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(
        "/api/remove", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert code_of(answer) in ("damaged_form", "wrong_file")


@pytest.mark.parametrize("kind", ["", "image/jpeg", "text/plain", "multipart/mixed"])
def test_other_types_of_content_are_refused(client: TestClient, photo: bytes, kind: str) -> None:
    answer = client.post("/api/remove", content=photo, headers={"Content-Type": kind} if kind else {})
    assert code_of(answer, 415) == "unknown_content_type"


def test_a_form_without_a_boundary_is_refused(client: TestClient, photo: bytes) -> None:
    answer = client.post("/mask", content=photo, headers={"Content-Type": "multipart/form-data"})
    assert code_of(answer) == "damaged_form"


def test_a_field_given_twice_is_refused(client: TestClient, photo: bytes) -> None:
    answer = client.post("/api/remove?a=true", files={"file": photo}, data={"a": "false"})
    assert code_of(answer) == "field_given_twice"


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\x.png", "x\0.png", "/dev/stdin", "a" * 9000])
def test_the_name_of_a_file_means_nothing(client: TestClient, photo: bytes, name: str) -> None:
    answer = client.post("/mask", files={"file": (name, photo)})
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.content == client.post("/mask", files={"file": photo}).content


@pytest.mark.parametrize(
    "url", ["http://example.org/x.jpg", "file:///etc/passwd", "http://127.0.0.1/", "nonsense"]
)
def test_addresses_are_refused(client: TestClient, photo: bytes, url: str) -> None:
    for answer in (
        client.get("/api/remove", params={"url": url}),
        client.post("/api/remove", params={"url": url}, files={"file": photo}),
        client.post("/mask", data={"url": url}),
    ):
        assert code_of(answer, 403) == "urls_not_allowed"
        assert "--allow-urls" in answer.json()["error"]["message"]


def test_a_get_without_an_address_says_how_to_send_a_photo(client: TestClient) -> None:
    assert code_of(client.get("/api/remove")) == "no_photo"
