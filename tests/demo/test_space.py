"""The demo as a Space: its files, the push to the Hub, and the start from what was pushed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import WRITER, HubServer
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from u2net_hub.cli import app
from u2net_hub.demo.space import Hardware, push_space, shipped, space_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
SPACE = ("spaces", "org/demo")


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    found = [
        Requirement(line.partition("#")[0]) for line in lines if line and not line.startswith(("#", "--"))
    ]
    return {requirement.name: requirement for requirement in found}


def requirements_for(hardware: Hardware) -> str:
    content = space_files(hardware)["requirements.txt"]
    assert isinstance(content, bytes)
    return content.decode()


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
    published = {
        "title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version",
        "suggested_hardware", "suggested_storage", "app_file", "app_build_command", "app_port",
        "base_path", "fullWidth", "header", "short_description", "models", "datasets", "tags",
        "thumbnail", "pinned", "hf_oauth", "disable_embedding", "startup_duration_timeout",
        "custom_headers", "preload_from_hub", "license",
    }  # fmt: skip
    fields = front_matter()
    assert set(fields) <= published
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {fields["colorFrom"], fields["colorTo"]} <= colours
    assert len(str(fields["short_description"])) <= 60
    assert fields["suggested_hardware"] in {"cpu-basic", "cpu-upgrade", "t4-small", "zero-a10g"}
    assert isinstance(fields["python_version"], str)  # 3.10 without quotes would be 3.1


def test_gradio_is_the_same_in_front_matter_and_requirements() -> None:
    assert str(pins()["gradio"].specifier) == f"=={front_matter()['sdk_version']}"


def test_every_requirement_is_pinned() -> None:
    assert all(re.fullmatch(r"==[\d.]+(\+cpu)?", str(pin.specifier)) for pin in pins().values())


def test_a_cpu_has_the_fast_engine_and_a_torch_without_cuda() -> None:
    assert {"openvino", "onnx", "isal"} <= set(pins())
    assert str(pins()["torch"].specifier).endswith("+cpu")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in requirements_for("cpu")


def test_a_gpu_has_a_torch_with_cuda_and_no_engine_for_the_cpu() -> None:
    listed = requirements_for("gpu")
    assert re.search(r"^torch==[\d.]+$", listed, re.MULTILINE)
    assert not re.search(r"download\.pytorch|openvino|onnx", listed.partition("gradio==")[2])
    assert "--extra-index-url" not in listed


def test_torch_is_one_that_zerogpu_runs() -> None:
    version = str(pins()["torch"].specifier).removeprefix("==").removesuffix("+cpu")
    assert version in SpecifierSet(">=2.8,<2.12")
    assert front_matter()["python_version"] in ("3.10", "3.12")


def test_the_pins_fit_what_the_package_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for line in [
        *project["dependencies"],
        *extras["space"],
        *extras["heif"],
        *extras["openvino"],
        *extras["fast"],
    ]:
        required = Requirement(line)
        pin = str(pins()[required.name].specifier).removeprefix("==")
        assert pin in required.specifier, line


# The files


def test_the_space_holds_the_package_and_what_the_demo_needs() -> None:
    names = set(space_files())
    assert {
        "README.md", "app.py", "requirements.txt", "LICENSE", "u2net_hub/__init__.py",
        "u2net_hub/__init__.pyi", "u2net_hub/demo/app.py", "u2net_hub/demo/style.css",
        "u2net_hub/demo/head.html", "u2net_hub/hub/card/card.md.jinja",
        "u2net_hub/weights/u2netp/model.safetensors", "u2net_hub/examples/chelsea.jpg",
    } <= names  # fmt: skip


def test_no_caches_hidden_files_or_screenshots_are_pushed() -> None:
    assert len(list((ROOT / "space").glob("screenshot-*.webp"))) == 2
    assert not [name for name in space_files() if re.search(r"__pycache__|/\.|screenshot", name)]


def test_what_is_neither_in_the_package_nor_beside_it_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="nonsense/ is neither in"):
        shipped("nonsense")


# To the Hub


def test_a_push_brings_space_and_package_in_one_commit(hub: HubServer) -> None:
    pushed = push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    assert set(repo.trees[repo.head]) - {".gitattributes"} == set(space_files())
    assert pushed.commit == repo.head
    assert len(hub.served("commit")) == 1
    for name, path in space_files().items():
        content = path if isinstance(path, bytes) else path.read_bytes()
        assert hub.read("org/demo", name, kind="spaces") == content, name


def test_the_same_again_makes_no_commit(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    assert not push_space("org/demo", token=WRITER).changed
    assert len(hub.served("commit")) == 1


def test_older_wheels_and_modules_go_and_other_files_stay(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    old = {"u2net_hub-0.0.1-py3-none-any.whl": b"old", "u2net_hub/demo_app.py": b"old"}
    hub.add("org/demo", {**old, "notes.txt": b"mine"}, kind="spaces")
    push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    assert set(repo.trees[repo.head]) - {".gitattributes"} == {*space_files(), "notes.txt"}


def test_the_models_become_a_variable_of_the_space(hub: HubServer) -> None:
    push_space("org/demo", models=["org/u2netp", "org/u2net"], token=WRITER)
    assert hub.repos[SPACE].variables == {"U2NET_MODELS": "org/u2netp,org/u2net"}


def test_without_models_the_settings_of_the_space_stay(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER)
    assert not hub.served("variable")


def test_a_private_space_is_created_private(hub: HubServer) -> None:
    push_space("org/demo", token=WRITER, private=True)
    assert hub.repos[SPACE].private


def test_a_space_that_is_private_already_is_updated(hub: HubServer) -> None:
    hub.add("org/demo", {"app.py": b""}, kind="spaces", private=True)
    push_space("org/demo", token=WRITER)
    assert hub.repos[SPACE].private
    assert len(hub.served("commit")) == 1


def test_the_command_pushes_the_space(hub: HubServer) -> None:
    result = CliRunner().invoke(
        app, ["push", "--space", "org/demo", "--model", "org/a, org/b", "--token", WRITER]
    )
    assert result.exit_code == 0, result.output
    repo = hub.repos[SPACE]
    assert result.stdout.strip().endswith(f"/org/demo/commit/{repo.head}")
    assert repo.variables == {"U2NET_MODELS": "org/a,org/b"}


def test_the_command_knows_the_hardware(hub: HubServer) -> None:
    arguments = ["push", "--space", "org/demo", "--hardware", "gpu", "--token", WRITER]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert b"+cpu" not in hub.read("org/demo", "requirements.txt", kind="spaces")
    result = CliRunner().invoke(app, ["push", "--space", "org/demo", "--hardware", "tpu"])
    assert str(result.exception) == "unknown hardware 'tpu', expected cpu or gpu"


def test_a_rehearsal_of_the_command_asks_nobody(hub: HubServer) -> None:
    result = CliRunner().invoke(app, ["push", "--space", "org/demo", "--dry-run"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == sorted(space_files())
    assert not hub.log


def test_options_for_models_do_not_go_with_a_space() -> None:
    result = CliRunner().invoke(app, ["push", "--space", "org/demo", "--license", "mit"])
    assert isinstance(result.exception, ValueError)
    assert "--license and --for are for a model" in str(result.exception)


def test_a_push_of_nothing_is_told() -> None:
    result = CliRunner().invoke(app, ["push", "org/demo"])
    assert "give --model, or --space to push the demo" in str(result.exception)


# What was pushed, on another machine


def test_the_pushed_tree_starts_by_itself(hub: HubServer, tmp_path: Path) -> None:
    """As on a Space, except that the other packages are those of this environment."""
    pytest.importorskip("gradio")
    push_space("org/demo", token=WRITER)
    repo = hub.repos[SPACE]
    tree = tmp_path / "app"
    for name in set(repo.trees[repo.head]) - {".gitattributes"}:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.read("org/demo", name, kind="spaces"))
    code = (
        "import runpy, urllib.request, gradio as gr\n"
        "def look(blocks):\n"
        "    import u2net_hub.demo.space as space\n"
        "    print(space.__file__, space.shipped('examples'))\n"
        "    print(urllib.request.urlopen(blocks.local_url + 'gradio_api/info').read().decode())\n"
        "gr.Blocks.block_thread = look\n"
        "runpy.run_path('app.py', run_name='__main__')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree, env={"PATH": "", "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert f"{tree}/u2net_hub/demo/space.py {tree}/u2net_hub/examples" in run.stdout
    for endpoint in ("/cutout", "/inside", "/batch", "/load_model", "/try_model"):
        assert f'"{endpoint}"' in run.stdout
