"""The files that make a repo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import WRITER, HubServer
from PIL import Image

from u2net_hub import U2Net
from u2net_hub.evaluation.results import Results, Training
from u2net_hub.hub.card.front_matter import _dump
from u2net_hub.hub.card.render import PICTURE_NAME
from u2net_hub.hub.card.sections import _history
from u2net_hub.hub.errors import AccessDeniedError, ConflictError
from u2net_hub.hub.push_model import folder_contents

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

Tiny = Callable[[int], U2Net]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "mine.webp"
    Image.new("RGB", (8, 8)).save(path)
    return path


def card_of(folder: Path) -> str:
    content = folder_contents(folder, "org/a")["README.md"]
    assert isinstance(content, bytes)
    return content.decode()


def test_a_picture_is_copied_into_the_repo(tiny: Tiny, picture: Path, tmp_path: Path) -> None:
    folder = tiny(0).fill_repo(tmp_path / "repo", picture=picture)
    assert (folder / PICTURE_NAME).read_bytes() == picture.read_bytes()


def test_the_card_shows_the_picture_of_the_repo(tiny: Tiny, picture: Path, tmp_path: Path) -> None:
    assert PICTURE_NAME in card_of(tiny(0).fill_repo(tmp_path / "repo", picture=picture))


def test_a_card_without_a_picture_names_none(tiny: Tiny, tmp_path: Path) -> None:
    assert PICTURE_NAME not in card_of(tiny(0).fill_repo(tmp_path / "repo"))


def test_the_header_of_saved_weights_is_a_multiple_of_eight_bytes(tiny: Tiny, tmp_path: Path) -> None:
    # as the format recommends, so that the tensors behind it are aligned
    content = (tiny(0).save_pretrained(tmp_path) / "model.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_a_score_that_came_later_has_its_column_in_the_history() -> None:
    history = ({"hours": 0.0, "mae": 0.2}, {"hours": 1.0, "mae": 0.1, "max_f": 0.9})
    head, first, last = _history(Training(("DUTS-TR",), history=history))
    assert len(head) == 3
    assert first == ["0.00", "0.2000", "–"]
    assert last == ["1.00", "0.1000", "0.9000"]


def test_front_matter_keeps_letters_as_they_are() -> None:
    assert _dump({"name": "U²-Net†"}) == "name: U²-Net†\n"


def test_a_push_without_a_token_sends_nothing(hub: HubServer, tiny: Tiny) -> None:
    with pytest.raises(AccessDeniedError, match="hf auth login"):
        tiny(0).push_to_hub("org/a", token=False)
    assert hub.served() == []


def test_a_branch_that_moves_all_the_time_is_looked_at_five_times(hub: HubServer, tiny: Tiny) -> None:
    hub.fault("commit", "412", times=100)
    with pytest.raises(ConflictError):
        tiny(0).push_to_hub("org/a", token=WRITER)
    assert len(hub.served("commit")) == 5


def test_pushed_results_are_indented_by_two_spaces(tiny: Tiny, tmp_path: Path) -> None:
    metrics = Results({}, command="u2net eval", date="2026-01-02")
    folder = tiny(0).fill_repo(tmp_path / "repo", metrics=metrics)
    content = folder_contents(folder, "org/a")["results.json"]
    assert isinstance(content, bytes)
    assert content.decode() == json.dumps(json.loads(content), indent=2, ensure_ascii=False) + "\n"
