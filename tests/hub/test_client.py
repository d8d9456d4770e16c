"""Which failures of a request are tried again, and what is said of the others."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub import errors

from u2net_hub.hub import client
from u2net_hub.hub.errors import ConflictError, HubError, HubUnavailableError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)


def refused(status: int) -> errors.HfHubHTTPError:
    request = httpx.Request("GET", "http://localhost/org/a")
    return errors.HfHubHTTPError("refused", response=httpx.Response(status, request=request))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_can_pass_is_tried_again(status: int) -> None:
    answers: list[Exception | str] = [refused(status), "content"]

    def do() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert client.call(do, "org/a", "config.json") == "content"


@pytest.mark.parametrize("status", [400, 409, 412, 418])
def test_another_status_is_not_tried_again(status: int) -> None:
    attempts = []

    def do() -> None:
        attempts.append(status)
        raise refused(status)

    with pytest.raises(HubError):
        client.call(do, "org/a", "config.json")
    assert len(attempts) == 1


def test_four_attempts_are_made() -> None:
    attempts = []

    def do() -> None:
        attempts.append(1)
        raise refused(503)

    with pytest.raises(HubUnavailableError):
        client.call(do, "org/a", "config.json")
    assert len(attempts) == 4


@pytest.mark.parametrize("status", [409, 412])
def test_a_push_that_meets_another_is_a_conflict(status: int) -> None:
    def do() -> None:
        raise refused(status)

    with pytest.raises(ConflictError, match="push again"):
        client.call(do, "org/a", "commit", pushing=True)


def test_a_disk_that_is_full_is_named() -> None:
    def do() -> None:
        raise OSError(28, "No space left on device", "/cache/hub")

    with pytest.raises(HubError, match=r"No space left on device \(/cache/hub\); free some space there"):
        client.call(do, "org/a", "model.safetensors")
