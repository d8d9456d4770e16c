"""The house: which room may import which, what each door offers, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path

import pytest

import u2net_hub

PACKAGE = Path(u2net_hub.__file__).parent

# A room imports only from lines above its own.
ROWS = """
config atomic ordered tables
imaging
datasets
evaluation
checkpoints
hub
model
timm engines
inference
training server benchmarks
demo
cli
__main__ remote
"""
ROW = {room: i for i, row in enumerate(ROWS.splitlines()) for room in row.split()}

SHIPPED = ("examples", "space")  # an installed package holds these folders of the checkout too
FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py" and path.relative_to(PACKAGE).parts[0] not in SHIPPED
)
DOORS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))

PUBLIC = {
    **dict.fromkeys(
        [
            "Cleanup",
            "ClusterSummary",
            "CutoutBatch",
            "DataReport",
            "MaskBatch",
            "Phase",
            "Recipe",
            "Results",
            "SaliencyDataset",
            "SaliencyPipeline",
            "SaliencyResult",
            "Session",
            "Summary",
            "TrainConfig",
            "U2Net",
            "U2NetConfig",
            "HubError",
            "AccessDeniedError",
            "ConflictError",
            "CorruptFileError",
            "GatedRepoError",
            "HubUnavailableError",
            "MissingFileError",
            "NotCachedError",
            "RepoNotFoundError",
            "RevisionNotFoundError",
            "UnusableRepoError",
        ],
        isclass,
    ),
    **dict.fromkeys(
        [
            "benchmark_engines",
            "check_dataset",
            "download",
            "evaluate",
            "evaluate_maps",
            "export",
            "list_bundled",
            "list_models",
            "new_session",
            "open_engine",
            "remove",
            "run_files",
            "run_on_ray",
            "train",
        ],
        isfunction,
    ),
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> set[tuple[str, ...]]:
    """The places in the package that a file imports from, wherever in its text, as parts of a path."""
    folder = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {name[1:] for name in names if name[0] == "u2net_hub" and len(name) > 1}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            if node.module:
                found.add((*base, *node.module.split(".")))
            else:
                found |= {(*base, alias.name) for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("u2net_hub"):
            found.add(tuple(node.module.split(".")[1:]))
    return found


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh Python has imported after running the code."""
    code += "\nimport sys; print(' '.join({'', *sys.modules}), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stderr.split("\n")[-2].split()}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_imports_only_from_the_rows_above_its_room(path: Path) -> None:
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert room in ROW, "a new room needs a row"
    others = {place[0] for place in imports(path)} - {room}
    assert not {other for other in others if ROW[other] >= ROW[room]}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_other_rooms_are_entered_by_their_door(path: Path) -> None:
    if path.stem == "remote":
        pytest.skip("it stands for names of before")
    room = path.relative_to(PACKAGE).parts[0]
    assert not {place for place in imports(path) if place[0] != room and len(place) > 1}


@pytest.mark.parametrize("folder", DOORS, ids=name_of)
def test_no_room_has_a_circle_inside(folder: Path) -> None:
    inside = folder.relative_to(PACKAGE).parts
    graph = {}
    for path in folder.glob("*.py"):
        places = {place for place in imports(path) if place[: len(inside)] == inside}
        graph[path.stem] = {place[len(inside)] for place in places if len(place) > len(inside)}
    assert set(graph) <= set(TopologicalSorter(graph).static_order())  # a circle raises CycleError


def test_imports_are_seen_wherever_they_stand() -> None:
    found = imports(PACKAGE / "hub" / "pretrained.py")
    assert {("checkpoints",), ("config",), ("hub", "sources")} <= found
    assert ("model",) in imports(PACKAGE / "engines" / "open.py")  # within a function


@pytest.mark.parametrize("folder", DOORS, ids=name_of)
def test_door_offers_what_its_stub_names_and_no_module_hides_it(folder: Path) -> None:
    name = ".".join(("u2net_hub", *folder.relative_to(PACKAGE).parts))
    door = import_module(name)
    modules = {path.stem for path in folder.iterdir()}
    assert door.__doc__
    assert door.__all__
    for public in door.__all__:
        if public != "list_models":  # which warns
            assert getattr(door, public) is not None
        assert public not in modules


def test_there_is_no_module_for_odds_and_ends() -> None:
    odd = {"utils", "util", "helpers", "helper", "common", "constants", "registry", "factory", "base", "misc"}
    assert not odd & {path.stem for path in PACKAGE.rglob("*")}


def test_the_package_is_a_table_of_contents() -> None:
    # remote.py stands for a name of before, until 1.0
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "remote.py", *SHIPPED}
    assert len(entries) <= 23


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_is_longer_than_60_lines_without_its_docstring(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.body[0]
            said = ast.get_docstring(node) is not None
            length = node.end_lineno - node.lineno + 1 - (last.end_lineno - last.lineno + 1 if said else 0)
            assert length <= 60, node.name


def test_public_names_are_those_that_are_promised() -> None:
    assert set(u2net_hub.__all__) == set(PUBLIC)
    assert set(dir(u2net_hub)) >= set(u2net_hub.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_what_it_should_be(name: str) -> None:
    value = getattr(u2net_hub, name)
    assert PUBLIC[name](value)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(import_module(value.__module__), name) is value


def test_unknown_name_raises_as_python_does() -> None:
    with pytest.raises(AttributeError, match="No u2net_hub attribute Unet"):
        _ = u2net_hub.Unet
    with pytest.raises(ImportError):
        from u2net_hub import Unet  # type: ignore[attr-defined]  # noqa: F401


def test_former_names_go_on_working_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="list_bundled"):
        assert u2net_hub.list_models() == u2net_hub.list_bundled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        remote = import_module("u2net_hub.remote")
    assert remote.HubError is u2net_hub.HubError


def test_dotted_paths_of_before_go_on_working() -> None:
    from u2net_hub.cli import main
    from u2net_hub.evaluation import evaluate
    from u2net_hub.hub import list_bundled
    from u2net_hub.training import train

    for name, value in {"train": train, "evaluate": evaluate, "list_bundled": list_bundled}.items():
        assert getattr(u2net_hub, name) is value
    assert callable(main)


@pytest.mark.parametrize(
    "code",
    [
        "import u2net_hub",
        "import u2net_hub; u2net_hub.U2NetConfig(); u2net_hub.list_bundled()",
        "from typer.testing import CliRunner; from u2net_hub.cli import app; "
        "assert CliRunner().invoke(app, '--help').exit_code == 0",
    ],
    ids=["package", "config", "help"],
)
def test_importing_costs_neither_torch_nor_gradio(code: str) -> None:
    assert not {"torch", "gradio", "timm", "huggingface_hub", "onnxruntime", "scipy"} & loaded_by(code)


def test_core_imports_nothing_of_the_extras() -> None:
    names = "U2Net, SaliencyPipeline, SaliencyDataset, evaluate, check_dataset, run_files, list_bundled"
    loaded = loaded_by(f"from u2net_hub import {names}; SaliencyPipeline(U2Net(), engine='torch')")
    assert "torch" in loaded
    assert not loaded & {
        "timm",
        "torchvision",
        "gradio",
        "accelerate",
        "matplotlib",
        "onnx",
        "openvino",
        "spaces",
    }
