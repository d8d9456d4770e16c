"""The Python and `u2net` lines of the README and of docs/ run as they stand, in a folder with what they name.

Blocks marked `text` are not run: they need the network, other extras or much time. The Python lines of the
README run with the bundled weights. Elsewhere a small network answers to the name "u2netp", which takes an
eighth of the time.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import u2net_hub
from u2net_hub import U2Net, training
from u2net_hub.cli import app
from u2net_hub.evaluation import scoring
from u2net_hub.evaluation.workers import map_in_processes
from u2net_hub.hub import bundled

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]

# What the lines of a page leave behind.
MADE = {
    "README.md": {
        "sh": [
            "chelsea_cutout.png",
            "masks/coffee.png",
            "white/coffee.png",
            "u2netp.onnx",
            "scores/results.json",
        ],
        "python": ["chelsea_cutout.png"],
    },
    "docs/index.md": {"python": ["cutout.png"]},
    "docs/cutouts.md": {
        "sh": ["binary/astronaut.png", "small.webp", "sharp.png", "hair.png", "soft.png", "cleaned.png"],
        "python": ["chelsea_white.png", "chelsea_whole.png", "cutouts/coffee.png", "chelsea.png"],
    },
    "docs/weights.md": {"sh": ["converted/model.safetensors"], "python": ["my-u2netp/model.safetensors"]},
    "docs/scores.md": {"sh": ["report/report.json", "scores-of-maps/results.json"], "python": []},
    "docs/training.md": {"sh": ["cutouts/coffee.png"], "python": ["run-of-python/final"]},
    "docs/speed.md": {"sh": ["fast/coffee.png", "u2netp.xml"], "python": ["exported.onnx"]},
}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, without the commands that install the package."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"(<!-- run: \w+ -->\n)?```{language}\n(.*?)```", text, re.DOTALL)
    return [block for mark, block in found if not mark]


@pytest.fixture
def small_weights(tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network under the name of the bundled one, at a size that every engine takes."""
    import u2net_hub.timm  # noqa: F401  reads the folder of the weights when it is imported

    network = U2Net.from_pretrained(tiny_source)
    network.config = network.config.replace(input_size=(64, 64))
    network.save_pretrained(tmp_path / "weights" / "u2netp")
    monkeypatch.setattr(bundled, "WEIGHTS_DIR", tmp_path / "weights")


@pytest.fixture
def one_process(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`u2net eval` scores in this process, except in the README, whose line starts processes as it does."""
    if page != "README.md":
        monkeypatch.setattr(
            scoring, "map_in_processes", lambda function, jobs, workers: map_in_processes(function, jobs, 0)
        )


@pytest.fixture
def desk(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name; training ends at once and gives the bundled weights."""
    tmp_path = tmp_path / "desk"
    tmp_path.mkdir()
    (tmp_path / "pairs").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / "pairs" / kind).mkdir()
        for i in range(3):
            shutil.copy(pairs / kind / f"{i:02}.png", tmp_path / "pairs" / kind)
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        shutil.copy(ROOT / "examples" / f"{name}.jpg", tmp_path / "photos")
    shutil.copy(ROOT / "examples" / "chelsea.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    for door in (u2net_hub, training):  # a door keeps what it was asked for
        monkeypatch.setattr(door, "train", pretend_to_train)
    monkeypatch.setattr(training, "overfit_one", lambda config, **options: 0.0)
    estimate = SimpleNamespace(
        device="cpu",
        parameters=1,
        trained=1,
        pairs=1,
        steps=1,
        images_per_second={32: 1.0},
        data_wait={32: 0.01},
        memory=1,
        plan=SimpleNamespace(text=lambda: "1 GiB"),
        seconds=1.0,
    )
    monkeypatch.setattr(training, "dry_run", lambda config: estimate)
    return tmp_path


def pretend_to_train(config: training.TrainConfig, **options: object) -> Path:
    """What a run leaves behind; the tests of training show that a real one works."""
    out = Path(config.out)
    shutil.copytree(bundled.WEIGHTS_DIR / "u2netp", out / "final", dirs_exist_ok=True)
    if not options.get("resume"):
        config.save(out / "train.json")
    return out / "final"


def missing(desk: Path, page: str, language: str) -> list[str]:
    return [name for name in MADE[page][language] if not (desk / name).exists()]


def test_every_page_with_lines_to_run_says_what_they_make() -> None:
    expected = {
        page: {
            language: MADE.get(page, {}).get(language)
            for language in ("sh", "python")
            if blocks(page, language)
        }
        for page in PAGES
        if blocks(page, "sh") or blocks(page, "python")
    }
    assert expected == MADE


@pytest.mark.parametrize("page", [page for page in MADE if "python" in MADE[page]])
def test_python_lines_run(page: str, desk: Path, request: pytest.FixtureRequest) -> None:
    if page != "README.md":
        request.getfixturevalue("small_weights")
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    assert missing(desk, page, "python") == []


@pytest.mark.usefixtures("small_weights", "one_process")
@pytest.mark.parametrize("page", [page for page in MADE if "sh" in MADE[page]])
def test_command_lines_run(page: str, desk: Path) -> None:
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "u2net", line
        words, piped = words[1:], None
        if "<" in words:
            piped = (desk / words[words.index("<") + 1]).read_bytes()
            words = words[: words.index("<")]
        result = CliRunner().invoke(app, words, input=piped)
        assert result.exit_code == 0, (line, result.output, result.exception)
        if piped is not None:
            assert result.stdout_bytes.startswith(b"\x89PNG")
    assert missing(desk, page, "sh") == []


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^::: u2net_hub\.(\w+)$", text, re.MULTILINE))
    deprecated = {"list_models"}
    assert described == set(u2net_hub.__all__) - deprecated


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES[1:] if f": {Path(page).name}\n" not in text] == []
