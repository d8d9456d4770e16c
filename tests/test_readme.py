"""The README's Python and `u2net` lines run as they stand, in a folder with what they name."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from u2net_hub import training, training as training_module
from u2net_hub.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, but for those marked as installing."""
    found = re.findall(rf"(<!-- run: \w+ -->\n)?```{language}\n(.*?)```", README, re.DOTALL)
    return [block for mark, block in found if not mark]


@pytest.fixture
def desk(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README speaks of."""
    shutil.copytree(pairs, tmp_path / "pairs")
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "coffee"):
        shutil.copy(ROOT / "examples" / f"{name}.jpg", tmp_path / "photos")
    shutil.copy(ROOT / "examples" / "chelsea.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_lines_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert (desk / "chelsea_cutout.png").is_file()
    assert (desk / "my-u2netp" / "model.safetensors").is_file()
    assert capsys.readouterr().out.count("\n") == 2  # a box for each photo


def test_the_command_lines_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def pretend(config: object, **options: object) -> Path:
        """A real run takes hours; that it works is for test_training.py."""
        trained.append((config, options))
        shutil.copytree(ROOT / "u2net_hub" / "weights" / "u2netp", desk / "run" / "final", dirs_exist_ok=True)
        (desk / "run").mkdir(exist_ok=True)
        if not options["resume"]:
            config.save(desk / "run" / "train.json")
        return desk / "run" / "final"

    monkeypatch.setattr(training, "train", lambda config, **o: pretend(config, **{"resume": False, **o}))
    monkeypatch.setattr(training_module, "overfit_one", lambda config, **options: 0.0)
    estimate = SimpleNamespace(
        device="cpu",
        parameters=1,
        trained=1,
        pairs=1,
        steps=1,
        images_per_second={32: 1.0},
        data_wait={32: 0.01},
        memory=1,
        seconds=1.0,
    )
    monkeypatch.setattr(training_module, "dry_run", lambda config: estimate)

    ran = 0
    for line in "".join(blocks("sh")).splitlines():
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
        ran += 1
    assert ran >= 15
    assert len(trained) == 2
    for made in ("chelsea_cutout.png", "masks/coffee.png", "white/coffee.png", "binary/astronaut.png",
                 "converted/model.safetensors", "scores", "report"):  # fmt: skip
        assert (desk / made).exists(), made


def test_the_tables_of_speed_are_those_that_were_measured() -> None:
    script = [sys.executable, "model_cards/speed.py", "--check"]
    assert subprocess.run(script, cwd=ROOT, check=False).returncode == 0
