"""Keys, a full queue, time, clients that leave, the log, the numbers and the pages for people."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from starlette.testclient import TestClient

from u2net_hub import SaliencyPipeline
from u2net_hub.server import Settings, create_app
from u2net_hub.server.limits import ByteBudget, Places
from u2net_hub.server.problems import Problem
from u2net_hub.server.visits import Visit

BOUNDARY = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


class Slow:
    """An engine that waits while its gate is closed."""

    def __init__(self, engine: Any) -> None:
        self.config, self.name, self.device, self.precision = engine.config, "slow", "cpu", "exact"
        self._engine = engine
        self.gate, self.runs = Event(), Event()
        self.gate.set()
        self.photos = 0

    def __call__(self, batch: Any, *, side_outputs: bool = False) -> Any:
        self.runs.set()
        assert self.gate.wait(20)
        self.photos += len(batch)
        return self._engine(batch, side_outputs=side_outputs)


@pytest.fixture
def slow(pipeline: SaliencyPipeline) -> Any:
    from copy import copy

    other = copy(pipeline)
    other.engine = Slow(pipeline.engine)  # type: ignore[assignment]
    return other


class Client:
    """One request to an ASGI app, of which a test decides what arrives when."""

    def __init__(self, app: Any, body: bytes, *, path: str = "/mask", complete: bool = True) -> None:
        self.app, self.path = app, path
        self.messages: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self._body: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": not complete}]

    async def run(self) -> Client:
        scope = {
            "type": "http", "method": "POST", "path": self.path, "raw_path": self.path.encode(),
            "query_string": b"", "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
            "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("1.2.3.4", 5),
        }  # fmt: skip
        await self.app(scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return self._body.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])


def form(photo: bytes) -> bytes:
    return BOUNDARY + photo + b"\r\n--b--\r\n"


async def until(fact: Callable[[], bool]) -> None:
    for _ in range(2000):
        if fact():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def gauge(app: Any, name: str) -> float:
    lines = app.state.shared.metrics.text().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


# ---- a full queue, time, leaving ---------------------------------------------------------------------------


def test_a_full_queue_is_503_at_once(settings: Settings, slow: Any, photo: bytes) -> None:
    app = create_app(replace(settings, queue=2), pipelines={"tiny": slow})

    async def play() -> None:
        slow.engine.gate.clear()
        tasks = [asyncio.create_task(Client(app, form(photo)).run()) for _ in range(2)]
        await until(lambda: gauge(app, "u2net_queue_length") == 2)
        refused = await Client(app, b"", complete=False).run()  # whose body has not even come
        slow.engine.gate.set()
        done = await asyncio.gather(*tasks)
        assert refused.status == 503
        assert dict(refused.messages[0]["headers"])[b"retry-after"] == b"1"
        assert [each.status for each in done] == [200, 200]

    asyncio.run(play())
    assert gauge(app, "u2net_queue_length") == 0
    assert gauge(app, "u2net_pixels") == 0


def test_a_client_that_leaves_frees_its_place_and_its_photo_is_not_processed(
    settings: Settings, slow: Any, photo: bytes
) -> None:
    app = create_app(replace(settings, queue=2), pipelines={"tiny": slow})
    slow.engine.photos = 0

    async def play() -> None:
        slow.engine.gate.clear()
        slow.engine.runs.clear()
        first = asyncio.create_task(Client(app, form(photo)).run())
        await until(slow.engine.runs.is_set)
        leaver = Client(app, form(photo))
        leaving = asyncio.create_task(leaver.run())
        await until(lambda: app.state.shared.workshop._batcher.waiting == 1)
        leaver.left.set()
        await leaving
        await until(lambda: gauge(app, "u2net_queue_length") == 1)
        slow.engine.gate.set()
        assert (await first).status == 200

    asyncio.run(play())
    assert slow.engine.photos == 1
    assert gauge(app, "u2net_clients_left_total") == 1


def test_the_place_of_a_photo_in_the_network_is_free_when_the_network_is(
    settings: Settings, slow: Any, photo: bytes
) -> None:
    app = create_app(settings, pipelines={"tiny": slow})

    async def play() -> None:
        slow.engine.gate.clear()
        slow.engine.runs.clear()
        leaver = Client(app, form(photo))
        leaving = asyncio.create_task(leaver.run())
        await until(slow.engine.runs.is_set)
        leaver.left.set()
        await leaving
        assert gauge(app, "u2net_pixels") > 0  # the photo is in memory still
        slow.engine.gate.set()
        await until(lambda: gauge(app, "u2net_queue_length") == gauge(app, "u2net_pixels") == 0)

    asyncio.run(play())


def test_an_answer_that_takes_too_long_is_504(settings: Settings, slow: Any, photo: bytes) -> None:
    app = create_app(replace(settings, timeout=0.2), pipelines={"tiny": slow})

    async def play() -> None:
        slow.engine.gate.clear()
        assert (await Client(app, form(photo)).run()).status == 504
        slow.engine.gate.set()
        await until(lambda: gauge(app, "u2net_queue_length") == 0)

    asyncio.run(play())


def test_a_body_that_does_not_arrive_is_408(settings: Settings, pipeline: SaliencyPipeline) -> None:
    app = create_app(replace(settings, timeout=0.1), pipelines={"tiny": pipeline})
    assert asyncio.run(Client(app, BOUNDARY, complete=False).run()).status == 408


def test_a_client_that_leaves_during_its_upload_is_no_fault(app: Any, photo: bytes) -> None:
    async def play() -> int:
        client = Client(app, BOUNDARY, complete=False)
        client.left.set()
        return (await client.run()).status

    assert asyncio.run(play()) == 499
    assert gauge(app, "u2net_queue_length") == 0


def test_uploads_together_have_a_limit(settings: Settings, pipeline: SaliencyPipeline) -> None:
    app = create_app(settings, pipelines={"tiny": pipeline})  # a million bytes each, four million in all

    async def play() -> list[int]:
        clients = [Client(app, BOUNDARY + bytes(900_000), complete=False) for _ in range(5)]
        tasks = [asyncio.create_task(each.run()) for each in clients]
        await until(lambda: any(each.messages for each in clients))
        for each in clients:
            each.left.set()
        return sorted(each.status for each in await asyncio.gather(*tasks))

    assert asyncio.run(play()) == [499, 499, 499, 499, 503]


def test_an_upload_without_room_makes_room_for_the_others() -> None:
    budget = ByteBudget(10)
    first, second = (Visit(Places(2), budget, timeout=1) for _ in range(2))
    first.hold_bytes(5)
    second.hold_bytes(5)
    with pytest.raises(Problem):
        first.hold_bytes(1)
    second.hold_bytes(5)


def test_a_client_that_does_not_read_is_given_up(
    settings: Settings, pipeline: SaliencyPipeline, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2net_hub.server import guard

    monkeypatch.setattr(guard, "GRACE", 0.05)
    monkeypatch.setattr(guard, "SLOWEST", 10**9)
    app = create_app(settings, pipelines={"tiny": pipeline})

    class Deaf(Client):
        async def _send(self, message: dict[str, Any]) -> None:
            self.messages.append(message)
            if message["type"] == "http.response.body":
                await asyncio.sleep(30)

    asyncio.run(Deaf(app, form(photo)).run())
    assert gauge(app, "u2net_queue_length") == 0


def test_requests_that_wait_together_run_as_one_batch(settings: Settings, slow: Any, photo: bytes) -> None:
    app = create_app(settings, pipelines={"tiny": slow})
    before = gauge(app, "u2net_batch_photos_count")

    async def play() -> list[bytes]:
        slow.engine.gate.clear()
        slow.engine.runs.clear()
        tasks = [asyncio.create_task(Client(app, form(photo)).run())]
        await until(slow.engine.runs.is_set)
        tasks += [asyncio.create_task(Client(app, form(photo)).run()) for _ in range(3)]
        await until(lambda: app.state.shared.workshop._batcher.waiting == 3)
        slow.engine.gate.set()
        done = await asyncio.gather(*tasks)
        await until(lambda: gauge(app, "u2net_batch_photos_count") == before + 2)
        return [b"".join(m.get("body", b"") for m in each.messages) for each in done]

    assert len(set(asyncio.run(play()))) == 1


# ---- keys --------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(settings: Settings, pipeline: SaliencyPipeline, tmp_path: Any, monkeypatch: Any) -> TestClient:
    (tmp_path / "keys").write_text("# those of the office\nfirst-secret\n\nsecond-secret\n")
    monkeypatch.setenv("U2NET_API_KEYS", "third-secret")
    return TestClient(
        create_app(replace(settings, api_keys=str(tmp_path / "keys")), pipelines={"tiny": pipeline})
    )


@pytest.mark.parametrize("key", ["first-secret", "second-secret", "third-secret"])
@pytest.mark.parametrize("form", ["X-Api-Key: {}", "Authorization: Bearer {}", "authorization: bearer {}"])
def test_every_key_opens_in_either_header(locked: TestClient, photo: bytes, key: str, form: str) -> None:
    name, _, value = form.format(key).partition(": ")
    assert locked.post("/mask", files={"file": photo}, headers={name: value}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Api-Key": "wrong"},
        {"X-Api-Key": ""},
        {"X-Api-Key": "first-secret "[:-2]},
        {"Authorization": "Basic first-secret"},
        {"Authorization": "first-secret"},
        {"X-Api-Key": "# those of the office"},
    ],
)
def test_without_a_key_nothing_is_done(locked: TestClient, headers: dict[str, str]) -> None:
    for path in ("/mask", "/api/remove", "/metrics", "/nothing"):
        answer = locked.post(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "auth_failed"
    answer = locked.post("/v1.0/removebg", headers=headers)
    assert answer.status_code == 403  # as remove.bg answers
    assert answer.json()["errors"][0]["code"] == "auth_failed"


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
def test_health_and_pages_need_no_key(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 200


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", "schlüssel-der-tür\n"])
def test_a_file_without_usable_keys_is_refused(
    settings: Settings, pipeline: SaliencyPipeline, tmp_path: Any, text: str
) -> None:
    (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="key"):
        create_app(replace(settings, api_keys=str(tmp_path / "keys")), pipelines={"tiny": pipeline})


# ---- log, numbers, pages -----------------------------------------------------------------------------------


def test_the_log_says_what_was_done_and_nothing_of_the_photo(
    client: TestClient, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("u2net_hub.server.requests")
    logger.addHandler(caplog.handler)
    try:
        client.post(
            "/mask?threshold=0.5",
            files={"file": ("secret-name.jpg", photo)},
            headers={"X-Api-Key": "secret-key"},
        )
    finally:
        logger.removeHandler(caplog.handler)
    line = json.loads(caplog.records[-1].message)
    assert line["time"].startswith("20")
    assert line["seconds"] > 0
    assert line["bytes"] > len(photo)
    told = {name: line[name] for name in ("method", "route", "status", "model", "width", "height", "batch")}
    assert told == {
        "method": "POST", "route": "/mask", "status": 200, "model": "tiny", "batch": 1,
        "width": 90, "height": 60,
    }  # fmt: skip
    assert "secret" not in caplog.records[-1].message


def test_numbers_are_counted_by_route_and_status(client: TestClient, photo: bytes) -> None:
    client.post("/mask", files={"file": photo})
    client.get("/anything?x=1")
    text = client.get("/metrics").text
    assert 'u2net_requests_total{route="/mask",status="200"}' in text
    assert 'u2net_requests_total{route="other",status="404"}' in text
    assert 'u2net_request_seconds_bucket{le="0.25",route="/mask"}' in text
    assert "anything" not in text


def test_ready_means_started_and_not_stopped(settings: Settings, pipeline: SaliencyPipeline) -> None:
    app = create_app(settings, pipelines={"tiny": pipeline})
    assert TestClient(app).get("/readyz").status_code == 503
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ready", "models": ["tiny"]}
        assert client.get("/healthz").json() == {"status": "ok"}
    assert TestClient(app).get("/readyz").status_code == 503


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(client: TestClient) -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    answer = client.post("/mask", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_may_ask_for_the_head_alone(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == 200


def test_what_is_not_there_is_404_in_json(client: TestClient) -> None:
    assert client.get("/").json()["error"]["code"] == "not_found"
    assert client.delete("/mask").json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("host", ["[", "a b", "x/v1.0/", "<script>", ""])
def test_an_odd_host_is_no_fault(client: TestClient, host: str) -> None:
    page = client.get("/docs", headers={"Host": host})
    assert page.status_code == 200
    assert "<script>" not in page.text
    for path in ("/nothing", "/mask/"):
        assert client.get(path, headers={"Host": host}).json()["error"]["code"] == "not_found"


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("/api/remove", "/v1.0/removebg", "/mask", "curl", "bg_color", "bgc"):
        assert part in page.text
    assert "src=" not in page.text


def test_the_schema_names_every_parameter(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/api/remove"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "model", "a", "af", "ab", "ae", "om", "ppm", "bgc"} <= set(body["properties"])
    assert body["required"] == ["file"]


def test_another_sites_page_gets_no_leave_to_read(client: TestClient, photo: bytes) -> None:
    answer = client.post("/mask", files={"file": photo}, headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_fault_is_500_in_json_without_its_text(settings: Settings, slow: Any, photo: bytes) -> None:
    app = create_app(settings, pipelines={"tiny": slow})

    def broken(batch: Any, *, side_outputs: bool = False) -> Any:
        raise RuntimeError("a secret of the machine")

    slow.engine = broken
    answer = TestClient(app, raise_server_exceptions=False).post("/mask", files={"file": photo})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
