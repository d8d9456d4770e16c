"""The curl lines of docs/serving.md, sent to the app."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

ROOT = Path(__file__).resolve().parents[2]
LINES = re.findall(r"^curl .+", (ROOT / "docs" / "serving.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_is_answered(client: TestClient, photo: bytes, line: str) -> None:
    words = iter(shlex.split(line)[1:])
    fields, headers, url = [], {}, ""
    for word in words:
        if word == "-F":
            name, _, value = next(words).partition("=")
            file = value.startswith("@")
            data = photo if file else value.encode()  # a smaller one, which takes less time
            fields.append((name, ("x.jpg" if file else None, data)))
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-o":
            next(words)
        elif not word.startswith("-"):
            url = word
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    answer = client.post(path, files=fields, headers=headers) if fields else client.get(path)
    assert answer.status_code == 200, answer.text


def test_the_page_has_lines() -> None:
    assert len(LINES) >= 8
