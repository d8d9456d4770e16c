"""`u2net serve` as a process: when its port opens, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from u2net_hub import server
from u2net_hub.cli import app
from u2net_hub.server import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def process(tiny_source: Path) -> Iterator[tuple[Any, str, int]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "u2net_hub", "serve", "--model", str(tiny_source), "--port", "0",
         "--device", "cpu", "--engine", "torch"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line.startswith("ready at http://127.0.0.1:"), line
        yield started, "127.0.0.1", int(line.rpartition(":")[2])
    finally:
        started.kill()
        started.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program can handle")
def test_the_port_is_open_when_the_server_is_ready_and_sigterm_finishes_what_runs(
    process: tuple[Any, str, int], photo: bytes
) -> None:
    started, host, port = process
    status = HTTPConnection(host, port, timeout=30)
    status.request("GET", "/readyz")
    assert json.loads(status.getresponse().read())["status"] == "ready"
    status.close()

    # a request whose last bytes come after SIGTERM
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = head + photo + b"\r\n--b--\r\n"
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(
            b"POST /mask HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body[:-10]
        )
        time.sleep(0.3)
        started.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert started.poll() is None
        connection.sendall(body[-10:])
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert lines[-1]["route"] == "/mask"
    assert "Traceback" not in errors


def test_a_connection_without_a_request_is_closed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    from u2net_hub.server import connections

    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    config = uvicorn.Config(
        client.app, port=0, lifespan="off", log_config=None, http=connections.TimedProtocol
    )
    server = uvicorn.Server(config)

    async def play() -> tuple[bytes, bytes, bytes]:
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        silent = await asyncio.open_connection(host, port)
        half = await asyncio.open_connection(host, port)
        half[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        whole = await asyncio.open_connection(host, port)
        answers = b""
        for _ in range(4):  # for longer than the limit
            whole[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answers += await whole[0].readuntil(b"}")
            await asyncio.sleep(0.1)
        ends = await silent[0].read(), await half[0].read()
        for _, writer in (silent, half, whole):
            writer.close()
        server.should_exit = True
        await running
        return (*ends, answers)

    silent, half, answers = asyncio.run(asyncio.wait_for(play(), 30))
    assert silent == half == b""
    assert answers.count(b"200 OK") == 4


def test_settings_survive_the_environment() -> None:
    settings = Settings(
        models=("a", "b/c@d"),
        precision="fast",
        window=0.01,
        allow_urls=("x.example", "y:80"),
        allow_pickle=True,
    )
    assert Settings.from_environment({**settings.to_environment(), "HOME": "/"}) == settings


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"U2NET_SERVE_NONSENSE": "1"}, "unknown environment variable U2NET_SERVE_NONSENSE"),
        ({"U2NET_SERVE_QUEUE": "many"}, "U2NET_SERVE_QUEUE is 'many', expected a number"),
        ({"U2NET_SERVE_QUEUE": "0"}, "queue is 0, expected a whole number from 1"),
        ({"U2NET_SERVE_ALLOW_PICKLE": "perhaps"}, "expected true or false"),
        ({"U2NET_SERVE_EDGES": "ragged"}, "expected one of"),
        ({"U2NET_SERVE_MODELS": ""}, "got no models"),
        ({"U2NET_SERVE_TIMEOUT": "nan"}, "timeout above 0"),
    ],
)
def test_a_wrong_setting_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_environment(variables)


def test_the_options_of_the_command_are_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(server, "serve", lambda settings, **how: seen.update(how, settings=settings))
    run = CliRunner().invoke(app, ["serve", "--model", "a", "--model", "b", "--allow-urls", "x.example"])
    assert run.exit_code == 0, run.output
    assert seen["settings"] == Settings(models=("a", "b"), allow_urls=("x.example",))
    assert (seen["host"], seen["port"], seen["workers"]) == ("127.0.0.1", 7000, 1)


@pytest.mark.parametrize(
    "wrong", [{"allow_urls": ("http://x/",)}, {"api_keys": "nowhere"}, {"models": ("/nowhere",)}]
)
def test_wrong_hosts_keys_and_models_end_the_command_before_its_workers_start(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, OSError), match=r"allowed host|nowhere"):
        server.serve(Settings(**wrong), workers=2)


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[serve\]'"):
        server.serve(Settings())
