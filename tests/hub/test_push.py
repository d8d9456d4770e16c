"""push_to_hub, push_files and BackgroundPusher against the loopback Hub."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import OUTSIDER, READER, WRITER, HubServer
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import load

from u2net_hub import U2Net
from u2net_hub.atomic import content_hash
from u2net_hub.evaluation.results import DatasetScores, Results
from u2net_hub.hub import scratch
from u2net_hub.hub.errors import AccessDeniedError, ConflictError, HubError, HubUnavailableError
from u2net_hub.hub.push import push_files
from u2net_hub.hub.push_model import push_folder
from u2net_hub.training.background_push import BackgroundPusher

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

Tiny = Callable[[int], U2Net]
NEW = {"model.safetensors", "config.json", "README.md"}


def scores(**fields: object) -> Results:
    curves = {"precision": np.linspace(0, 1, 256)}
    ecssd = DatasetScores(100, {"max_f": 0.9, "mae": 0.05}, curves=curves)
    return replace(Results({"ECSSD": ecssd}, command="u2net eval", date="2026-01-02"), **fields)  # type: ignore[arg-type]


def files_of(hub: HubServer, revision: str = "main", repo_id: str = "org/a") -> set[str]:
    repo = hub.repos["models", repo_id]
    return set(repo.trees[repo.find(revision) or ""]) - {".gitattributes"}


def readme_of(hub: HubServer, revision: str = "main") -> str:
    return hub.read("org/a", "README.md", revision).decode()


# What is pushed


def test_a_push_is_one_commit_with_weights_config_card_results_and_curves(hub: HubServer, tiny: Tiny) -> None:
    pushed = tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    assert files_of(hub) == NEW | {"results.json", "curves.npz"}
    assert len(hub.served("commit")) == 1
    assert pushed.changed
    assert pushed.commit == hub.repos["models", "org/a"].head
    assert pushed.url == f"{hub.endpoint}/org/a/commit/{pushed.commit}"


def test_without_metrics_there_are_no_results(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    assert files_of(hub) == NEW


def test_scores_without_a_hash_are_pushed_without_one_and_labelled_as_given(
    hub: HubServer, tiny: Tiny
) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    assert json.loads(hub.read("org/a", "results.json"))["weights_sha256"] is None
    assert "given, not measured here" in readme_of(hub)


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (b'{"accuracy": 1}', r"results have the fields \['accuracy'\]"),
        (b"[" * 100_000, "it is not valid JSON"),
    ],
)
def test_results_of_another_kind_are_named_and_given_ones_replace_them(
    theirs: bytes, reason: str, hub: HubServer, tiny: Tiny
) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    hub.add("org/a", {"results.json": theirs})
    with pytest.raises(OSError, match=rf"org/a: results\.json .*{reason}.*nothing was pushed.*metrics="):
        tiny(0).push_to_hub("org/a", token=WRITER)
    assert tiny(0).push_to_hub("org/a", token=WRITER, metrics={"ECSSD": {"mae": 0.04}}).changed


def test_pushed_results_hold_no_folders_of_the_machine(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores(command="u2net eval --model /home/me/x"))
    assert json.loads(hub.read("org/a", "results.json"))["command"] == "u2net eval --model x"


def test_the_card_holds_the_scores_for_machines(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    evals = ModelCard(readme_of(hub)).data.eval_results
    assert {(e.dataset_name, e.metric_type, e.metric_value) for e in evals or []} == {
        ("ECSSD", "max_f", 0.9),
        ("ECSSD", "mae", 0.05),
    }


def test_the_same_content_again_makes_no_commit(hub: HubServer, tiny: Tiny) -> None:
    first = tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    again = tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    assert again == first._replace(changed=False)
    assert len(hub.served("commit")) == 1


def test_only_what_changed_is_sent(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    before = len(hub.served("lfs-put"))
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    assert len(hub.served("lfs-put")) == before + 1  # curves.npz


def test_metrics_may_be_a_file_or_a_folder_or_a_mapping(hub: HubServer, tiny: Tiny, tmp_path: Path) -> None:
    scores().save(tmp_path)
    for i, metrics in enumerate((tmp_path, tmp_path / "results.json", str(tmp_path), scores().to_dict())):
        tiny(0).push_to_hub(f"org/a{i}", token=WRITER, metrics=metrics)
        curves = {"curves.npz"} if i < 3 else set()
        assert files_of(hub, repo_id=f"org/a{i}") == NEW | {"results.json"} | curves


def test_results_of_other_weights_are_refused(hub: HubServer, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="u2net eval"):
        tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores(weights_sha256="0" * 64))
    assert not hub.repos


def test_results_of_the_file_that_was_loaded_are_taken(hub: HubServer, tiny: Tiny, tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path, dtype="float16")
    network = U2Net.from_pretrained(tmp_path)
    measured_on = content_hash(tmp_path / "model.safetensors")
    network.push_to_hub("org/a", token=WRITER, metrics=scores(weights_sha256=measured_on))
    pushed = hub.read("org/a", "model.safetensors")  # float32, so another file
    assert content_hash(pushed) != measured_on
    assert json.loads(hub.read("org/a", "results.json"))["weights_sha256"] == content_hash(pushed)


def test_results_from_before_a_change_of_the_weights_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path, dtype="float16")
    network = U2Net.from_pretrained(tmp_path)
    measured = scores(weights_sha256=content_hash(tmp_path / "model.safetensors"))
    with torch.no_grad():
        network.outconv.bias += 1
    with pytest.raises(ValueError, match="u2net eval"):
        network.fill_repo(tmp_path / "repo", metrics=measured)


def test_results_go_with_the_weights_they_were_measured_on(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    tiny(1).push_to_hub("org/a", token=WRITER)
    assert files_of(hub) == NEW
    assert not ModelCard(readme_of(hub)).data.eval_results
    assert "Not measured" in readme_of(hub)


def test_results_stay_with_their_weights(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    assert not tiny(0).push_to_hub("org/a", token=WRITER).changed


def test_weights_are_float32_unless_told(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    tiny(0).push_to_hub("org/b", token=WRITER, dtype="float16")
    key = "stage0.rebnconvin.conv_s1.weight"
    assert load(hub.read("org/a", "model.safetensors"))[key].dtype == torch.float32
    assert load(hub.read("org/b", "model.safetensors"))[key].dtype == torch.float16


def test_the_same_weights_make_the_same_file(tiny: Tiny, tmp_path: Path) -> None:
    hashes = {
        content_hash(tiny(0).save_pretrained(tmp_path / str(i)) / "model.safetensors") for i in range(8)
    }
    assert len(hashes) == 1


def test_a_large_file_goes_in_parts(hub: HubServer, tiny: Tiny) -> None:
    hub.part_size = 5000
    tiny(0).push_to_hub("org/a", token=WRITER)
    assert len(hub.served("lfs-complete")) == 1
    assert U2Net.from_pretrained("org/a").config == tiny(0).config


# Where it goes


def test_repo_and_branch_are_made(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, private=True, branch="run/1", commit_message="first")
    repo = hub.repos["models", "org/a"]
    assert repo.private
    assert files_of(hub, "run/1") >= NEW
    assert files_of(hub) == set()
    assert repo.messages[repo.refs["refs/heads/run/1"]] == "first"


def test_a_pull_request_leaves_main_alone(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    pushed = tiny(1).push_to_hub("org/a", token=WRITER, create_pr=True)
    assert pushed.pull_request == f"{hub.endpoint}/org/a/discussions/1"
    old, new = (hub.read("org/a", "model.safetensors", revision) for revision in ("main", "refs/pr/1"))
    assert old != new


def test_a_tag_names_the_commit(hub: HubServer, tiny: Tiny) -> None:
    pushed = tiny(0).push_to_hub("org/a", token=WRITER, tag="v1")
    assert hub.repos["models", "org/a"].find("v1") == pushed.commit


def test_a_push_with_its_tag_can_be_repeated(hub: HubServer, tiny: Tiny) -> None:
    hub.fault("tag", "503", times=100)
    with pytest.raises(HubUnavailableError, match="tag v1"):
        tiny(0).push_to_hub("org/a", token=WRITER, tag="v1")
    hub.faults.clear()
    pushed = tiny(0).push_to_hub("org/a", token=WRITER, tag="v1")
    assert hub.repos["models", "org/a"].find("v1") == pushed.commit
    assert tiny(0).push_to_hub("org/a", token=WRITER, tag="v1") == pushed
    assert len(hub.served("commit")) == 1


def test_a_tag_that_is_taken_is_refused_before_anything_is_pushed(hub: HubServer, tiny: Tiny) -> None:
    first = tiny(0).push_to_hub("org/a", token=WRITER, tag="v1")
    with pytest.raises(ConflictError, match="v1"):
        tiny(1).push_to_hub("org/a", token=WRITER, tag="v1")
    assert hub.repos["models", "org/a"].head == first.commit


def test_private_is_not_taken_for_granted(hub: HubServer, tiny: Tiny) -> None:
    hub.add("org/a", {})
    with pytest.raises(ValueError, match="public"):
        tiny(0).push_to_hub("org/a", token=WRITER, private=True)
    assert files_of(hub) == set()


@pytest.mark.parametrize(
    "options",
    [
        {"branch": "x"},
        {"tag": "v1"},
        {"branch": "../x", "create_pr": False},
        {"tag": "a b", "create_pr": False},
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    hub: HubServer, tiny: Tiny, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"create_pr|revision"):
        tiny(0).push_to_hub("org/a", token=WRITER, **{"create_pr": True, **options})  # type: ignore[arg-type]
    assert not hub.log


@pytest.mark.parametrize("repo_id", ["org/a/b", "org/a b", "org/..", ""])
def test_a_name_that_cannot_be_a_repo_is_refused(hub: HubServer, tiny: Tiny, repo_id: str) -> None:
    with pytest.raises(ValueError, match="expected org/name"):
        tiny(0).push_to_hub(repo_id, token=WRITER)
    assert not hub.log


def test_a_space_is_pushed_whole(hub: HubServer) -> None:
    files = {"README.md": b"---\ntitle: x\nsdk: gradio\n---\n", "app.py": b"pass\n", "dist/x.whl": b"\0wheel"}
    for _ in range(2):
        pushed = push_files(
            "org/s",
            lambda head: files,
            commit_message="m",
            repo_type="space",
            space_sdk="gradio",
            token=WRITER,
        )
    assert {name: hub.read("org/s", name, kind="spaces") for name in files} == files
    assert pushed.url == f"{hub.endpoint}/spaces/org/s/commit/{pushed.commit}"
    assert not pushed.changed


# What people wrote


def test_a_readme_by_people_is_kept(hub: HubServer, tiny: Tiny) -> None:
    text = "---\n# by hand\nlicense: mit\nlanguage: en\n---\n# Mine\n\nMy words, and <b>my</b> HTML.\n"
    hub.add("org/a", {"README.md": text.encode()})
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    readme = readme_of(hub)
    assert readme.startswith("---\n# by hand\nlicense: mit\nlanguage: en\n")
    assert "---\n# Mine\n\nMy words, and <b>my</b> HTML.\n" in readme
    assert "model-index" in readme


def test_edits_outside_the_marks_survive_the_next_push(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    edited = readme_of(hub).replace(
        "\n<!-- u2net-hub: begin use", "\nA word from me.\n\n<!-- u2net-hub: begin use"
    )
    hub.add("org/a", {"README.md": edited.encode()})
    tiny(1).push_to_hub("org/a", token=WRITER)
    assert "A word from me." in readme_of(hub)
    assert "0.9000" not in readme_of(hub)


def test_a_corrupted_readme_is_not_merged(hub: HubServer, tiny: Tiny) -> None:
    commit = hub.add("org/a", {"README.md": b"My words.\n" * 20})
    hub.fault("get:README.md", "corrupt")
    with pytest.raises(HubError, match=r"README\.md"):
        tiny(0).push_to_hub("org/a", token=WRITER)
    assert hub.repos["models", "org/a"].head == commit


def test_front_matter_that_is_not_yaml_is_refused(hub: HubServer, tiny: Tiny) -> None:
    hub.add("org/a", {"README.md": b"---\na: [\n---\n"})
    with pytest.raises(ValueError, match="not YAML"):
        tiny(0).push_to_hub("org/a", token=WRITER)


def test_words_that_look_like_secrets_stay(hub: HubServer, tiny: Tiny) -> None:
    text = (
        "from huggingface_hub import hf_hub_download\n\npip install hf_transfer\n\n"
        "Authorization: Bearer YOUR_TOKEN\n\nhttps://me:password@example.org/?X-Key=1\n"
    )
    hub.add("org/a", {"README.md": text.encode()})
    message = "Use hf_hub_download with Bearer YOUR_TOKEN"
    pushed = tiny(0).push_to_hub("org/a", token=WRITER, commit_message=message)
    assert text in readme_of(hub)
    assert hub.repos["models", "org/a"].messages[pushed.commit] == message


def test_a_text_that_holds_a_token_is_not_pushed(hub: HubServer, tiny: Tiny) -> None:
    commit = hub.add("org/a", {"README.md": f"token = {READER}\n".encode()})
    with pytest.raises(ValueError, match=r"README\.md holds a token of the Hub.*remove it") as caught:
        tiny(0).push_to_hub("org/a", token=WRITER)
    assert READER not in str(caught.value)
    assert hub.repos["models", "org/a"].head == commit


@pytest.mark.parametrize("argument", ["commit_message", "commit_description"])
def test_a_commit_message_that_holds_a_token_is_refused(hub: HubServer, tiny: Tiny, argument: str) -> None:
    with pytest.raises(ValueError, match="the commit message holds a token"):
        tiny(0).push_to_hub("org/a", token=WRITER, **{argument: f"with {READER}"})  # type: ignore[arg-type]
    assert not hub.log


MINE = """---
license: mit
library_name: other
model-index:
- name: a
  results:
  - task: {type: image-segmentation}
    dataset: {name: My photos, type: mine}
    metrics: [{type: iou, value: 0.8}]
