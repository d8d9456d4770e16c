"""U²-Net and U²-Net† on the Hugging Face Hub. Public names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .config import U2NetConfig as U2NetConfig
    from .model import U2Net as U2Net

_HOME = {
    "U2Net": "model",
    "U2NetConfig": "config",
}

__all__ = ["U2Net", "U2NetConfig", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
