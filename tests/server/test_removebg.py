"""/v1.0/removebg takes what clients of remove.bg send, and answers as it does."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from u2net_hub import SaliencyPipeline, imaging
from u2net_hub.server import removebg

PATH = "/v1.0/removebg"


def opened(answer: Any) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.content))


def error_of(answer: Any, status: int = 400) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert set(error) == {"title", "code", "detail"}
    return dict(error)


@pytest.mark.parametrize(
    "fields", [{}, {"size": "auto"}, {"size": "full"}, {"format": "png"}, {"type": "car"}]
)
def test_by_default_the_answer_is_the_cutout_at_full_size(
    client: TestClient, pipeline: SaliencyPipeline, photo: bytes, fields: dict[str, str]
) -> None:
    answer = client.post(PATH, files={"image_file": photo}, data=fields)
    assert answer.content == bytes(imaging.encode(pipeline(photo).cutout(), "png"))
    assert answer.headers["x-width"] == "90"
    assert answer.headers["x-height"] == "60"
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_a_photo_can_come_in_base64(client: TestClient, photo: bytes, prefix: str) -> None:
    expected = client.post(PATH, files={"image_file": photo}).content
    text = prefix + base64.b64encode(photo).decode()
    assert client.post(PATH, json={"image_file_b64": text, "crop": False}).content == expected
    assert client.post(PATH, data={"image_file_b64": text}).content == expected
    assert client.post(PATH, files={"image_file_b64": (None, text)}).content == expected


def test_json_is_answered_if_it_is_accepted(client: TestClient, photo: bytes) -> None:
    plain = client.post(PATH, files={"image_file": photo})
    answer = client.post(PATH, files={"image_file": photo}, headers={"Accept": "application/json"})
    data = answer.json()["data"]
    assert base64.b64decode(data["result_b64"]) == plain.content
    assert str(data["foreground_width"]) == plain.headers["x-foreground-width"]


def test_a_background_colour_makes_a_jpeg(client: TestClient, photo: bytes) -> None:
    answer = client.post(PATH, files={"image_file": photo}, data={"bg_color": "0000ff"})
    assert answer.headers["content-type"] == "image/jpeg"
    assert opened(answer).mode == "RGB"


@pytest.mark.parametrize("colour", ["81d4fa", "#81d4fa", "81D4FAFF"])
def test_a_background_colour_is_hexadecimal(client: TestClient, photo: bytes, colour: str) -> None:
    data = {"bg_color": colour, "format": "png"}
    picture = opened(client.post(PATH, files={"image_file": photo}, data=data))
    cutout = opened(client.post(PATH, files={"image_file": photo}))
    empty = np.asarray(cutout)[:, :, 3] == 0
    if empty.any():
        assert (np.asarray(picture)[empty] == (0x81, 0xD4, 0xFA, 255)).all()
    assert np.asarray(picture)[:, :, 3].min() == 255


def test_a_background_picture_lies_behind_the_object(
    client: TestClient, pipeline: SaliencyPipeline, photo: bytes, encode: Any
) -> None:
    behind = encode(Image.new("RGB", (9, 9), (1, 2, 3)), "PNG")
    answer = client.post(PATH, files={"image_file": photo, "bg_image_file": behind}, data={"format": "png"})
    assert answer.content == bytes(imaging.encode(pipeline(photo).over((1, 2, 3)), "png"))


def test_only_the_mask_on_request(client: TestClient, pipeline: SaliencyPipeline, photo: bytes) -> None:
    answer = client.post(PATH, files={"image_file": photo}, data={"channels": "alpha"})
    assert answer.content == bytes(imaging.encode(pipeline(photo).alpha(), "png"))


def test_webp_on_request(client: TestClient, pipeline: SaliencyPipeline, photo: bytes) -> None:
    answer = client.post(PATH, files={"image_file": photo}, data={"format": "webp"})
    np.testing.assert_array_equal(np.asarray(opened(answer)), np.asarray(pipeline(photo).cutout()))


def test_small_sizes_are_limits_of_the_pixels(client: TestClient, encode: Any) -> None:
    data = encode(Image.new("RGB", (750, 400), (9, 9, 9)), "PNG")
    answer = client.post(PATH, files={"image_file": data}, data={"size": "preview"})
    width, height = opened(answer).size
    assert 240_000 < width * height <= 250_000
    assert abs(width / height - 750 / 400) < 0.01
    assert opened(client.post(PATH, files={"image_file": data}, data={"size": "hd"})).size == (750, 400)


# A result whose object is known: a box of 20 × 10 pixels at (30, 20) in 100 × 50


class Result:
    def cutout(self, **how: Any) -> Image.Image:
        picture = Image.new("RGBA", (100, 50))
        picture.paste((200, 100, 50, 255), (30, 20, 50, 30))
        return picture

    def bbox(self, **how: Any) -> tuple[int, int, int, int]:
        return 30, 20, 50, 30


def made(**fields: str) -> Any:
    options = removebg.parse(removebg.RemoveBgOptions, fields)
    return removebg.render(Result(), options, None, "soft", 10**6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("margin", "size", "box"),
    [
        ("", (20, 10), (0, 0, 20, 10)),
        ("5px", (30, 20), (5, 5, 25, 15)),
        ("10%", (24, 12), (2, 1, 22, 11)),
        ("5px 10px", (40, 20), (10, 5, 30, 15)),
        ("1px 2px 3px 4px", (26, 14), (4, 1, 24, 11)),
        ("500px", (100, 50), (30, 20, 50, 30)),
    ],
)
def test_cropping_leaves_the_object_and_its_margin(
    margin: str, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    found = made(crop="true", crop_margin=margin)
    assert (found.width, found.height) == size
    assert found.box == box


def test_without_cropping_the_box_tells_where_the_object_is() -> None:
    assert made().box == (30, 20, 50, 30)


def test_a_jpeg_of_a_cutout_is_on_white() -> None:
    picture = Image.open(BytesIO(made(format="jpg").data))
    assert picture.mode == "RGB"
    assert np.asarray(picture)[0, 0].min() > 250


# What is refused


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "huge"},
        {"format": "zip"},
        {"bg_color": "nocolour"},
        {"bg_color": "12345"},
        {"bg_color": "rgb(99999999999999999999,0,0)"},
        {"crop_margin": "5"},
        {"crop_margin": "51%"},
        {"crop_margin": "1px 1px 1px"},
        {"channels": "red"},
        {"add_shadow": "true"},
        {"roi": "0 0 5 5"},
        {"scale": "80%"},
        {"position": "center"},
        {"nonsense": "x"},
        {"bg_image_url": "http://127.0.0.1/"},
    ],
)
def test_what_is_not_here_is_said(client: TestClient, photo: bytes, fields: dict[str, str]) -> None:
    error = error_of(client.post(PATH, files={"image_file": photo}, data=fields))
    assert next(iter(fields)) in error["title"]
    assert "expected" in error["title"]


def test_a_photo_is_needed(client: TestClient) -> None:
    assert error_of(client.post(PATH, data={"size": "auto"}))["code"] == "missing_source"


def test_one_photo_is_enough(client: TestClient, photo: bytes) -> None:
    answer = client.post(PATH, files={"image_file": photo}, data={"image_file_b64": "eA=="})
    assert error_of(answer)["code"] == "multiple_sources"


def test_addresses_are_refused(client: TestClient) -> None:
    answer = client.post(PATH, data={"image_url": "http://169.254.169.254/latest"})
    assert error_of(answer, 403)["code"] == "urls_not_allowed"


@pytest.mark.parametrize("text", ["!", "eA", "data:x", "é"])
def test_what_is_no_base64_is_refused(client: TestClient, text: str) -> None:
    answer = client.post(PATH, json={"image_file_b64": text})
    assert error_of(answer)["code"] in ("invalid_base64", "unreadable_photo")


@pytest.mark.parametrize("content", [{"\ud800": "x"}, {"bg_color": "\ud800"}])
def test_half_of_a_surrogate_pair_is_refused(client: TestClient, content: dict[str, str]) -> None:
    answer = client.post(PATH, content=json.dumps(content), headers={"Content-Type": "application/json"})
    assert error_of(answer)["code"] == "damaged_text"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"[" * 99999, b'{"size": []}', b'{"size": {"a": 1}}'])
def test_damaged_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert error_of(answer)["code"] == "damaged_json"


def test_a_background_that_is_no_picture_is_refused(client: TestClient, photo: bytes) -> None:
    answer = client.post(PATH, files={"image_file": photo, "bg_image_file": b"text"})
    assert error_of(answer)["code"] == "unreadable_photo"


def test_a_background_has_the_limits_of_a_photo(client: TestClient, photo: bytes, encode: Any) -> None:
    thin = encode(Image.new("L", (2001, 1)), "PNG")
    answer = client.post(PATH, files={"image_file": photo, "bg_image_file": thin})
    assert error_of(answer, 413)["code"] == "photo_too_large"
    assert "the background has 2001 × 1 pixels" in error_of(answer, 413)["title"]


def test_other_errors_have_the_same_shape(client: TestClient) -> None:
    assert error_of(client.get(PATH), 405)["code"] == "method_not_allowed"
    assert error_of(client.get("/v1.0/account"), 404)["code"] == "not_found"
