"""U²-Net and U²-Net† on the Hugging Face Hub. Public names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .benchmark import benchmark_engines as benchmark_engines
    from .checking import check_dataset as check_dataset
    from .config import U2NetConfig as U2NetConfig
    from .data import SaliencyDataset as SaliencyDataset
    from .evaluation import evaluate as evaluate
    from .exporting import export as export
    from .files import run_files as run_files
    from .hub import list_models as list_models
    from .model import U2Net as U2Net
    from .pipeline import SaliencyPipeline as SaliencyPipeline
    from .pipeline import SaliencyResult as SaliencyResult
    from .recipes import TrainConfig as TrainConfig
    from .training import train as train

_HOME = {
    "benchmark_engines": "benchmark",
    "evaluate": "evaluation",
    "export": "exporting",
    "check_dataset": "checking",
    "SaliencyDataset": "data",
    "train": "training",
    "TrainConfig": "recipes",
    "SaliencyPipeline": "pipeline",
    "SaliencyResult": "pipeline",
    "U2Net": "model",
    "U2NetConfig": "config",
    "list_models": "hub",
    "run_files": "files",
}

__all__ = [
    "SaliencyDataset",
    "SaliencyPipeline",
    "SaliencyResult",
    "TrainConfig",
    "U2Net",
    "U2NetConfig",
    "__version__",
    "benchmark_engines",
    "check_dataset",
    "evaluate",
    "export",
    "list_models",
    "run_files",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
