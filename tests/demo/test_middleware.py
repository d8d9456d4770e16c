"""What the demo's guard lets through, and what not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from u2net_hub.demo import middleware
from u2net_hub.demo.middleware import Guard
from u2net_hub.demo.storage import FILE_BYTES, SHARE, Storage
from u2net_hub.demo.visitors import Presence

API = "/gradio_api"


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"path": request.url.path, "body": body.decode("latin-1")})


async def talk(socket: WebSocket) -> None:
    await socket.accept()


@pytest.fixture
def client() -> TestClient:
    routes = [
        Route("/{path:path}", echo, methods=["GET", "POST", "PUT"]),
        WebSocketRoute("/{path:path}", talk),
    ]
    return TestClient(Guard(Starlette(routes=routes)))


def file(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_a_call_goes_through_as_it_is(client: TestClient) -> None:
    call = {"data": [file("/tmp/gradio/ab/cat.jpg"), "u2netp", 0.5], "session_hash": "x", "fn_index": 3}
    answer = client.post(f"{API}/queue/join", json=call)
    assert json.loads(answer.json()["body"]) == call


def test_the_address_that_a_page_shows_a_file_at_does_not_reach_gradio(client: TestClient) -> None:
    # the browser sends it along with each file that was uploaded
    sent = {
        **file("/tmp/gradio/a b.jpg"),
        "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/gradio/a%20b.jpg",
    }
    answer = client.post(f"{API}/queue/join", json={"data": [sent]})
    assert json.loads(answer.json()["body"])["data"] == [file("/tmp/gradio/a b.jpg")]


def test_an_example_of_this_page_is_named_by_its_address_and_read_from_its_path(client: TestClient) -> None:
    answer = client.post(
        f"{API}/call/cutout", json={"data": [file("https://x.hf.space/gradio_api/file=/tmp/gradio/cat.jpg")]}
    )
    assert json.loads(answer.json()["body"])["data"] == [file("/tmp/gradio/cat.jpg")]


@pytest.mark.parametrize(
    "path",
    [
        "http://10.0.0.1/a.jpg", "https://host/a.jpg", "HTTP://host/a", " http://host/a", "\x00http://host/a",
        "ftp://host/a", "file:///etc/x", "hf://org/a", "gopher:\\\\host/a",
        "http://host/gradio_api/file=http://10.0.0.1/a",
    ],
)  # fmt: skip
def test_an_address_is_refused_wherever_it_stands(client: TestClient, path: str) -> None:
    deep = {"a": [{"b": path}]}
    for data in ([file(path)], [{"path": path}], [[{"deep": [file(path)]}]], [path], [deep], [{path: 1}]):
        for route in ("queue/join", "call/cutout"):
            answer = client.post(f"{API}/{route}", json={"data": data})
            assert answer.status_code == 403
            assert "addresses are not fetched here; upload the file" in answer.json()["detail"]
    assert client.post(f"{API}/call/v2/cutout", json={"photo": file(path)}).status_code == 403


def test_an_address_beside_another_path_is_refused(client: TestClient) -> None:
    sent = {**file("/tmp/gradio/cat.jpg"), "url": "http://host/cat.jpg"}
    assert client.post(f"{API}/queue/join", json={"data": [sent]}).status_code == 403


@pytest.mark.parametrize("route", ["run/cutout", "run/upload", "api/cutout", "api/upload", "upload/../run/x"])
@pytest.mark.parametrize("form", ["json", "multipart"])
def test_ways_around_the_queue_are_closed(client: TestClient, route: str, form: str) -> None:
    body = {"json": {"json": {"data": [], "fn_index": 1}}, "multipart": {"files": {"files": b"x"}}}[form]
    assert client.post(f"{API}/{route}", **body).status_code == 404  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field", ["batched", "event_id", "event_data", "simple_format", "oauth_token", "request", "trigger"]
)
def test_fields_that_no_page_sends_do_not_reach_gradio(client: TestClient, field: str) -> None:
    answer = client.post(f"{API}/queue/join", json={"data": [], "fn_index": 1, field: "x"})
    assert json.loads(answer.json()["body"]) == {"data": [], "fn_index": 1}


def test_a_call_by_name_cannot_name_another_function_by_its_number(client: TestClient) -> None:
    answer = client.post(f"{API}/call/cutout", json={"data": [], "fn_index": 1, "session_hash": "theirs"})
    assert json.loads(answer.json()["body"]) == {"data": []}


@pytest.mark.parametrize(
    "path",
    [
        "/file=http://host/a", "/gradio_api/file=https://host/a", "/gradio_api/file/http://host/a",
        "/gradio_api/file%3Dhttp://host/a", "/gradio_api/proxy=http://host/a", "/gradio_api/FILE=HTTP://host/a",
        "/gradio_api/file=%20http://host/a", "/monitoring", "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/custom_component/a/b/c/d", "/gradio_api/deep_link", "/docs", "/gradio_api/dev/reload",
    ],
)  # fmt: skip
def test_what_the_page_does_not_read_is_closed(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "route", ["component_server", "process_recording", "stream/x", "vibe-edit", "upload/x"]
)
def test_what_the_page_does_not_send_is_closed(client: TestClient, route: str) -> None:
    assert client.post(f"{API}/{route}", json={}).status_code == 404
    assert client.put(f"{API}/{route}", json={}).status_code == 404


def test_there_is_no_websocket(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/gradio_api/queue/join"):
        pass


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/file=/tmp/gradio/cat.jpg"])
def test_pages_and_files_go_through(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_a_call_may_be_empty(client: TestClient) -> None:
    assert client.post(f"{API}/reset").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff\xfe", b"[" * 200_000, b"[]", b"3", b'{"data": 1}', b'{"data": [NaN]}', b"{}",
        b'{"data": [], "fn_index": "1"}', b'{"data": [], "fn_index": true}',
        b'{"data": [], "session_hash": {}}',
    ],
)  # fmt: skip
def test_a_call_of_another_form_is_refused(client: TestClient, body: bytes) -> None:
    assert client.post(f"{API}/queue/join", content=body).status_code == 400


def test_a_call_has_a_largest_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_CALL_BYTES", 100)
    assert client.post(f"{API}/reset", content=b"{}" + b" " * 98).status_code == 200
    assert client.post(f"{API}/reset", content=b"{}" + b" " * 99).status_code == 413


def test_an_upload_has_a_largest_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", 1000)
    assert client.post(f"{API}/upload", files={"files": b"x" * 500}).status_code == 200
    assert client.post(f"{API}/upload", files={"files": b"x" * 1000}).status_code == 413


def test_an_upload_has_to_say_how_long_it_is(client: TestClient) -> None:
    pieces = (b"x" for _ in range(3))  # sent in chunks, without a length
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(f"{API}/upload", content=pieces, headers=headers).status_code == 413


def test_an_upload_in_chunks_is_refused_although_it_says_how_long_it_is(client: TestClient) -> None:
    headers = {
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": "3",
        "Transfer-Encoding": "chunked",
    }
    assert client.post(f"{API}/upload", content=b"abc", headers=headers).status_code == 413


@pytest.mark.parametrize("path", ["heartbeat/%0d%0aX", "call/mask/a%00b", "queue/%1b"])
def test_control_characters_in_a_path_do_not_reach_gradio(client: TestClient, path: str) -> None:
    assert client.get(f"{API}/{path}").status_code == 404
    assert client.post(f"{API}/{path}", json={}).status_code == 404


def test_of_a_file_only_what_the_page_reads_reaches_gradio(client: TestClient) -> None:
    odd = {"size": "abc", "mime_type": 5, "is_stream": "x", "orig_name": "x" * 300 + "cat.jpg"}
    answer = client.post(f"{API}/queue/join", json={"data": [{**file("/tmp/a.jpg"), **odd}]})
    (sent,) = json.loads(answer.json()["body"])["data"]
    assert sent == {**file("/tmp/a.jpg"), "orig_name": "x" * 193 + "cat.jpg"}


def test_an_upload_is_multipart(client: TestClient) -> None:
    assert client.post(f"{API}/upload", json={"data": [], "fn_index": 1}).status_code == 415


@pytest.mark.parametrize("path", ["queue/data?session_hash=abc", "call/cutout/abc", "call/v2/cutout/abc"])
def test_who_reads_results_is_present_while_they_are_read(path: str) -> None:
    presence, seen = Presence(), []

    async def answer(request: Request) -> JSONResponse:
        seen.append(set(presence._listening))
        return JSONResponse({})

    TestClient(Guard(Starlette(routes=[Route("/{path:path}", answer)]), presence=presence)).get(
        f"{API}/{path}"
    )
    assert seen == [{"abc"}]
    assert not presence._listening


def test_results_that_there_are_not_are_not_found() -> None:
    class Results:
        session_of = staticmethod({"event": "mine"}.get)

        def __contains__(self, session: object) -> bool:
            return session == "mine"

    client = TestClient(Guard(Starlette(routes=[Route("/{path:path}", echo)]), results=Results()))  # type: ignore[arg-type]
    for known in ("queue/data?session_hash=mine", "call/mask/event", "call/v2/mask/event", "info"):
        assert client.get(f"{API}/{known}").status_code == 200
    for unknown in ("queue/data?session_hash=x", "call/mask/x", "call/v2/mask/x"):
        assert client.get(f"{API}/{unknown}").status_code == 404


def test_results_that_are_dropped_while_they_are_read_end_the_answer_quietly() -> None:
    async def app(request: Request) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            yield "data: first"
            raise HTTPException(404)

        return StreamingResponse(stream())

    client = TestClient(Guard(Starlette(routes=[Route("/{path:path}", app)])))
    assert client.get(f"{API}/queue/data?session_hash=x").text == "data: first"


def storing(tmp_path: Path, most: int) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app, storage=Storage(tmp_path, most * SHARE)))


def test_an_address_that_has_stored_too_much_uploads_no_more(tmp_path: Path) -> None:
    client = storing(tmp_path, 300_000)
    assert client.post(f"{API}/upload", files={"files": b"x" * 200_000}).status_code == 200
    refused = client.post(f"{API}/upload", files={"files": b"x" * 200_000})
    assert refused.status_code == 429
    assert refused.text.startswith("your uploads and results of the last hour have 0.2 MB")


def test_many_small_files_count_by_their_number(tmp_path: Path) -> None:
    client = storing(tmp_path, 5 * FILE_BYTES)
    many = [("files", (f"{number}.jpg", b"x")) for number in range(5)]
    assert client.post(f"{API}/upload", files=many).status_code == 200
    assert client.post(f"{API}/upload", files=many[:1]).status_code == 429


def test_a_form_that_gradio_cannot_read_is_refused() -> None:
    async def app(*_: object) -> None:
        raise TypeError("File is not an instance of GradioUploadFile")

    answer = TestClient(Guard(app)).post(f"{API}/upload", files={"files": b"x"})
    assert answer.status_code == 400
    assert "not a file" in answer.text


def test_one_address_has_a_limited_number_of_open_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[int] = []

    async def app(request: Request) -> JSONResponse:
        if not inner:  # ask again while this request is open
            inner.append(0)
            inner[0] = client.get(f"{API}/info").status_code
        return JSONResponse({})

    client = TestClient(Guard(Starlette(routes=[Route("/{path:path}", app)])))
    monkeypatch.setattr(middleware, "OPEN_REQUESTS", 1)
    assert client.get(f"{API}/info").status_code == 200
    assert inner == [429]
    assert client.get(f"{API}/info").status_code == 200
