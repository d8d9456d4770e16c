"""The settings of the server, from options or from environment variables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..imaging import Edges

if TYPE_CHECKING:
    from ..engines import EngineName, Precision

PREFIX = "U2NET_SERVE_"
KEYS_VARIABLE = "U2NET_API_KEYS"
_SHORTEST_KEY = 8


@dataclass(frozen=True)
class Settings:
    """The settings of the server; each has an environment variable, e.g. U2NET_SERVE_MAX_BYTES."""

    models: tuple[str, ...] = ("u2netp",)
    """Sources of weights. A request names one of them, and gets the first one by default."""
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "exact"
    edges: Edges = "sharp"
    """The edges of cutouts, if a request does not ask for others."""
    queue: int = 64
    """The largest number of requests that are worked on or wait; one more is refused with status 503."""
    threads: int = 0
    """The number of threads that decode and encode photos; 0 for one for each core, at most 4."""
    batch_size: int = 8
    """The largest number of photos that the network processes at once."""
    window: float = 0.003
    """The seconds for which a photo waits for others, so that the network processes them together."""
    allow_urls: tuple[str, ...] = ()
    """The hosts, as HOST or HOST:PORT, from which photos are fetched if a request gives an address."""
    api_keys: str = ""
    """A file with one key on each line. Keys in the environment variable U2NET_API_KEYS are accepted too."""
    max_bytes: int = 50_000_000
    """The largest size of a request in bytes."""
    max_pixels: int = 50_000_000
    """The largest number of pixels of a photo."""
    max_side: int = 16_000
    """The longest side of a photo in pixels."""
    timeout: float = 60.0
    """The seconds after which a request is ended: 408 if it has not arrived by then, else 504."""
    allow_pickle: bool = False
    """Whether a pickle is accepted as weights."""

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("got no models; name at least one source of weights")
        if self.edges not in get_args(Edges):
            raise ValueError(f"edges is {self.edges!r}, expected one of {list(get_args(Edges))}")
        for name in ("queue", "batch_size", "max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a whole number from 1")
        if self.threads < 0 or not self.window >= 0 or not self.timeout > 0:
            raise ValueError(
                f"threads is {self.threads}, window is {self.window} and timeout is {self.timeout}, "
                "expected threads and window from 0, and timeout above 0"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from the environment variables U2NET_SERVE_….

        The entries of a list are separated by spaces, and quoted as in a shell.

        Raises:
            ValueError: A variable is unknown or its value is invalid.
        """
        known = {PREFIX + each.name.upper(): each for each in fields(cls)}
        given: dict[str, object] = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            if name not in known:
                raise ValueError(f"unknown environment variable {name}, expected one of {sorted(known)}")
            given[known[name].name] = _read(name, text, known[name].default)
        return cls(**given)  # type: ignore[arg-type]  # __post_init__ and the engine check the values

    def to_environment(self) -> dict[str, str]:
        """Return the environment variables from which `from_environment` reads these settings."""
        named = {PREFIX + each.name.upper(): getattr(self, each.name) for each in fields(self)}
        return {
            name: shlex.join(value) if isinstance(value, tuple) else str(value)
            for name, value in named.items()
        }

    def read_keys(self, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """Read the API keys; none means that everybody may send requests.

        Raises:
            OSError: The file of keys cannot be read.
            ValueError: The file has no key, or a key is too short.
        """
        keys = environment.get(KEYS_VARIABLE, "").replace(",", " ").split()
        if KEYS_VARIABLE in environment and not keys:
            raise ValueError(f"{KEYS_VARIABLE} is set and holds no key; give at least one, or unset it")
        if self.api_keys:
            lines = Path(self.api_keys).read_text(encoding="utf-8-sig").splitlines()
            found = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
            if not found:
                raise ValueError(f"{self.api_keys} holds no key, expected one on each line")
            keys += found
        if any(len(key) < _SHORTEST_KEY or not key.isascii() for key in keys):
            raise ValueError(
                f"an API key is too short or not ASCII, expected at least {_SHORTEST_KEY} letters and digits"
            )
        return tuple(keys)


def _read(name: str, text: str, default: object) -> object:
    """Turn the text of a variable into a value of the type of the default."""
    if isinstance(default, tuple):
        try:
            return tuple(shlex.split(text))
        except ValueError:
            raise ValueError(f"{name} is {text!r}, expected words, quoted as in a shell") from None
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"{name} is {text!r}, expected true or false")
        return text.lower() in ("true", "1")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}, expected a number") from None
    return text
