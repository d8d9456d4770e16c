"""A server around a tiny network, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from u2net_hub import SaliencyPipeline
from u2net_hub.server import Settings, create_app

SETTINGS = Settings(
    queue=4, batch_size=4, threads=2, max_bytes=1_000_000, max_pixels=300_000, max_side=2000, timeout=30
)


@pytest.fixture(scope="session")
def settings() -> Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def pipeline(tiny_source: Any) -> SaliencyPipeline:
    return SaliencyPipeline(tiny_source, device="cpu", engine="torch")


@pytest.fixture(scope="session")
def app(pipeline: SaliencyPipeline) -> Any:
    return create_app(SETTINGS, pipelines={"tiny": pipeline})


@pytest.fixture(scope="session")
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG with a bright disc on a dark ground."""
    y, x = np.mgrid[:60, :90]
    disc = ((y - 30) ** 2 + (x - 45) ** 2 < 400)[:, :, None]
    pixels = np.where(disc, np.uint8(220), np.uint8(30)) + np.arange(3, dtype=np.uint8) * 10
    return encoded(Image.fromarray(pixels), "JPEG")


def encoded(image: Image.Image, format: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[[Image.Image, str], bytes]:
    return encoded
