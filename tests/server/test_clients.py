"""Clients as the pages of rembg and remove.bg show them, against a server on loopback."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from u2net_hub import SaliencyPipeline
from u2net_hub.server import Settings, create_app
from u2net_hub.server.connections import TimedProtocol

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def address(pipeline: SaliencyPipeline) -> Iterator[str]:
    app = create_app(Settings(max_bytes=1_000_000), pipelines={"tiny": pipeline})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=TimedProtocol, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        listener.listen()
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def file(photo: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo)
    return path


def assert_cutout(png: bytes, pipeline: SaliencyPipeline, photo: bytes) -> None:
    """The answer has the pixels of the pipeline's own cutout."""
    with Image.open(BytesIO(png)) as answer:
        assert np.array_equal(np.asarray(answer), np.asarray(pipeline(photo).cutout()))


@needs_curl
def test_curl_as_rembg_shows_it(
    address: str, file: Path, pipeline: SaliencyPipeline, photo: bytes, tmp_path: Path
) -> None:
    words = ["curl", "-s", "-F", f"file=@{file}", f"{address}/api/remove", "-o", "output.png"]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert_cutout((tmp_path / "output.png").read_bytes(), pipeline, photo)


@needs_curl
def test_curl_as_removebg_shows_it(
    address: str, file: Path, pipeline: SaliencyPipeline, photo: bytes, tmp_path: Path
) -> None:
    words = ["curl", "-s", "-H", "X-API-Key: INSERT_YOUR_API_KEY_HERE", "-F", f"image_file=@{file}",
             "-F", "size=auto", "-f", f"{address}/v1.0/removebg", "-o", "no-bg.png"]  # fmt: skip
    subprocess.run(words, cwd=tmp_path, check=True)
    assert_cutout((tmp_path / "no-bg.png").read_bytes(), pipeline, photo)


@needs_curl
def test_curl_says_that_a_text_is_refused(address: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("not a photo")
    words = ["curl", "-s", "-f", "-F", "file=@photo.png", f"{address}/api/remove", "-o", "output.png"]
    assert subprocess.run(words, cwd=tmp_path, check=False).returncode == 22
    assert not (tmp_path / "output.png").exists()


def test_requests_as_removebg_shows_it(
    address: str, file: Path, pipeline: SaliencyPipeline, photo: bytes
) -> None:
    requests = pytest.importorskip("requests")
    with file.open("rb") as image:
        response = requests.post(
            f"{address}/v1.0/removebg",
            files={"image_file": image},
            data={"size": "auto"},
            headers={"X-Api-Key": "INSERT_YOUR_API_KEY_HERE"},
        )
    assert response.status_code == requests.codes.ok
    assert_cutout(response.content, pipeline, photo)


@pytest.mark.parametrize("field", [{"size": "regular"}, {"size": "regular", "bg_color": None}], ids=str)
def test_a_photo_in_a_form_of_base64_as_the_package_removebg_sends_it(
    address: str, pipeline: SaliencyPipeline, photo: bytes, field: dict[str, Any]
) -> None:
    requests = pytest.importorskip("requests")
    data = {"image_file_b64": base64.b64encode(photo), **field}
    response = requests.post(f"{address}/v1.0/removebg", data=data, headers={"X-Api-Key": "key"})
    assert response.status_code == requests.codes.ok
    assert_cutout(response.content, pipeline, photo)


def test_a_head_of_any_size_is_not_kept(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 30_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