widget: [{src: photo.jpg}]
---
# Mine
"""


def test_scores_that_people_wrote_into_the_model_index_stay(hub: HubServer, tiny: Tiny) -> None:
    hub.add("org/a", {"README.md": MINE.encode()})
    for metrics in (None, scores(), None):
        tiny(0).push_to_hub("org/a", token=WRITER, metrics=metrics)
        data = ModelCard(readme_of(hub)).data
        found = {(e.dataset_name, e.metric_type, e.metric_value) for e in data.eval_results or []}
        assert ("My photos", "iou", 0.8) in found
    assert len(found) == 3  # and ours: the weights are the same
    assert data.to_dict()["widget"] == [{"src": "photo.jpg"}]
    tiny(1).push_to_hub("org/a", token=WRITER)
    assert [e.dataset_name for e in ModelCard(readme_of(hub)).data.eval_results or []] == ["My photos"]


def test_entries_of_other_libraries_in_the_config_of_the_repo_stay(hub: HubServer, tiny: Tiny) -> None:
    config = {**tiny(0).config.to_dict(), "model_type": "u2net", "auto_map": {"AutoModel": "x.Y"}}
    hub.add("org/a", {"config.json": json.dumps(config).encode()})
    tiny(1).push_to_hub("org/a", token=WRITER)
    assert json.loads(hub.read("org/a", "config.json")) == config


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_text_that_is_not_utf8_is_named(hub: HubServer, tiny: Tiny, name: str) -> None:
    commit = hub.add("org/a", {name: "é".encode("latin-1")})
    with pytest.raises(
        ValueError, match=rf"org/a: {name} in the repo is not UTF-8 text \(byte 0 is 0xe9\).*push"
    ):
        tiny(0).push_to_hub("org/a", token=WRITER)
    assert hub.repos["models", "org/a"].head == commit


# What people type


@pytest.mark.parametrize(
    "metrics", [{"ECSSD": {"mae": 0.04}}, {"datasets": {"ECSSD": {"MAE": np.float32(0.04)}}}]
)
def test_scores_alone_are_enough_and_are_called_given(
    hub: HubServer, tiny: Tiny, metrics: dict[str, object]
) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=metrics)
    results = json.loads(hub.read("org/a", "results.json"))
    assert results["datasets"] == {"ECSSD": {"n": 0, "measured": True, "mae": 0.04}}
    assert results["versions"]["u2net-hub"]
    assert results["date"]
    assert "given with them and not measured by this library" in readme_of(hub)
    assert not tiny(0).push_to_hub("org/a", token=WRITER, metrics=metrics).changed


def test_a_score_that_nobody_knows_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown scores \['accuracy'\]"):
        tiny(0).fill_repo(tmp_path, metrics={"ECSSD": {"accuracy": 0.9}})


@pytest.mark.parametrize("metrics", [[1], 5])
def test_metrics_of_another_type_are_refused_with_the_types_to_give(
    tiny: Tiny, tmp_path: Path, metrics: object
) -> None:
    with pytest.raises(TypeError, match=r"metrics is .*, expected Results, the path of a results\.json"):
        tiny(0).fill_repo(tmp_path, metrics=metrics)


def test_a_message_that_is_not_text_is_refused_before_anything_is_sent(hub: HubServer, tiny: Tiny) -> None:
    with pytest.raises(TypeError, match="commit_message is 5, expected text"):
        tiny(0).push_to_hub("org/a", token=WRITER, commit_message=5)  # type: ignore[arg-type]
    assert ("models", "org/a") not in hub.repos


def test_a_bare_name_is_a_repo_of_ones_own(hub: HubServer, tiny: Tiny) -> None:
    pushed = tiny(0).push_to_hub("a", token=WRITER)
    assert pushed.repo_id == "writer/a"
    assert "writer/a" in hub.read("writer/a", "README.md").decode()


def test_a_bare_name_without_a_token_sends_nothing(hub: HubServer, tiny: Tiny) -> None:
    with pytest.raises(AccessDeniedError, match="hf auth login"):
        tiny(0).push_to_hub("a")
    assert not hub.log


def test_save_pretrained_pushes_on_request(hub: HubServer, tiny: Tiny, tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path / "mine", push_to_hub=True, token=WRITER, commit_message="first")
    tiny(0).save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="org/a", token=WRITER)
    repo = hub.repos["models", "writer/mine"]
    assert repo.messages[repo.head] == "first"
    assert files_of(hub) == NEW


def test_arguments_of_a_push_alone_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"\['repo_id', 'token'\], which are for a push; add push_to_hub=True"
    ):
        tiny(0).save_pretrained(tmp_path, repo_id="org/a", token=WRITER)
    assert not list(tmp_path.iterdir())


def test_revision_is_the_branch_and_a_description_is_committed(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, revision="run", commit_description="More words.")
    repo = hub.repos["models", "org/a"]
    assert files_of(hub, "run") >= NEW
    assert repo.descriptions[repo.refs["refs/heads/run"]] == "More words."
    with pytest.raises(ValueError, match="mean the same; give one"):
        tiny(0).push_to_hub("org/a", token=WRITER, revision="run", branch="other")


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [("use_auth_token", "token="), ("safe_serialization", "leave it out"), ("x", "'x'")],
)
def test_what_a_push_cannot_do_is_told(argument: str, remedy: str, tiny: Tiny) -> None:
    with pytest.raises(TypeError, match=f"push_to_hub.*{argument}.*{remedy}|push_to_hub.*{remedy}"):
        tiny(0).push_to_hub("org/a", **{argument: True})  # type: ignore[arg-type]


# Temporary folders


def test_what_a_killed_push_left_behind_goes_at_the_next_push(
    hub: HubServer, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, young, alive = (tmp_path / f"u2net-push-{name}" for name in ("dead", "young", "alive"))
    for folder in (dead, young, alive):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    for folder in (dead, alive):
        os.utime(folder, (time.time() - 3600,) * 2)
    lock = scratch._lock(alive)
    tiny(0).push_to_hub("org/a", token=WRITER)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [alive.name, young.name]
    assert lock is not None
    os.close(lock)


# Who may


@pytest.mark.parametrize("token", [READER, OUTSIDER, "hf_expired_token", None, False])
def test_a_token_that_may_not_write_is_refused(hub: HubServer, tiny: Tiny, token: str | bool | None) -> None:
    commit = hub.add("org/a", {})
    with pytest.raises(AccessDeniedError, match=r"org/a.*(settings/tokens|hf auth login)") as caught:
        tiny(0).push_to_hub("org/a", token=token)
    assert str(token) not in str(caught.value)
    assert hub.repos["models", "org/a"].head == commit


def test_anyone_may_open_a_pull_request(hub: HubServer, tiny: Tiny) -> None:
    hub.add("org/a", {})
    assert tiny(0).push_to_hub("org/a", token=OUTSIDER, create_pr=True).pull_request


# When something fails


def test_a_push_that_dies_half_way_leaves_the_repo_and_can_be_repeated(hub: HubServer, tiny: Tiny) -> None:
    first = tiny(0).push_to_hub("org/a", token=WRITER)
    hub.fault("commit", "reset", times=100)
    with pytest.raises(HubUnavailableError, match=r"org/a: .*model\.safetensors.*try again"):
        tiny(1).push_to_hub("org/a", token=WRITER)
    hub.faults.clear()
    # the request arrived, the answer was lost: the server did commit, and nothing is committed twice
    assert not tiny(1).push_to_hub("org/a", token=WRITER).changed
    repo = hub.repos["models", "org/a"]
    assert list(repo.trees)[1:] == [first.commit, repo.head]


def test_an_answer_that_got_lost_makes_no_second_commit(hub: HubServer, tiny: Tiny) -> None:
    hub.fault("commit", "reset")
    pushed = tiny(0).push_to_hub("org/a", token=WRITER)
    repo = hub.repos["models", "org/a"]
    assert pushed.changed
    assert list(repo.trees)[1:] == [pushed.commit]


def test_a_pull_request_is_not_opened_twice(hub: HubServer, tiny: Tiny) -> None:
    hub.fault("commit", "reset")
    with pytest.raises(HubUnavailableError, match="look first"):
        tiny(0).push_to_hub("org/a", token=WRITER, create_pr=True)
    assert len(hub.served("commit")) == 1


def test_a_branch_that_moves_meanwhile_is_looked_at_again(hub: HubServer, tiny: Tiny) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER)
    readme = readme_of(hub)
    pushes = iter([b"Written meanwhile.\n" + readme.encode()])

    def contents(head: object) -> dict[str, bytes]:
        for other in pushes:
            hub.add("org/a", {"README.md": other})
        return {"config.json": b"{}\n"}

    push_files("org/a", contents, commit_message="m", token=WRITER)
    assert [entry.status for entry in hub.served("commit")][-2:] == [412, 200]
    assert readme_of(hub).startswith("Written meanwhile.")


def test_a_branch_that_moves_all_the_time_is_given_up(hub: HubServer, tiny: Tiny) -> None:
    hub.fault("commit", "412", times=100)
    with pytest.raises(ConflictError, match=r"org/a.*push again"):
        tiny(0).push_to_hub("org/a", token=WRITER)


def test_a_stalled_push_ends(hub: HubServer, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2net_hub.hub.client.PATIENCE", 0.3)
    hub.fault("commit", "stall")
    assert tiny(0).push_to_hub("org/a", token=WRITER).changed
    assert [entry.fault for entry in hub.served("commit")] == ["stall", None]


# Secrets


def test_secrets_appear_nowhere(
    hub: HubServer, tiny: Tiny, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    told = f"u2net eval --token {WRITER}"
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores(command=told))
    hub.fault("*", "echo", times=100)
    with pytest.raises(HubError) as caught:
        tiny(1).push_to_hub("org/a", token=WRITER)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert WRITER not in str(chain)
        chain = chain.__cause__ or chain.__context__
    assert WRITER not in caplog.text
    for name in ("README.md", "config.json", "results.json"):
        assert WRITER.encode() not in hub.read("org/a", name)
    assert json.loads(hub.read("org/a", "results.json"))["command"] == "u2net eval --token ***"


def test_signed_addresses_stay_out_of_the_logs(
    hub: HubServer, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.fault("lfs-put", "503")
    tiny(0).push_to_hub("org/a", token=WRITER)
    assert "/lfs/" in caplog.text
    assert "secret" not in caplog.text


# Beside a training run


def test_a_run_pushes_in_the_background_and_its_result_to_main(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    with BackgroundPusher("org/a", branch="run", token=WRITER) as pusher:
        pusher.push(tiny(0).save_pretrained(tmp_path / "step1"), "step 1")
        assert pusher.finish(tiny(1).save_pretrained(tmp_path / "best"), "the best") == []
    repo = hub.repos["models", "org/a"]
    assert repo.messages[repo.refs["refs/heads/run"]] == "step 1"
    assert repo.messages[repo.head] == "the best"


def test_the_folder_may_change_as_soon_as_it_was_handed_over(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "step1")
    expected = content_hash(folder / "model.safetensors")
    pusher = BackgroundPusher("org/a", branch="run", token=WRITER)
    pusher.push(folder, "step 1")
    (folder / "model.safetensors").unlink()
    assert pusher.finish() == []
    assert content_hash(hub.read("org/a", "model.safetensors", "run")) == expected


def test_a_hub_that_is_down_does_not_stop_the_run_and_the_end_says_how_to_push(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    hub.fault("*", "503", times=10_000)
    pusher = BackgroundPusher("org/a", branch="run", token=WRITER)
    step, best = (tiny(i).save_pretrained(tmp_path / name) for i, name in enumerate(("step 1", "best")))
    pusher.push(step, "step 1")
    lines = pusher.finish(best)
    assert [line.rpartition(": ")[2] for line in lines] == [
        f"u2net push --model '{step}' org/a --branch run",
        f"u2net push --model {best} org/a",
    ]


def test_what_failed_in_between_is_pushed_at_the_end(hub: HubServer, tiny: Tiny, tmp_path: Path) -> None:
    failed = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "The run goes on" in record.getMessage():
                failed.set()

    handler = Handler()
    logging.getLogger("u2net_hub.training.background_push").addHandler(handler)
    try:
        hub.fault("commit", "403")
        pusher = BackgroundPusher("org/a", branch="run", token=WRITER)
        pusher.push(tiny(0).save_pretrained(tmp_path / "step1"), "step 1")
        assert failed.wait(30)
        assert files_of(hub, "run") == set()
        assert pusher.finish() == []
    finally:
        logging.getLogger("u2net_hub.training.background_push").removeHandler(handler)
    assert files_of(hub, "run") == NEW


def test_a_folder_that_cannot_be_pushed_does_not_stop_the_run(hub: HubServer, tmp_path: Path) -> None:
    pusher = BackgroundPusher("org/a", branch="run", token=WRITER)
    pusher.push(tmp_path / "none", "nothing")
    (line,) = pusher.finish()
    assert "model.safetensors" in line or "config.json" in line


def test_a_folder_without_weights_is_refused(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        push_folder(tmp_path, "org/a", token=WRITER)
    assert not hub.log


def test_the_client_finds_nothing_wrong_with_what_was_pushed(
    hub: HubServer, tiny: Tiny, tmp_path: Path
) -> None:
    tiny(0).push_to_hub("org/a", token=WRITER, metrics=scores())
    api = HfApi()
    for name in files_of(hub):
        api.hf_hub_download("org/a", name, local_dir=tmp_path)
    found = api.verify_repo_checksums("org/a", local_dir=tmp_path)
    assert not found.mismatches


def test_a_copy_that_waits_to_be_pushed_is_not_taken_for_one_left_behind(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch.ScratchFolder() as waiting:
        os.utime(waiting, (time.time() - 3600,) * 2)
        with scratch.ScratchFolder():
            assert Path(waiting).is_dir()
    assert not list(tmp_path.iterdir())
