"""The house: which module may import which, what the package offers, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path

import pytest

import u2net_hub

PACKAGE = Path(u2net_hub.__file__).parent

# A module imports only from rows above its own.
ROWS = """
config results pairing sheet metrics loss record theme guarding checkpoints options openvino_precision
layout image card recipes remote backgrounds png counting bench_machine
graph
onnx_graph publishing process
convert deploying
hub
model data
precision
checking batches building
graph_engines torch_engine
engine validation quantising
exporting timm bench_results
pipeline
files evaluation
serving training bench_process
showing rehearsal bench_folders
tabs benchmark
demo
photo_verbs training_verbs weights_verbs speed_verbs
cli
__main__
"""
ROW = {module: i for i, row in enumerate(ROWS.split("\n")) for module in row.split()}

PUBLIC = {
    "SaliencyDataset": isclass,
    "SaliencyPipeline": isclass,
    "SaliencyResult": isclass,
    "TrainConfig": isclass,
    "U2Net": isclass,
    "U2NetConfig": isclass,
    "benchmark_engines": isfunction,
    "check_dataset": isfunction,
    "evaluate": isfunction,
    "export": isfunction,
    "list_models": isfunction,
    "run_files": isfunction,
    "train": isfunction,
}

modules = pytest.mark.parametrize(
    "module", sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")
)


def imports(module: str) -> set[str]:
    """The package's modules that one of them imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "u2net_hub." if node.level else ""
            names = [f"{start}{node.module or alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "u2net_hub" and rest and rest != "__version__":
                found.add(rest.split(".")[0])
    return found


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh Python has imported after running the code."""
    code += "\nimport sys; print(' '.join({'', *sys.modules}), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stderr.split("\n")[-2].split()}


@modules
def test_module_imports_only_from_the_rows_above_its_own(module: str) -> None:
    assert module in ROW, "a new module needs a row"
    wrong = {other for other in imports(module) if ROW[other] >= ROW[module]}
    assert not wrong


def test_imports_are_seen_wherever_they_stand() -> None:
    assert {"config", "convert", "layout", "onnx_graph"} <= imports("hub")  # some within functions


def test_there_is_no_module_for_odds_and_ends() -> None:
    odd = {"utils", "util", "helpers", "helper", "common", "constants", "registry", "factory", "base", "misc"}
    assert not odd & {path.stem for path in PACKAGE.rglob("*.py")}


def test_public_names_are_those_that_are_promised() -> None:
    assert set(u2net_hub.__all__) == {*PUBLIC, "__version__"}
    assert set(dir(u2net_hub)) == set(u2net_hub.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_what_it_should_be(name: str) -> None:
    value = getattr(u2net_hub, name)
    assert PUBLIC[name](value)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(import_module(value.__module__), name) is value


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_not_that_of_a_module(name: str) -> None:
    # importing u2net_hub.train would put the module in the place of the function
    assert name not in {path.stem for path in PACKAGE.iterdir()}


def test_unknown_name_raises_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'u2net_hub' has no attribute 'Unet'"):
        _ = u2net_hub.Unet
    with pytest.raises(ImportError):
        from u2net_hub import Unet  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(
    "code",
    [
        "import u2net_hub",
        "import u2net_hub; u2net_hub.U2NetConfig(); u2net_hub.list_models()",
        "from typer.testing import CliRunner; from u2net_hub.cli import app; "
        "assert CliRunner().invoke(app, '--help').exit_code == 0",
    ],
    ids=["package", "config", "help"],
)
def test_importing_costs_neither_torch_nor_gradio(code: str) -> None:
    assert not {"torch", "gradio", "timm", "huggingface_hub", "onnxruntime"} & loaded_by(code)


def test_core_imports_nothing_of_the_extras() -> None:
    names = "U2Net, SaliencyPipeline, SaliencyDataset, evaluate, check_dataset, run_files, list_models"
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
