"""The models that are installed with the library."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..config import U2NetConfig
from .layouts import WEIGHTS_NAME

if TYPE_CHECKING:
    from ..evaluation import Speed

CONFIG_NAME = "config.json"
RESULTS_NAME = "results.json"
WEIGHTS_DIR = Path(__file__).parents[1] / "weights"

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_GENERATED = re.compile(r"<!-- u2net-hub: begin (\w+)\b[^>]*-->.*?<!-- u2net-hub: end \1 -->", re.DOTALL)


class ModelInfo(NamedTuple):
    """One bundled model."""

    name: str
    variant: str
    description: str
    input_size: tuple[int, int]
    """Height and width of the network's input, in pixels."""
    scores: Mapping[str, float]
    """The scores on the last data set of its results.json, by measure; empty if there are none."""
    dataset: str
    """The name of that data set."""
    speed: Speed | None
    """The first row of its measured speeds."""


def list_bundled() -> list[ModelInfo]:
    """List the models that are installed with the library, sorted by name."""
    from ..evaluation import Results

    models = []
    for name in bundled_names():
        folder = WEIGHTS_DIR / name
        config = U2NetConfig.load(folder / CONFIG_NAME)
        results = Results.load(folder) if (folder / RESULTS_NAME).is_file() else None
        datasets = results.datasets if results is not None else {}
        dataset = list(datasets)[-1] if datasets else ""
        models.append(
            ModelInfo(
                name,
                config.variant,
                _description(folder / "README.md"),
                config.input_size,
                datasets[dataset].scores if dataset else {},
                dataset,
                results.speed[0] if results is not None and results.speed else None,
            )
        )
    return models


def list_models() -> list[ModelInfo]:
    """The former name of `list_bundled`."""
    warnings.warn("list_models is now list_bundled", DeprecationWarning, stacklevel=2)
    return list_bundled()


def bundled_folder(name: str) -> Path | None:
    """The folder of a bundled model; None if none has this name."""
    return WEIGHTS_DIR / name if name in bundled_names() else None


def bundled_names() -> list[str]:
    return sorted(path.parent.name for path in WEIGHTS_DIR.glob(f"*/{WEIGHTS_NAME}"))


def _description(card: Path) -> str:
    """Return the first paragraph of a model card that people wrote, or else the first generated one."""
    if not card.is_file():
        return ""
    body = _FRONT_MATTER.sub("", card.read_text(encoding="utf-8"))
    for text in (_GENERATED.sub("", body), body):
        paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
        if found := next((part for part in paragraphs if part and part[0] not in "#<!|["), ""):
            return found
    return ""
