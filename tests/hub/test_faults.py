"""Every request of a load and of a push, with every fault: the right weights, or an error that helps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest
from hub_server import WRITER, HubServer
from huggingface_hub import constants

from u2net_hub import U2Net
from u2net_hub.hub.errors import ConflictError, CorruptFileError, HubError, HubUnavailableError
from u2net_hub.hub.push import Pushed

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

T = TypeVar("T")
Tiny = Callable[[int], U2Net]
Expected = type[HubError] | tuple[type[HubError], ...] | None

# what an error has to offer
REMEDY = re.compile(r"; .*(try again|load again|push again|check )")

RIGHT = None
UNKNOWN = (HubError,)
"""A byte of JSON is another one: what that means depends on the byte, but never wrong weights."""

FAULTS = {
    "503 once": ("503", 1),
    "503 for ever": ("503", 10_000),
    "slow": ("stall", 1),
    "truncated": ("truncated", 1),
    "reset": ("reset", 1),
    "corrupt": ("corrupt", 1),
    "corrupt for ever": ("corrupt", 10_000),
    "wrong ETag": ("etag", 1),
    "412": ("412", 1),
    "429 with Retry-After": ("429", 1),
    "sign-in page": ("html", 1),
}
USUAL = {
    **dict.fromkeys(("503 once", "slow", "truncated", "reset", "429 with Retry-After"), RIGHT),
    "503 for ever": HubUnavailableError,
}

# request -> fault -> the error to expect. A HEAD has no body to truncate or to corrupt.
HEAD = {fault: error for fault, error in USUAL.items() if fault != "truncated"}
BODY = {**USUAL, "corrupt": RIGHT, "corrupt for ever": CorruptFileError}
LOAD = {
    "info": {**USUAL, "corrupt": UNKNOWN, "412": HubError, "sign-in page": RIGHT},
    # a file that arrives damaged is fetched once more
    "head:config.json": {**HEAD, "wrong ETag": RIGHT, "412": HubError, "sign-in page": RIGHT},
    "get:config.json": {**BODY, "412": HubError, "sign-in page": RIGHT},
    "head:model.safetensors": {**HEAD, "wrong ETag": RIGHT, "412": HubError, "sign-in page": RIGHT},
    "cdn:model.safetensors": {**BODY, "412": HubError, "sign-in page": RIGHT},
}
PUSH = {
    "create": {**USUAL, "corrupt": UNKNOWN, "412": ConflictError, "sign-in page": RIGHT},
    "info": {**USUAL, "corrupt": UNKNOWN, "412": ConflictError, "sign-in page": RIGHT},
    "branch": {**USUAL, "corrupt": RIGHT, "412": ConflictError},
    "refs": {**USUAL, "corrupt": UNKNOWN, "412": ConflictError},
    "head:README.md": {**HEAD, "wrong ETag": RIGHT, "412": ConflictError},
    "get:README.md": {**USUAL, "corrupt": CorruptFileError, "412": ConflictError},
    "yaml": {**USUAL, "corrupt": UNKNOWN, "412": UNKNOWN},
    # from here on the branch is looked at again after a 412
    "preupload": {**USUAL, "corrupt": UNKNOWN, "412": RIGHT},
    "lfs-batch": {**USUAL, "corrupt": UNKNOWN, "412": RIGHT},
    "lfs-put": {**USUAL, "corrupt": RIGHT, "412": RIGHT},
    # the file is there, and a second attempt does not ask again
    "lfs-verify": {**USUAL, "503 for ever": RIGHT, "corrupt": RIGHT, "412": RIGHT},
    "commit": {**USUAL, "corrupt": UNKNOWN, "412": RIGHT, "sign-in page": RIGHT},
    "tag": {**USUAL, "corrupt": RIGHT, "412": ConflictError},
}


def outcome(do: Callable[[], T]) -> T | HubError:
    try:
        return do()
    except HubError as e:
        return e


def check(result: object, expected: Expected) -> None:
    """The result is no error, or the expected one with all that it has to say."""
    if not isinstance(result, HubError):
        assert expected in (RIGHT, UNKNOWN)
        return
    assert expected is not RIGHT, result
    assert isinstance(result, expected), result
    # the repo, and the file or what else it is about
    assert re.match(r"org/a(@\w+)?: [^:;]+: ", str(result)), result
    assert REMEDY.search(str(result)), result


def rows(table: Mapping[str, Mapping[str, Expected]]) -> list[object]:
    return [
        pytest.param(request, fault, expected, id=f"{request}, {fault}")
        for request, faults in table.items()
        for fault, expected in faults.items()
    ]


def state_hash(network: U2Net) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def files(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny(0).save_pretrained(tmp_path_factory.mktemp("files"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never answers is given up soon."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr("u2net_hub.hub.client.PATIENCE", 0.5)


@pytest.mark.parametrize(("request_", "fault", "expected"), rows(LOAD))
def test_a_load_is_right_or_says_what_to_do(
    hub: HubServer,
    tiny: Tiny,
    files: dict[str, bytes],
    impatient: None,
    request_: str,
    fault: str,
    expected: Expected,
) -> None:
    hub.add("org/a", files)
    kind, times = FAULTS[fault]
    hub.fault(request_, kind, times)
    result = outcome(lambda: U2Net.from_pretrained("org/a"))
    assert kind in {entry.fault for entry in hub.served(request_)}
    check(result, expected)
    if isinstance(result, U2Net):
        assert state_hash(result) == state_hash(tiny(0))
    hub.faults.clear()
    assert state_hash(U2Net.from_pretrained("org/a")) == state_hash(tiny(0))


@pytest.mark.parametrize(("request_", "fault", "expected"), rows(PUSH))
def test_a_push_is_right_or_says_what_to_do(
    hub: HubServer, tiny: Tiny, impatient: None, request_: str, fault: str, expected: Expected
) -> None:
    before = hub.add("org/a", {"README.md": b"Hello.\n" * 9})
    repo = hub.repos["models", "org/a"]
    kind, times = FAULTS[fault]
    hub.fault(request_, kind, times)

    def push() -> Pushed:
        return tiny(0).push_to_hub("org/a", branch="run", tag="v1", token=WRITER)

    result = outcome(push)
    assert kind in {entry.fault for entry in hub.served(request_)}
    check(result, expected)
    if isinstance(result, HubError) and request_ not in ("commit", "tag"):
        assert repo.refs.get("refs/heads/run", before) == before
    hub.faults.clear()
    push()
    assert repo.head == before
    assert len(repo.trees) == 2  # one commit, however often it was tried
    assert hub.read("org/a", "README.md", "v1").decode().count("Hello.\n") == 9
    assert state_hash(U2Net.from_pretrained("org/a@v1")) == state_hash(tiny(0))
