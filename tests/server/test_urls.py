"""Photos are fetched only from hosts that the owner allows, at public addresses, by one look-up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from starlette.testclient import TestClient

from u2net_hub import SaliencyPipeline, remove
from u2net_hub.server import create_app, urls
from u2net_hub.server.problems import Problem

HOST = "photos.example"


class Host:
    """A web server on loopback that stands for a host on the internet."""

    def __init__(self) -> None:
        self.paths: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        self.drip = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.headers['Host']} {self.path}")
                status, headers, body = outer.paths.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for i in range(0, len(body), 1 if outer.drip else 1 << 16):
                    time.sleep(outer.drip)
                    try:
                        self.wfile.write(body[i : i + (1 if outer.drip else 1 << 16)])
                    except OSError:
                        return

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str, host: str = HOST) -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Every name leads to loopback, which counts as public here."""
    host = Host()

    def look_up(name: str, port: int, **kwargs: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(urls.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(urls, "is_public", lambda address: address == "127.0.0.1")
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def fetcher(host: Host) -> Iterator[urls.Fetcher]:
    fetcher = urls.Fetcher([f"{HOST}:{host.port}"], 10_000)
    yield fetcher
    fetcher.close()


def fetched(fetcher: urls.Fetcher, url: str) -> bytes:
    return asyncio.run(fetcher.fetch(url))


def test_an_allowed_photo_is_answered(
    host: Host, pipeline: SaliencyPipeline, photo: bytes, settings: Any
) -> None:
    host.paths["/cat.jpg?size=2"] = 200, {}, photo
    app = create_app(replace(settings, allow_urls=(f"{HOST}:{host.port}",)), pipelines={"tiny": pipeline})
    url = host.url("/cat.jpg?size=2")
    expected = remove(photo, session=pipeline)
    with TestClient(app) as client:
        assert client.get("/api/remove", params={"url": url}).content == expected
        assert client.post("/v1.0/removebg", data={"image_url": url}).content == expected
        refused = client.get("/api/remove", params={"url": "http://other.example/cat.jpg"})
    assert refused.status_code == 403
    assert host.asked[0] == f"{HOST}:{host.port} /cat.jpg?size=2"
    assert len(host.asked) == 2


def test_a_redirect_to_an_allowed_host_is_followed(host: Host, fetcher: urls.Fetcher) -> None:
    host.paths["/a"] = 302, {"Location": "/b"}, b""
    host.paths["/b"] = 301, {"Location": host.url("/c")}, b""
    host.paths["/c"] = 200, {}, b"data"
    assert fetched(fetcher, host.url("/a")) == b"data"


@pytest.mark.parametrize(
    "target", ["http://other.example/", "http://127.0.0.1/", "file:///etc/passwd", "//[::1]/", "ftp://x/"]
)
def test_a_redirect_to_another_host_is_refused(host: Host, fetcher: urls.Fetcher, target: str) -> None:
    host.paths["/a"] = 302, {"Location": target}, b""
    with pytest.raises(Problem, match="is not allowed"):
        fetched(fetcher, host.url("/a"))
    assert len(host.asked) == 1


def test_redirects_in_a_circle_end(host: Host, fetcher: urls.Fetcher) -> None:
    host.paths["/a"] = 302, {"Location": "/a"}, b""
    with pytest.raises(Problem, match="redirects more than 3 times"):
        fetched(fetcher, host.url("/a"))


def test_a_large_photo_is_not_read_to_its_end(host: Host, fetcher: urls.Fetcher) -> None:
    host.paths["/a"] = 200, {}, bytes(10_001)
    with pytest.raises(Problem, match="more than 10,000 bytes"):
        fetched(fetcher, host.url("/a"))


def test_a_slow_host_is_given_up(host: Host, fetcher: urls.Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_SECONDS", 0.2)
    host.paths["/a"] = 200, {}, bytes(1000)
    host.drip = 0.02
    with pytest.raises(Problem, match="it took too long"):
        fetched(fetcher, host.url("/a"))


def test_a_photo_that_ends_early_is_refused(host: Host, fetcher: urls.Fetcher) -> None:
    host.paths["/a"] = 200, {"Content-Length": "9"}, b"data"
    with pytest.raises(Problem, match="ended before"):
        fetched(fetcher, host.url("/a"))


def test_a_missing_photo_is_said(host: Host, fetcher: urls.Fetcher) -> None:
    with pytest.raises(Problem, match="status 404"):
        fetched(fetcher, host.url("/none"))


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/",  # another port
        f"https://{HOST}/",
        "http://user@{}/",
        "http://user:password@{}/",
        "http://{}.evil.example/",
        "http://evil.example/{}",
        "http://evil.example\\@{}/",
        "http://{}\n.evil.example/",
        "gopher://{}/",
        "{}",
        "",
        "http://",
        "http://[::1",
    ],
)
def test_other_addresses_are_refused_unasked(host: Host, fetcher: urls.Fetcher, url: str) -> None:
    with pytest.raises(Problem, match="is not allowed"):
        fetched(fetcher, url.format(f"{HOST}:{host.port}"))
    assert not host.asked


def test_a_host_is_looked_up_once(host: Host, fetcher: urls.Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    # the second look-up of a name would give another address: DNS rebinding
    host.paths["/a"] = 200, {}, b"data"
    answers = iter(["127.0.0.1"])
    monkeypatch.setattr(
        urls.socket,
        "getaddrinfo",
        lambda name, port, **kwargs: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))],
    )
    assert fetched(fetcher, host.url("/a")) == b"data"


def test_a_host_with_a_private_address_is_refused(
    host: Host, fetcher: urls.Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "is_public", lambda address: False)
    with pytest.raises(Problem, match="not public"):
        fetched(fetcher, host.url("/a"))
    assert not host.asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:c0a8:101::",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not urls.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are_public(address: str) -> None:
    assert urls.is_public(address) or address.startswith("::ffff:")  # older Pythons call these private


@pytest.mark.parametrize("text", ["", "http://a", "a/b", "a:x", "a:99999", "user@a", "a?b"])
def test_an_allowed_host_is_a_host(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST or HOST:PORT"):
        urls.Fetcher([text], 1)
