"""The demo as a Space: its files, the wheel, and the way to the Hub."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from hub_server import WRITER, HubServer
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from u2net_hub import __version__
from u2net_hub.cli import app
from u2net_hub.demo import space
from u2net_hub.demo.space import installed_wheel, push_space, shipped, space_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
WHEEL = f"u2net_hub-{__version__}-py3-none-any.whl"
SPACE = ("spaces", "org/demo")


@pytest.fixture(scope="module")
def wheel() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(installed_wheel()[1])) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in found}


def front_matter() -> dict[str, object]:
    match = REGEX_YAML_BLOCK.search((ROOT / "space" / "README.md").read_text(encoding="utf-8"))
    assert match is not None
    fields = yaml.safe_load(match.group(2))
    assert isinstance(fields, dict)
    return fields


# space/


def test_the_front_matter_is_complete() -> None:
    fields = front_matter()
    assert {
        "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file",
        "license", "short_description", "tags", "suggested_hardware",
    } <= set(fields)  # fmt: skip
    assert fields["sdk"] == "gradio"
    assert (ROOT / "space" / str(fields["app_file"])).is_file()


def test_the_front_matter_is_what_the_hub_takes() -> None:
    # https://huggingface.co/docs/hub/spaces-config-reference
    fields = front_matter()
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {fields["colorFrom"], fields["colorTo"]} <= colours
    assert len(str(fields["short_description"])) <= 60
    assert fields["suggested_hardware"] in {"cpu-basic", "cpu-upgrade", "t4-small", "zero-a10g"}
    assert isinstance(fields["python_version"], str)  # 3.10 without quotes would be 3.1


def test_gradio_is_the_same_in_front_matter_and_requirements() -> None:
    assert str(pins()["gradio"].specifier) == f"=={front_matter()['sdk_version']}"


def test_every_requirement_is_pinned() -> None:
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in pins().values())


def test_torch_is_one_that_zerogpu_runs() -> None:
    version = str(pins()["torch"].specifier).removeprefix("==")
    assert version in SpecifierSet(">=2.8,<2.12")
    assert front_matter()["python_version"] in ("3.10", "3.12")


def test_the_pins_fit_what_the_package_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["space"], *extras["heif"]]:
        required = Requirement(line)
        pin = str(pins()[required.name].specifier).removeprefix("==")
        assert pin in required.specifier, line


# The wheel


def test_the_wheel_holds_the_package_and_what_the_demo_needs(wheel: dict[str, bytes]) -> None:
    for name in (
        "__init__.py", "demo.py", "py.typed", "weights/u2netp/model.safetensors",
        "weights/u2netp/config.json", "examples/chelsea.jpg", "space/app.py",
    ):  # fmt: skip
        assert f"u2net_hub/{name}" in wheel
    assert not [name for name in wheel if "__pycache__" in name or "tests" in name]
    assert wheel["u2net_hub/demo.py"] == (ROOT / "u2net_hub" / "demo.py").read_bytes()


def test_the_wheel_records_the_hash_of_each_file(wheel: dict[str, bytes]) -> None:
    name = f"u2net_hub-{__version__}.dist-info/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(wheel[name].decode().splitlines())}
    assert set(rows) == set(wheel)
    assert rows.pop(name) == ["", ""]
    for path, (digest, size) in rows.items():
        expected = base64.urlsafe_b64encode(hashlib.sha256(wheel[path]).digest()).decode().rstrip("=")
        assert digest == f"sha256={expected}"
        assert int(size) == len(wheel[path])


def test_the_screenshots_of_the_readme_stay_where_they_are(wheel: dict[str, bytes]) -> None:
    assert len(list((ROOT / "space").glob("screenshot-*.webp"))) == 2
    assert not [name for name in [*wheel, *space_files("org/demo")] if "screenshot" in name]


def test_the_same_files_give_the_same_wheel() -> None:
    assert installed_wheel() == installed_wheel()


def test_the_wheel_says_what_the_package_requires(wheel: dict[str, bytes]) -> None:
    metadata = wheel[f"u2net_hub-{__version__}.dist-info/METADATA"].decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Dist: torch>=2.8\n" in metadata
    assert b"u2net = u2net_hub.cli:main" in wheel[f"u2net_hub-{__version__}.dist-info/entry_points.txt"]


def test_a_package_of_another_version_than_its_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"is installed, its files are of 9\.9; install it again"):
        installed_wheel()


def test_what_is_neither_in_the_package_nor_beside_it_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="nonsense/ is neither in"):
        shipped("nonsense")


# To the Hub


def test_requirements_name_the_wheel_by_address_and_hash(hub: HubServer) -> None:
    files = space_files("org/demo")
    *others, last = files["requirements.txt"].decode().splitlines()
    assert "\n".join(others) + "\n" == (ROOT / "space" / "requirements.txt").read_text()
    digest = hashlib.sha256(files[WHEEL]).hexdigest()
    address = f"{hub.endpoint}/spaces/org/demo/resolve/main/{WHEEL}"
    assert last == f"u2net-hub @ {address}#sha256={digest}"


def test_a_push_brings_space_and_wheel_in_one_commit(hub: HubServer) -> None:
    pushed = push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    assert set(repo.trees[repo.head]) - {".gitattributes"} == {
        "README.md",
        "app.py",
        "requirements.txt",
        WHEEL,
    }
    assert pushed.commit == repo.head
    assert len(hub.served("commit")) == 1
    assert hub.read("org/demo", "app.py", kind="spaces") == (ROOT / "space" / "app.py").read_bytes()


def test_the_same_again_makes_no_commit(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    assert not push_space("org/demo", token=WRITER).changed
    assert len(hub.served("commit")) == 1


def test_an_older_wheel_goes(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    hub.add("org/demo", {"u2net_hub-0.0.1-py3-none-any.whl": b"old", "notes.txt": b"mine"}, kind="spaces")
    push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    assert "u2net_hub-0.0.1-py3-none-any.whl" not in repo.trees[repo.head]
    assert {WHEEL, "notes.txt"} <= set(repo.trees[repo.head])


def test_the_models_become_a_variable_of_the_space(hub: HubServer) -> None:
    push_space("org/demo", models=["org/u2netp", "org/u2net"], token=WRITER)
    assert hub.repos[SPACE].variables == {"U2NET_MODELS": "org/u2netp,org/u2net"}


def test_without_models_the_settings_of_the_space_stay(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    assert not hub.served("variable")


def test_the_wheel_on_a_branch_is_named_there(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER, branch="next")
    requirements = hub.read("org/demo", "requirements.txt", "next", kind="spaces").decode()
    assert f"/resolve/next/{WHEEL}#" in requirements


def test_a_private_space_is_refused(hub: HubServer) -> None:
    with pytest.raises(ValueError, match="a private Space cannot install the wheel"):
        push_space("org/demo", token=WRITER, private=True)
    assert not hub.log


def test_a_space_that_is_private_already_is_refused(hub: HubServer) -> None:
    hub.add("org/demo", {"app.py": b""}, kind="spaces", private=True)
    with pytest.raises(ValueError, match="make this one public in its settings"):
        push_space("org/demo", token=WRITER)
    assert not hub.served("commit")


def test_the_command_pushes_the_space(hub: HubServer) -> None:
    result = CliRunner().invoke(
        app, ["push", "--space", "org/demo", "--model", "org/a, org/b", "--token", WRITER]
    )
    assert result.exit_code == 0, result.output
    repo = hub.repos[SPACE]
    assert result.stdout.strip().endswith(f"/org/demo/commit/{repo.head}")
    assert repo.variables == {"U2NET_MODELS": "org/a,org/b"}


def test_a_rehearsal_of_the_command_asks_nobody(hub: HubServer) -> None:
    result = CliRunner().invoke(app, ["push", "--space", "org/demo", "--dry-run"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "README.md", "app.py", "requirements.txt", WHEEL,
    ]  # fmt: skip
    assert not hub.log


def test_options_for_models_do_not_go_with_a_space() -> None:
    result = CliRunner().invoke(app, ["push", "--space", "org/demo", "--license", "mit"])
    assert isinstance(result.exception, ValueError)
    assert "--license are for a model" in str(result.exception)


def test_a_push_of_nothing_is_told() -> None:
    result = CliRunner().invoke(app, ["push", "org/demo"])
    assert "give --model, or --space to push the demo" in str(result.exception)


# What was pushed, on another machine


def test_the_pushed_tree_installs_and_starts(hub: HubServer, tmp_path: Path) -> None:
    """As the builder of a Space does it, but that other packages are those of this environment."""
    pytest.importorskip("gradio")
    push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    tree, site = tmp_path / "app", tmp_path / "site"
    tree.mkdir()
    for name in set(repo.trees[repo.head]) - {".gitattributes", WHEEL}:
        (tree / name).write_bytes(hub.read("org/demo", name, kind="spaces"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-cache-dir", "--target", site]
    mine = (tree / "requirements.txt").read_text().splitlines()[-1]
    subprocess.run([*install, mine], check=True, capture_output=True, timeout=120)
    code = (
        "import sys, runpy, u2net_hub, u2net_hub.demo as demo, urllib.request, threading\n"
        "def look(blocks):\n"
        "    print(u2net_hub.__file__, demo.shipped('examples'))\n"
        "    print(urllib.request.urlopen(blocks.local_url + 'gradio_api/info').read().decode())\n"
        "demo.gr.Blocks.block_thread = look\n"
        "sys.argv = ['app.py']; runpy.run_path('app.py', run_name='__main__')\n"
    )
    run = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code],
        cwd=tree, env={"PYTHONPATH": str(site), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert f"{site}/u2net_hub/__init__.py {site}/u2net_hub/examples" in run.stdout
    for endpoint in ("/cutout", "/inside", "/batch", "/load_model", "/try_model"):
        assert f'"{endpoint}"' in run.stdout
