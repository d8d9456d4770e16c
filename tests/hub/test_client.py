"""Which failures of a request are tried again, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors

from u2net_hub.hub import client
from u2net_hub.hub.errors import AccessDeniedError, ConflictError, HubError, HubUnavailableError


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


def test_a_full_disk_without_a_name_is_that_of_the_folder(tmp_path: Path) -> None:
    def do() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(HubError, match=rf"No space left on device \({tmp_path}\); free some space there"):
        client.call(do, "org/a", "model.safetensors", folder=tmp_path)


@pytest.mark.parametrize(
    ("status", "with_token"), [(401, "does not accept this token"), (403, "this token may not read it")]
)
def test_without_a_token_none_is_spoken_of(status: int, with_token: str) -> None:
    for headers, expected in (({}, "no token was sent"), ({"authorization": "Bearer x"}, with_token)):
        error = refused(status)
        error.response.request.headers.update(headers)

        def do(error: Exception = error) -> None:
            raise error

        with pytest.raises(AccessDeniedError, match=expected):
            client.call(do, "org/a", "config.json")


@pytest.mark.parametrize(
    "text", ["hf_hub_download", "pip install hf_transfer", "Bearer X", "a@b:c@d", "hf_" + "a" * 29]
)
def test_words_are_no_tokens(text: str) -> None:
    assert client.redact_tokens(text) == text
    client.refuse_tokens(text, "it")


def test_tokens_are_removed_from_records() -> None:
    assert client.redact_tokens(f"--token hf_{'aB3' * 12} --out x") == "--token *** --out x"
