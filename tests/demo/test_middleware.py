"""What the demo's guard lets through, and what not."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from u2net_hub.demo import middleware
from u2net_hub.demo.middleware import Guard

API = "/gradio_api"


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"path": request.url.path, "body": body.decode("latin-1")})


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app))


def file(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_a_call_goes_through_as_it_is(client: TestClient) -> None:
    call = {"data": [file("/tmp/gradio/ab/cat.jpg"), "u2netp", 0.5], "session_hash": "x"}
    answer = client.post(f"{API}/queue/join", json=call)
    assert json.loads(answer.json()["body"]) == call


def test_the_address_that_a_page_shows_a_file_at_is_no_path(client: TestClient) -> None:
    # the browser sends it along with each file that was uploaded
    sent = {**file("/tmp/gradio/cat.jpg"), "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/gradio/cat.jpg"}
    assert client.post(f"{API}/queue/join", json={"data": [sent]}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "http://10.0.0.1/a.jpg",
        "https://host/a.jpg",
        "HTTP://host/a",
        " http://host/a",
        "ftp://host/a",
        "file:///etc/x",
    ],
)
def test_a_file_with_an_address_for_its_path_is_refused(client: TestClient, path: str) -> None:
    for data in ([file(path)], [{"path": path}], [[{"deep": [file(path)]}]]):
        answer = client.post(f"{API}/queue/join", json={"data": data})
        assert answer.status_code == 403
        assert "not fetched from an address" in answer.text


@pytest.mark.parametrize("route", ["queue/join", "call/cutout", "call/v2/cutout", "run/cutout", "api/cutout"])
def test_every_way_to_call_is_guarded(client: TestClient, route: str) -> None:
    assert client.post(f"{API}/{route}", json={"data": [file("http://host/a")]}).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/file=http://host/a", "/gradio_api/file=https://host/a", "/gradio_api/file/http://host/a",
        "/gradio_api/file%3Dhttp://host/a", "/gradio_api/proxy=http://host/a", "/gradio_api/FILE=HTTP://host/a",
    ],
)  # fmt: skip
def test_routes_that_fetch_an_address_are_closed(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("route", ["component_server", "process_recording", "stream/x", "vibe-edit"])
def test_routes_that_nothing_here_needs_are_closed(client: TestClient, route: str) -> None:
    assert client.post(f"{API}/{route}", json={}).status_code == 404


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/file=/tmp/gradio/cat.jpg"])
def test_pages_and_files_go_through(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_a_call_may_be_empty(client: TestClient) -> None:
    assert client.post(f"{API}/reset").status_code == 200


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 200_000])
def test_a_call_that_is_not_json_is_refused(client: TestClient, body: bytes) -> None:
    assert client.post(f"{API}/queue/join", content=body).status_code == 400


def test_a_call_has_a_largest_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_CALL_BYTES", 100)
    assert client.post(f"{API}/queue/join", content=json.dumps("x" * 98)).status_code == 200
    assert client.post(f"{API}/queue/join", content=json.dumps("x" * 99)).status_code == 413


def test_an_upload_has_a_largest_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", 1000)
    assert client.post(f"{API}/upload", files={"files": b"x" * 500}).status_code == 200
    assert client.post(f"{API}/upload", files={"files": b"x" * 1000}).status_code == 413


def test_an_upload_has_to_say_how_long_it_is(client: TestClient) -> None:
    pieces = (b"x" for _ in range(3))  # sent in chunks, without a length
    assert client.post(f"{API}/upload", content=pieces).status_code == 413
