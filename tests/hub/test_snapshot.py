"""Loading models from the loopback Hub: revisions, hashes, offline, access, hostile repos, processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hub_server import OUTSIDER, READER, WRITER, HubServer
from huggingface_hub import constants, snapshot_download
from safetensors.torch import save

from u2net_hub import SaliencyPipeline, U2Net, __version__, cli
from u2net_hub.hub import client, snapshot as snapshot_module
from u2net_hub.hub.downloads import download, refuse_existing
from u2net_hub.hub.errors import (
    AccessDeniedError,
    CorruptFileError,
    GatedRepoError,
    HubError,
    HubUnavailableError,
    MissingFileError,
    NotCachedError,
    RepoNotFoundError,
    RevisionNotFoundError,
    UnusableRepoError,
)
from u2net_hub.hub.sources import resolve

Tiny = Callable[[int], U2Net]
Files = Callable[[int], dict[str, bytes]]


@pytest.fixture
def files(tiny: Tiny, tmp_path: Path) -> Files:
    """Seed -> the two files of the tiny network."""

    def make(seed: int) -> dict[str, bytes]:
        folder = tiny(seed).save_pretrained(tmp_path / f"seed{seed}")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return make


@pytest.fixture
def cache(hub: HubServer) -> Path:
    """The cache folder of the only repo of these tests."""
    return Path(constants.HF_HUB_CACHE) / "models--org--a"


def same(a: U2Net, b: U2Net) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(v, states[1][k]) for k, v in states[0].items()
    )


def go_offline(monkeypatch: pytest.MonkeyPatch, hub: HubServer) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()


def lose_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://localhost:9"  # the discard port: nothing listens there
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}"
    )


# Loading


def test_a_repo_loads_by_its_id(hub: HubServer, tiny: Tiny, files: Files) -> None:
    hub.add("org/a", files(0))
    network = U2Net.from_pretrained("org/a")
    assert same(network, tiny(0))
    assert not network.training


def test_branch_tag_and_commit_load_into_clean_caches(
    hub: HubServer, tiny: Tiny, files: Files, tmp_path: Path
) -> None:
    first = hub.add("org/a", files(0))
    repo = hub.repos["models", "org/a"]
    repo.refs["refs/tags/v1"] = repo.refs["refs/heads/run/1"] = first
    hub.add("org/a", files(1))
    expected = {"main": 1, "v1": 0, "run/1": 0, first: 0, repo.head: 1}
    for i, (revision, seed) in enumerate(expected.items()):
        network = U2Net.from_pretrained("org/a", revision=revision, cache_dir=tmp_path / str(i))
        assert same(network, tiny(seed))
        assert same(U2Net.from_pretrained(f"org/a@{revision}", cache_dir=tmp_path / str(i)), tiny(seed))


def test_an_old_revision_is_still_there_after_a_new_push(hub: HubServer, tiny: Tiny, files: Files) -> None:
    first = hub.add("org/a", files(0))
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    hub.add("org/a", files(1))
    assert same(U2Net.from_pretrained("org/a"), tiny(1))
    assert same(U2Net.from_pretrained("org/a", revision=first), tiny(0))


def test_two_revisions_that_contradict_each_other_are_refused(hub: HubServer) -> None:
    with pytest.raises(ValueError, match=r"v1.*v2"):
        U2Net.from_pretrained("org/a@v1", revision="v2")


def test_the_revision_is_looked_up_once_and_all_files_are_of_that_commit(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.add("org/a", files(0))
    path = snapshot_module.Snapshot.path

    def path_and_push(self: snapshot_module.Snapshot, name: str) -> Path:
        if name == "config.json":
            hub.add("org/a", files(1))  # main moves between the two files
        return path(self, name)

    monkeypatch.setattr(snapshot_module.Snapshot, "path", path_and_push)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert len(hub.served("info")) == 1
    assert all(f"/resolve/{first}/" in entry.path for entry in hub.log if "/resolve/" in entry.path)


def test_a_commit_that_was_loaded_needs_no_request(hub: HubServer, tiny: Tiny, files: Files) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a", revision=commit)
    hub.log.clear()
    assert same(U2Net.from_pretrained("org/a", revision=commit), tiny(0))
    assert not hub.log


def test_files_that_are_cached_are_not_fetched_again(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    hub.log.clear()
    U2Net.from_pretrained("org/a")
    assert [entry.what for entry in hub.log] == ["info"]


def test_requests_name_the_library(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    agents = {entry.headers["user-agent"] for entry in hub.log}
    assert len(hub.log) == 5
    assert all(agent.startswith(f"u2net-hub/{__version__};") for agent in agents)


def test_a_progress_bar_is_shown_on_a_terminal(
    hub: HubServer, files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    out, err = capsys.readouterr()
    assert re.search(r"model\.safetensors: +100%", err)
    assert not out


def test_the_pipeline_loads_from_the_hub(hub: HubServer, files: Files, tmp_path: Path) -> None:
    commit = hub.add("org/a", files(0), private=True)
    photo = torch.zeros(20, 30, 3, dtype=torch.uint8).numpy() + 100
    options = {"token": READER, "cache_dir": tmp_path / "cache"}
    by_commit = SaliencyPipeline.from_pretrained("org/a", revision=commit, **options)(photo)  # type: ignore[arg-type]
    offline = SaliencyPipeline.from_pretrained(f"org/a@{commit}", local_files_only=True, **options)(photo)  # type: ignore[arg-type]
    assert by_commit.saliency.shape == (20, 30)
    assert (by_commit.saliency == offline.saliency).all()


def test_verbs_load_from_the_hub(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.add("org/a", files(0))
    hub.add("org/a", files(1))
    monkeypatch.setattr(sys, "argv", ["u2net", "info", "--model", f"org/a@{commit}", "--json"])
    cli.app(standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["revision"] == commit
    assert facts["sha256"] == hashlib.sha256(files(0)["model.safetensors"]).hexdigest()


# Other formats


def test_weights_as_a_pickle_alone_load_on_request_only(
    hub: HubServer, tiny: Tiny, files: Files, tmp_path: Path
) -> None:
    torch.save(tiny(0).state_dict(), tmp_path / "u2net.pth")
    pth = (tmp_path / "u2net.pth").read_bytes()
    hub.add("org/a", {"config.json": files(0)["config.json"], "u2net.pth": pth})
    with pytest.raises(ValueError, match=r"org/a.*allow_pickle=True"):
        U2Net.from_pretrained("org/a")
    assert same(U2Net.from_pretrained("org/a", allow_pickle=True), tiny(0))


def test_nothing_in_a_pickle_is_executed(hub: HubServer, files: Files, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "executed"),)

    evil = pickle.dumps({"a": Evil()}, protocol=2)
    hub.add("org/a", {"config.json": files(0)["config.json"], "weights.pth": evil})
    with pytest.raises(UnusableRepoError, match=r"weights\.pth"):
        U2Net.from_pretrained("org/a", allow_pickle=True)
    assert not (tmp_path / "executed").exists()


def test_an_onnx_file_alone_is_converted(
    hub: HubServer, filled: Callable[[str], U2Net], tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    from onnx_export import export

    network = filled("u2netp")
    export(tmp_path / "u2netp.onnx", network)
    commit = hub.add(
        "org/a", {"u2netp.onnx": (tmp_path / "u2netp.onnx").read_bytes(), "README.md": b"# hello"}
    )
    loaded = U2Net.from_pretrained("org/a")
    assert loaded.config.variant == "u2netp"
    assert loaded.loaded_from is not None
    assert loaded.loaded_from.revision == commit
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(loaded(x)[0].sigmoid(), network(x)[0].sigmoid(), atol=1e-4)


def test_safetensors_are_preferred_to_a_pickle(hub: HubServer, tiny: Tiny, files: Files) -> None:
    hub.add("org/a", {**files(0), "weights.pth": b"not even a pickle"})
    assert same(U2Net.from_pretrained("org/a", allow_pickle=True), tiny(0))
    assert not hub.served("*weights.pth")


# Hashes


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_file_that_changed_in_the_cache_is_found_removed_and_fetched_anew(
    hub: HubServer,
    cache: Path,
    tiny: Tiny,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    offline: bool,
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    blob = (cache / "snapshots" / commit / name).resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CorruptFileError, match=rf"org/a.*{re.escape(name)}.*load again"):
            U2Net.from_pretrained("org/a")
        assert not blob.exists()
        assert not (cache / "snapshots" / commit / name).is_symlink()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.log.clear()
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert len(hub.served(f"head:{name}")) == 1


def test_a_file_that_changed_under_a_pinned_commit_is_fetched_anew(
    hub: HubServer, cache: Path, tiny: Tiny, files: Files
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a", revision=commit)
    (cache / "snapshots" / commit / "model.safetensors").resolve().write_bytes(b"x")
    assert same(U2Net.from_pretrained("org/a", revision=commit), tiny(0))


def test_removing_a_bad_file_leaves_what_lies_outside_the_cache(
    hub: HubServer, cache: Path, files: Files, tmp_path: Path
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"my own file")
    link = cache / "snapshots" / commit / "model.safetensors"
    link.unlink()
    link.symlink_to(mine)
    U2Net.from_pretrained("org/a")
    assert mine.read_bytes() == b"my own file"
    assert link.resolve().is_relative_to(cache)


def test_a_hub_that_tells_no_hash_is_not_trusted(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", files(0))
    tree = next(iter(hub.repos["models", "org/a"].trees.values()))
    tree["config.json"] = tree["config.json"]._replace(oid="")
    hub.objects[""] = files(0)["config.json"]
    with pytest.raises(HubError, match=r"org/a.*config\.json"):
        U2Net.from_pretrained("org/a")


def test_over_xet_too_wrong_bytes_of_the_right_size_are_found(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"), raising=False)
    tiny(0).push_to_hub("org/a", token=WRITER)
    assert same(U2Net.from_pretrained("org/a", cache_dir=tmp_path / "one"), tiny(0))
    assert hub.served("xet")
    assert not hub.served("cdn:*")
    for xorb in Path(hub.folder.name).rglob("xorbs/default.*"):
        if xorb.suffix != ".tagset":
            xorb.chmod(0o644)
            content = bytearray(xorb.read_bytes())
            content[len(content) // 2] ^= 1
            xorb.write_bytes(content)
    with pytest.raises(HubError, match=r"org/a.*model\.safetensors"):
        U2Net.from_pretrained("org/a", cache_dir=tmp_path / "two")


# Offline


def test_after_one_load_the_same_call_works_offline(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    go_offline(monkeypatch, hub)
    for source in ("org/a", "org/a@main", f"org/a@{commit}"):
        assert same(U2Net.from_pretrained(source), tiny(0))
    assert not hub.log


def test_after_one_load_the_same_call_works_without_network(
    hub: HubServer,
    tiny: Tiny,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    lose_the_network(monkeypatch)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert f"going on with commit {commit}" in caplog.text


def test_a_hub_that_is_down_leaves_what_was_loaded(hub: HubServer, tiny: Tiny, files: Files) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    hub.fault("info", "503", times=100)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))


def test_offline_is_the_last_whole_load_not_the_last_attempt(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    hub.add("org/a", files(1))
    hub.fault("cdn:*", "503", times=100)
    with pytest.raises(HubUnavailableError):
        U2Net.from_pretrained("org/a")
    go_offline(monkeypatch, hub)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "local_files_only"])
def test_a_cold_cache_says_what_is_missing_and_how_to_get_it(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "HF_HUB_OFFLINE":
        go_offline(monkeypatch, hub)
    with pytest.raises(NotCachedError, match=r"org/a@v1: config\.json .*u2net download --model org/a@v1"):
        U2Net.from_pretrained("org/a@v1", local_files_only=how == "local_files_only")
    assert not hub.log


def test_a_cache_without_the_weights_says_so(
    hub: HubServer, cache: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    (cache / "snapshots" / commit / "model.safetensors").unlink()
    go_offline(monkeypatch, hub)
    with pytest.raises(NotCachedError, match=r"org/a@main: model\.safetensors .*u2net download"):
        U2Net.from_pretrained("org/a")


def test_no_network_and_a_cold_cache(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_network(monkeypatch)
    with pytest.raises(HubUnavailableError, match=r"org/a@main: config\.json: no connection .*try again"):
        U2Net.from_pretrained("org/a")


def test_a_cache_filled_by_the_hubs_own_client_works_offline(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", files(0))
    snapshot_download("org/a")
    go_offline(monkeypatch, hub)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))


def test_a_cache_without_links_works_offline_and_is_checked(
    hub: HubServer, cache: Path, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)  # as on Windows
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    weights = cache / "snapshots" / commit / "model.safetensors"
    assert not weights.is_symlink()
    go_offline(monkeypatch, hub)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFileError):
        U2Net.from_pretrained("org/a")


def test_a_file_of_which_no_hash_is_known_is_refused(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    hub.add("org/a", files(0))
    snapshot_download("org/a")  # copies, and no record of their hashes
    go_offline(monkeypatch, hub)
    with pytest.raises(CorruptFileError, match=r"org/a.*config\.json: no hash.*online"):
        U2Net.from_pretrained("org/a")


def test_a_damaged_record_of_hashes_is_not_trusted(
    hub: HubServer, cache: Path, tiny: Tiny, files: Files
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a", revision=commit)
    (cache / "u2net-hub" / f"{commit}.json").write_text("[")
    assert same(U2Net.from_pretrained("org/a", revision=commit), tiny(0))


def test_a_cache_that_cannot_be_written_still_loads(
    hub: HubServer,
    tiny: Tiny,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(snapshot_module, "write_file", refuse)
    hub.add("org/a", files(0))
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert "offline" in caplog.text


def test_a_cache_that_may_only_be_read_goes_on_with_its_commit_when_the_branch_moves(
    hub: HubServer, cache: Path, tiny: Tiny, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    commit = hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    # a file in the place of the folder of locks: nothing can be downloaded, even as root
    locks = cache.parent / ".locks"
    shutil.rmtree(locks)
    locks.touch()
    hub.add("org/a", files(1))
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert f"going on with commit {commit} from the cache" in caplog.text
    assert (cache / "refs" / "main").read_text() == commit


def test_a_cache_that_may_only_be_read_and_lacks_the_model_is_told(
    hub: HubServer, cache: Path, files: Files
) -> None:
    hub.add("org/a", files(0))
    cache.parent.mkdir(parents=True)
    (cache.parent / ".locks").touch()
    with pytest.raises(HubError, match=r"org/a.*check its permissions, or choose another cache_dir"):
        U2Net.from_pretrained("org/a")


def test_a_cache_that_is_up_to_date_is_not_written(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a")
    monkeypatch.setattr(snapshot_module, "write_file", None)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))


def test_download_fills_the_cache(
    hub: HubServer, tiny: Tiny, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", files(0))
    folder = download("org/a")
    assert same(U2Net.from_pretrained(folder), tiny(0))
    go_offline(monkeypatch, hub)
    assert same(U2Net.from_pretrained("org/a"), tiny(0))


def test_download_fills_a_folder(
    hub: HubServer, tiny: Tiny, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/a", {**files(0), "README.md": b"# hello\n", "evil.py": b"1 / 0"})
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["u2net", "download", "--model", "org/a", "--out", str(out)])
    cli.app(standalone_mode=False)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "evil.py",
        "model.safetensors",
    ]
    assert same(U2Net.from_pretrained(out), tiny(0))


def test_download_refuses_to_replace_files_before_it_fetches_the_weights(
    hub: HubServer, files: Files, tmp_path: Path, cache: Path
) -> None:
    hub.add("org/a", files(0))
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds config\.json already.*--overwrite"):
        download("org/a", out=tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"
    assert not list(cache.glob("snapshots/*/model.safetensors"))


def test_download_leaves_files_that_it_does_not_write(hub: HubServer, files: Files, tmp_path: Path) -> None:
    hub.add("org/a", files(0))
    (tmp_path / "README.md").write_text("mine")  # the repo has none
    download("org/a", out=tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_download_replaces_files_on_request(hub: HubServer, tiny: Tiny, files: Files, tmp_path: Path) -> None:
    hub.add("org/a", files(0))
    (tmp_path / "config.json").write_text("mine")
    download("org/a", out=tmp_path, overwrite=True)
    assert same(U2Net.from_pretrained(tmp_path), tiny(0))


def test_a_download_into_a_file_is_refused(hub: HubServer, files: Files, tmp_path: Path) -> None:
    hub.add("org/a", files(0))
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file, expected a folder"):
        download("org/a", out=tmp_path / "out")


def test_files_of_save_pretrained_can_be_refused_beforehand(tiny: Tiny, tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new")
    tiny(0).save_pretrained(tmp_path)
    with pytest.raises(FileExistsError, match=r"config\.json, model\.safetensors already"):
        refuse_existing(tmp_path)


def test_download_is_for_the_hub_only() -> None:
    with pytest.raises(ValueError, match="org/name"):
        download("u2netp")


# What can be wrong, and whose fault it is


def test_a_mistyped_path_is_said_to_be_missing_before_the_hub_is_asked(
    hub: HubServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepoNotFoundError, match=r"no local path 'my/model', and on the Hub: .*no such repo"):
        resolve("my/model")
    assert "there is no local path 'my/model'" in caplog.messages[0]


@pytest.mark.parametrize(
    "source", ["weights/u2net.pht", "weights/u2net.json", "a/b/c", "my/weights/u2net.pth"]
)
def test_a_name_that_can_only_be_a_path_is_refused_without_a_request(
    source: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no weights at '{source}'.* write hf://{source}"):
        resolve(source)
    assert not hub.log


def test_a_repo_whose_name_reads_like_a_file_loads_by_the_name_that_the_error_gives(
    hub: HubServer, tiny: Tiny, files: Files
) -> None:
    hub.add("org/u2net.pht", files(0))
    with pytest.raises(FileNotFoundError) as caught:
        U2Net.from_pretrained("org/u2net.pht")
    assert same(U2Net.from_pretrained(str(caught.value).rpartition("write ")[2]), tiny(0))


def test_a_name_is_not_taken_for_a_mistyped_path(
    hub: HubServer, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("org/a", files(0))
    resolve("org/a")
    warned = [r for r in caplog.records if r.levelname == "WARNING"]
    assert not [r for r in warned if "local path" in r.getMessage()]


@pytest.mark.parametrize("source", ["org/a", "org/a@v1"])
def test_of_a_plain_name_no_path_is_spoken(hub: HubServer, source: str) -> None:
    with pytest.raises(RepoNotFoundError) as caught:
        resolve(source)
    assert "local path" not in str(caught.value)


def test_without_a_connection_the_missing_path_is_said_too(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_network(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(
        HubUnavailableError, match=r"no local path 'org/a/b.pth', and on the Hub: .*no connec"
    ):
        resolve("org/a/b.pth")


def test_no_such_repo(hub: HubServer) -> None:
    with pytest.raises(RepoNotFoundError, match=r"org/a@main: .*hf auth login"):
        U2Net.from_pretrained("org/a")
    assert len(hub.served("info")) == 1  # asking again is of no use


@pytest.mark.parametrize("token", [None, OUTSIDER])
def test_a_private_repo_needs_a_token_that_may_see_it(
    hub: HubServer, files: Files, token: str | None
) -> None:
    hub.add("org/a", files(0), private=True)
    with pytest.raises(RepoNotFoundError, match=r"private.*hf auth login"):
        U2Net.from_pretrained("org/a", token=token)
    U2Net.from_pretrained("org/a", token=READER)


def test_the_stored_token_is_used_unless_refused(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    hub.add("org/a", files(0), private=True)
    U2Net.from_pretrained("org/a")
    with pytest.raises(RepoNotFoundError):
        U2Net.from_pretrained("org/a", token=False, cache_dir=tmp_path / "other")


def test_a_token_that_the_hub_does_not_know(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0))
    with pytest.raises(AccessDeniedError, match=r"token.*hf auth login") as caught:
        U2Net.from_pretrained("org/a", token="hf_made_up_token")
    assert "made_up" not in str(caught.value)


def test_the_token_stays_with_the_hub(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0))
    U2Net.from_pretrained("org/a", token=READER)
    assert {entry.origin: "authorization" in entry.headers for entry in hub.log} == {
        "api": True,
        "cdn": False,
    }


def test_a_gated_repo_asks_to_accept_its_terms(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0), gated=True)
    for token in (None, OUTSIDER):
        with pytest.raises(
            GatedRepoError, match=rf"org/a.*config\.json.*accept its terms at {hub.endpoint}/org/a "
        ):
            U2Net.from_pretrained("org/a", token=token)
    hub.repos["models", "org/a"].accepted.add("outsider")
    U2Net.from_pretrained("org/a", token=OUTSIDER)


def test_no_such_revision(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0))
    with pytest.raises(RevisionNotFoundError, match=r"org/a@v9: .*branches and tags at .*/org/a"):
        U2Net.from_pretrained("org/a@v9")


def test_a_table_of_its_own_without_a_config_says_to_give_one(
    hub: HubServer, tiny: Tiny, files: Files, cache: Path
) -> None:
    hub.add("org/a", {"model.safetensors": files(0)["model.safetensors"]})
    with pytest.raises(UnusableRepoError, match=r"org/a@main: .*give its config \(config=, --config\)"):
        U2Net.from_pretrained("org/a")
    assert not list(cache.glob("snapshots/*/model.safetensors"))
    assert same(U2Net.from_pretrained("org/a", config=tiny(0).config), tiny(0))


def test_no_weights(hub: HubServer, files: Files) -> None:
    hub.add("org/a", {"config.json": files(0)["config.json"], "tf_model.h5": b"x"})
    with pytest.raises(MissingFileError, match=r"org/a@main holds no weights.*tf_model\.h5"):
        U2Net.from_pretrained("org/a")


def test_another_librarys_repo_is_refused_before_its_weights_are_fetched(hub: HubServer, cache: Path) -> None:
    config = json.dumps({"model_type": "bert", "hidden_size": 768}).encode()
    weights = save({"bert.encoder.weight": torch.zeros(3, 3)})
    hub.add("org/a", {"config.json": config, "model.safetensors": weights})
    with pytest.raises(UnusableRepoError, match=r"org/a@main: .*config\.json.*'bert'.*u2net-hub"):
        U2Net.from_pretrained("org/a")
    assert not list(cache.glob("snapshots/*/model.safetensors"))


def test_a_space_or_data_set_of_that_name_is_no_model(hub: HubServer, files: Files) -> None:
    hub.add("org/a", files(0), kind="spaces")
    with pytest.raises(RepoNotFoundError):
        U2Net.from_pretrained("org/a")


def test_retries_are_few_logged_and_wait_longer_each_time(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=waits.append))
    hub.add("org/a", files(0))
    hub.fault("info", "503", times=100)
    with pytest.raises(HubUnavailableError):
        U2Net.from_pretrained("org/a")
    assert len(hub.served("info")) == 4
    assert [1 <= wait / 2**i <= 1.5 for i, wait in enumerate(waits)] == [True] * 3
    assert len([r for r in caplog.records if "trying again" in r.getMessage()]) == 3


def test_retries_wait_as_long_as_the_hub_asks(
    hub: HubServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=waits.append))
    hub.add("org/a", files(0))
    hub.retry_after = 20
    hub.fault("info", "429")
    U2Net.from_pretrained("org/a")
    assert 20 <= waits[0] <= 30
    hub.retry_after = 3600
    hub.fault("info", "429", times=100)
    hub.log.clear()
    with pytest.raises(HubUnavailableError, match="many requests"):
        U2Net.from_pretrained("org/a@other")
    assert len(hub.served("info")) == 1


def test_an_endpoint_that_is_no_hub(hub: HubServer, files: Files) -> None:
    hub.fault("*", "html", times=100)
    with pytest.raises(HubUnavailableError, match=r"org/a.*not an answer of the Hub.*HF_ENDPOINT"):
        U2Net.from_pretrained("org/a")


def test_the_client_says_no_secrets_at_any_level(
    hub: HubServer, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.add("org/a", files(0))
    hub.fault("cdn:*", "truncated")
    U2Net.from_pretrained("org/a", token=READER)
    assert READER not in caplog.text
    shown = "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.INFO)
    assert "/files/" in shown
    assert "X-Amz-Signature" not in shown


# Hostile repos


def test_a_graph_that_asks_for_too_much_is_refused_before_an_engine_runs_it(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime")
    from u2net_hub import export

    network = U2Net(tiny(0).config.replace(input_size=(40, 40))).eval()
    model = onnx.load(export(network, tmp_path / "tiny.onnx"))
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["enlarged" if each == name else each for each in node.input]
    scales = onnx.helper.make_tensor("scales", 1, [4], [1.0, 1.0, 60.0, 60.0])
    model.graph.initializer.append(scales)
    model.graph.node.insert(0, onnx.helper.make_node("Resize", [name, "", "scales"], ["enlarged"]))
    hub.add("org/a", {"tiny.onnx": model.SerializeToString()})
    with pytest.raises(UnusableRepoError, match=r"tiny\.onnx is not run: its graph makes"):
        SaliencyPipeline.from_pretrained("org/a")


def test_a_config_that_asks_for_a_billion_channels(hub: HubServer, files: Files) -> None:
    config = json.loads(files(0)["config.json"])
    config["stages"][0]["mid"] = 10**9
    hub.add("org/a", {**files(0), "config.json": json.dumps(config).encode()})
    with pytest.raises(UnusableRepoError, match=r"org/a@main: .*mid is 1000000000"):
        U2Net.from_pretrained("org/a")


def test_a_config_that_asks_for_more_than_its_weights_hold(hub: HubServer, files: Files) -> None:
    config = json.loads(files(0)["config.json"])
    for stage in config["stages"]:
        stage |= {"mid": 4096, "out": 4096}  # 6 GB, if it were built before it is compared
    hub.add("org/a", {**files(0), "config.json": json.dumps(config).encode()})
    with pytest.raises(UnusableRepoError, match=r"org/a@\w{40}: model\.safetensors .*does not fit"):
        U2Net.from_pretrained("org/a")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [1000000000, 1000000000], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 9999]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b"[" * 50_000,
        b"",
    ],
    ids=["shape", "offsets", "negative", "nested", "empty"],
)
def test_a_safetensors_header_that_lies(hub: HubServer, files: Files, header: bytes) -> None:
    lie = len(header).to_bytes(8, "little") + header + bytes(4)
    hub.add("org/a", {**files(0), "model.safetensors": lie})
    with pytest.raises(UnusableRepoError, match=r"org/a@\w{40}: model\.safetensors"):
        U2Net.from_pretrained("org/a")


def test_a_safetensors_header_longer_than_its_file(hub: HubServer, files: Files) -> None:
    hub.add("org/a", {**files(0), "model.safetensors": (2**62).to_bytes(8, "little") + b"{}"})
    with pytest.raises(UnusableRepoError, match=r"org/a@\w{40}: model\.safetensors"):
        U2Net.from_pretrained("org/a")


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_do_not_fit_their_config(hub: HubServer, tiny: Tiny, files: Files, change: str) -> None:
    state = tiny(0).state_dict()
    if change == "missing":
        del state["outconv.bias"]
    else:
        state["extra.weight"] = torch.zeros(1)
    hub.add("org/a", {**files(0), "model.safetensors": save(state)})
    with pytest.raises(UnusableRepoError, match=rf"org/a@\w+: model\.safetensors .*{change}"):
        U2Net.from_pretrained("org/a")


@pytest.mark.parametrize(
    "name",
    ["../../evil.safetensors", "/tmp/evil.safetensors", "..\\evil.safetensors", "a/../../evil.safetensors"],
)
def test_names_that_lead_out_of_the_cache_are_not_looked_at(
    hub: HubServer, cache: Path, tiny: Tiny, files: Files, name: str
) -> None:
    hub.add("org/a", {**files(0), name: b"evil"})
    assert same(U2Net.from_pretrained("org/a"), tiny(0))
    assert not any("evil" in entry.path for entry in hub.log)
    tree = next(iter(hub.repos["models", "org/a"].trees.values()))
    del tree["model.safetensors"]
    with pytest.raises(MissingFileError, match="no weights"):
        U2Net.from_pretrained("org/a", cache_dir=cache)


@pytest.mark.parametrize(
    "revision", ["../../../etc/passwd", "/etc/passwd", "a..b", "a b", "a\\b", "a\nb", "-x", "x/"]
)
def test_revisions_that_git_would_not_have_are_refused(hub: HubServer, revision: str) -> None:
    with pytest.raises(ValueError, match="revision"):
        U2Net.from_pretrained("org/a", revision=revision)
    assert not hub.log


# Processes

_RESOLVE = """
import sys
from u2net_hub.hub import resolve
print(resolve("org/a").sha256)
"""


def run(hub: HubServer, home: Path, code: str, *args: str, stdin: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={
            **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
        },
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


def test_four_processes_load_into_one_cold_cache(hub: HubServer, files: Files, tmp_path: Path) -> None:
    hub.add("org/a", files(0))
    expected = hashlib.sha256(files(0)["model.safetensors"]).hexdigest()
    assert {output(p) for p in [run(hub, tmp_path / "home", _RESOLVE) for _ in range(4)]} == {expected}


def test_a_process_killed_in_mid_download_leaves_a_cache_that_loads(
    hub: HubServer, files: Files, tmp_path: Path
) -> None:
    hub.add("org/a", files(0))
    hub.fault("cdn:*", "halt")
    process = run(hub, tmp_path / "home", _RESOLVE)
    while not hub.served("cdn:*"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list((tmp_path / "home" / "hub").rglob("*.incomplete"))
    assert (
        output(run(hub, tmp_path / "home", _RESOLVE))
        == hashlib.sha256(files(0)["model.safetensors"]).hexdigest()
    )


_LOAD = """
import os, sys
import numpy as np
from u2net_hub import SaliencyPipeline
photo = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
for line in sys.stdin:  # each load is that of a process of its own; only the imports are shared
    source, path = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        SaliencyPipeline.from_pretrained(source)(photo).saliency.tofile(path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("loaded", flush=True)
"""


# how huggingface_hub 2.4 hands LFS files to its HTTP client
@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
def test_what_one_process_pushes_another_reproduces_bit_for_bit_and_again_without_the_server(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "network")
    results = {"weights_sha256": None, "command": None, "versions": {}, "date": "", "datasets": {}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    network = U2Net.from_pretrained(folder)
    commit = network.push_to_hub("org/a", metrics=tmp_path / "results.json", token=WRITER).commit
    assert "results.json" in hub.repos["models", "org/a"].trees[commit]
    maps = [tmp_path / f"{i}.bin" for i in range(3)]
    requests = []
    loading = run(hub, tmp_path / "two", _LOAD, stdin=subprocess.PIPE)
    assert loading.stdin is not None
    assert loading.stdout is not None
    for source, path in zip((folder, f"org/a@{commit}", f"org/a@{commit}"), maps, strict=True):
        hub.log.clear()
        loading.stdin.write(f"{source}\t{path}\n")
        loading.stdin.flush()
        assert loading.stdout.readline() == "loaded\n", loading.communicate()
        requests.append(len(hub.log))
        if requests[-1]:
            hub.fault("*", "reset", times=10_000)  # as good as no server
    output(loading)
    assert requests[0] == requests[2] == 0 < requests[1]
    assert maps[0].stat().st_size == 40 * 30 * 4
    assert maps[0].read_bytes() == maps[1].read_bytes() == maps[2].read_bytes()


# The real Hub


@pytest.mark.network
def test_a_pinned_public_repo_is_downloaded_and_checked(tmp_path: Path) -> None:
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    snapshot = snapshot_module.Snapshot("openai-community/gpt2", revision=commit, cache_dir=tmp_path)
    assert snapshot.commit == commit
    assert json.loads(snapshot.path("config.json").read_text())["model_type"] == "gpt2"
    with pytest.raises(UnusableRepoError, match="gpt2"):
        resolve("openai-community/gpt2", revision=commit, cache_dir=tmp_path)


@pytest.mark.network
def test_a_public_checkpoint_of_the_family_loads(tmp_path: Path) -> None:
    network = U2Net.from_pretrained("akhaliq/U-2-Net", allow_pickle=True, cache_dir=tmp_path)
    assert sum(p.numel() for p in network.parameters()) == 44_009_869
