"""The loopback Hub does for the real client what the real one does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hub_server import OUTSIDER, READER, WRITER, HubServer, card_errors
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError as TransportError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b'{"a": 1}\n', "model.safetensors": WEIGHTS}


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(token=WRITER)


def push(api: HfApi, files: dict[str, bytes], repo_id: str = "org/a", **options: object) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    return str(api.create_commit(repo_id, operations, commit_message="a commit", **options).oid)  # type: ignore[arg-type]


def fetch(api: HfApi, path: str, repo_id: str = "org/a", **options: object) -> bytes:
    return Path(api.hf_hub_download(repo_id, path, **options)).read_bytes()  # type: ignore[call-overload]


def test_what_is_pushed_comes_back(api: HfApi) -> None:
    api.create_repo("org/a")
    commit = push(api, FILES)
    assert {path: fetch(api, path, revision=commit) for path in FILES} == FILES


def test_multipart_upload_is_put_together(api: HfApi, hub: HubServer) -> None:
    hub.part_size = 3000
    api.create_repo("org/a")
    push(api, FILES)
    assert len(hub.served("lfs-put")) == 4
    assert hub.read("org/a", "model.safetensors") == WEIGHTS


def test_xet_round_trip(api: HfApi, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    api.create_repo("org/a")
    push(api, FILES)
    assert fetch(api, "model.safetensors") == WEIGHTS
    assert not hub.served("lfs-*")
    assert not hub.served("cdn:*")


def test_hashes_are_told(api: HfApi) -> None:
    api.create_repo("org/a")
    commit = push(api, FILES)
    tree = {file.path: file for file in api.list_repo_tree("org/a", revision=commit)}
    info = api.model_info("org/a", files_metadata=True)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert info.sha == commit
    assert {s.rfilename: s.lfs and s.lfs.sha256 for s in info.siblings or []} == {
        ".gitattributes": None, "config.json": None, "model.safetensors": sha256,
    }  # fmt: skip
    assert tree["model.safetensors"].lfs.sha256 == sha256  # type: ignore[union-attr]
    # printf 'blob 9\0{"a": 1}\n' | sha1sum
    assert tree["config.json"].blob_id == hashlib.sha1(b'blob 9\0{"a": 1}\n').hexdigest()  # type: ignore[union-attr]


def test_a_long_tree_comes_in_pages(api: HfApi, hub: HubServer) -> None:
    hub.add("org/a", {f"{i}.txt": b"x" for i in range(7)})
    assert len(list(api.list_repo_tree("org/a"))) == 7
    assert len(hub.served("tree")) == 3


def test_the_same_content_makes_no_commit(api: HfApi, hub: HubServer) -> None:
    api.create_repo("org/a")
    assert push(api, FILES) == push(api, FILES)
    assert len(hub.served("commit")) == 1


def test_a_file_can_be_deleted(api: HfApi) -> None:
    api.create_repo("org/a")
    push(api, FILES)
    api.create_commit("org/a", [CommitOperationDelete("config.json")], commit_message="less")
    assert api.list_repo_files("org/a") == [".gitattributes", "model.safetensors"]


def test_branches_tags_and_pull_requests(api: HfApi) -> None:
    api.create_repo("org/a")
    first = push(api, FILES)
    api.create_branch("org/a", branch="run/1")
    api.create_tag("org/a", tag="v1", revision=first)
    second = push(api, {"config.json": b"2"}, revision="run/1")
    push(api, {"config.json": b"3"}, create_pr=True)
    refs = api.list_repo_refs("org/a", include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "run/1": second}
    assert [ref.name for ref in refs.tags] == ["v1"]
    assert fetch(api, "config.json") == b'{"a": 1}\n'
    assert fetch(api, "config.json", revision="run/1") == b"2"
    assert fetch(api, "config.json", revision="v1") == b'{"a": 1}\n'
    assert fetch(api, "config.json", revision="refs/pr/1") == b"3"


def test_creating_twice(api: HfApi) -> None:
    api.create_repo("org/a")
    assert api.create_repo("org/a", exist_ok=True).repo_id == "org/a"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/a")


def test_a_commit_on_a_branch_that_moved_is_refused(api: HfApi, hub: HubServer) -> None:
    parent = hub.add("org/a", FILES)
    hub.add("org/a", {"other.txt": b"x"})
    with pytest.raises(HfHubHTTPError, match="412"):
        push(api, {"config.json": b"2"}, parent_commit=parent)


def test_space_repos(api: HfApi, hub: HubServer) -> None:
    api.create_repo("org/s", repo_type="space", space_sdk="gradio")
    files = {"app.py": b"pass", "wheels/u2net_hub.whl": WEIGHTS}
    push(api, files, "org/s", repo_type="space")
    assert {path: fetch(api, path, "org/s", repo_type="space") for path in files} == files


@pytest.mark.parametrize(
    ("token", "error"), [(None, RepositoryNotFoundError), (OUTSIDER, RepositoryNotFoundError)]
)
def test_a_private_repo_is_not_seen_from_outside(
    hub: HubServer, token: str | None, error: type[Exception]
) -> None:
    hub.add("org/a", FILES, private=True)
    with pytest.raises(error):
        fetch(HfApi(token=token), "config.json")
    assert fetch(HfApi(token=READER), "config.json") == FILES["config.json"]


def test_a_gated_repo_opens_to_those_who_accepted(hub: HubServer) -> None:
    hub.add("org/a", FILES, gated=True)
    outsider = HfApi(token=OUTSIDER)
    with pytest.raises(GatedRepoError):
        fetch(outsider, "config.json")
    hub.repos["models", "org/a"].accepted.add("outsider")
    assert fetch(outsider, "config.json") == FILES["config.json"]


def test_tokens(hub: HubServer) -> None:
    assert HfApi(token=READER).whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid"):
        HfApi(token="hf_nobody").whoami()
    hub.add("org/a", FILES)
    for token in (READER, OUTSIDER):
        with pytest.raises(HfHubHTTPError, match="403"):
            push(HfApi(token=token), {"config.json": b"2"})
    with pytest.raises(HfHubHTTPError, match="401"):
        push(HfApi(), {"config.json": b"2"})


def test_missing_things_have_their_own_error(api: HfApi, hub: HubServer) -> None:
    hub.add("org/a", FILES)
    with pytest.raises(RepositoryNotFoundError):
        fetch(api, "config.json", "org/none")
    with pytest.raises(RevisionNotFoundError):
        fetch(api, "config.json", revision="none")
    with pytest.raises(RemoteEntryNotFoundError):
        fetch(api, "none.json")


def test_files_come_from_another_origin_which_never_sees_the_token(api: HfApi, hub: HubServer) -> None:
    hub.add("org/a", FILES)
    assert fetch(api, "model.safetensors") == WEIGHTS
    (get,) = hub.served("cdn:model.safetensors")
    assert get.origin == "cdn"
    assert "authorization" not in get.headers
    assert hub.served("head:model.safetensors")[0].headers["authorization"] == f"Bearer {WRITER}"


def test_a_truncated_body_is_fetched_on_by_range(
    api: HfApi, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.add("org/a", FILES)
    hub.fault("cdn:*", "truncated")
    assert fetch(api, "model.safetensors") == WEIGHTS
    assert hub.served("cdn:*")[1].headers["range"] == "bytes=5120-"


def test_the_client_takes_wrong_bytes_of_the_right_size(api: HfApi, hub: HubServer) -> None:
    hub.add("org/a", FILES)
    hub.fault("cdn:*", "corrupt")
    got = fetch(api, "model.safetensors")
    assert got != WEIGHTS
    assert len(got) == len(WEIGHTS)


@pytest.mark.parametrize(
    ("what", "kind", "error"),
    [
        ("cdn:*", "503", HfHubHTTPError),
        ("cdn:*", "reset", TransportError),
        ("head:*", "503", LocalEntryNotFoundError),
        ("head:*", "412", LocalEntryNotFoundError),
    ],
)
def test_faults_reach_the_client(
    api: HfApi, hub: HubServer, what: str, kind: str, error: type[Exception]
) -> None:
    hub.add("org/a", FILES)
    hub.fault(what, kind, times=100)
    with pytest.raises(error):
        fetch(api, "model.safetensors")
    assert {entry.fault for entry in hub.served(what)} == {kind}


def test_a_stalled_answer_times_out(api: HfApi, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.add("org/a", FILES)
    hub.fault("cdn:*", "stall")
    assert fetch(api, "model.safetensors") == WEIGHTS
    assert [entry.fault for entry in hub.served("cdn:*")] == ["stall", None]


def test_a_retry_after_is_waited_for(api: HfApi, hub: HubServer) -> None:
    hub.add("org/a", FILES)
    hub.fault("head:*", "429")
    assert fetch(api, "model.safetensors") == WEIGHTS


def test_cards_are_validated() -> None:
    assert card_errors("---\nlicense: mit\ntags: [a]\n---\n# x") == []
    assert card_errors("---\ntags: [1]\n---\n") == ['"tags" must be an array of strings']
    assert card_errors("---\nmodel-index: [{name: x, results: [{task: {type: t}}]}]\n---\n")
