"""The README has what its readers and the checks of the project look for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = {path.name for path in (ROOT / "u2net_hub").iterdir() if not path.name.startswith(("_", "."))}


@pytest.mark.parametrize("script", ["speed.py", "serving/table.py"])
def test_the_tables_of_speed_are_those_that_were_measured(script: str) -> None:
    words = [sys.executable, f"model_cards/{script}", "--check"]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["first", "tests"])
def test_the_two_commands_can_be_found_by_their_marks(name: str) -> None:
    found = re.findall(rf"^<!-- run: {name} -->\n```sh\n(.+)\n```$", README, re.MULTILINE)
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_rooms_that_a_page_names_exist(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`(\w+(?:/|\.py))`", row)}
    files = {path.name for path in (ROOT / "u2net_hub").rglob("*.py")}
    assert named
    assert named <= ROOMS | files


def test_architecture_names_every_room() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "u2net_hub").iterdir() if (path / "__init__.py").is_file()}
    assert {name for name in folders if f"| `{name}/` |" not in text} == set()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []
