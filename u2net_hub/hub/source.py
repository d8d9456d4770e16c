"""The local files of a source of weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..atomic import content_hash
from ..config import ForeignConfigError, U2NetConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The local files of a source of weights."""

    name: str
    """The name that people use: "u2netp", "org/name", or the path."""
    kind: Literal["bundled", "folder", "file", "hub"]
    weights_path: Path
    """.safetensors, .pth, .pt, .bin, .ckpt, .onnx, .xml, or the .index.json of shards."""
    config_path: Path | None = None
    """config.json, if there is one."""
    revision: str | None = None
    """The commit of a source on the Hub; None for local files."""
    allow_pickle: bool = field(default=False, compare=False)
    given: U2NetConfig | None = field(default=None, compare=False)
    """A config that replaces config.json."""

    @property
    def format(self) -> str:
        """The suffix of the weights without its dot, e.g. "safetensors"; "json" for shards."""
        return self.weights_path.suffix.lower().removeprefix(".")

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file of weights, in hexadecimal; of several files that of all their hashes."""
        from ..checkpoints import files_beside

        hashes = [content_hash(self.weights_path)]
        hashes += [content_hash(self.weights_path.parent / name) for name in files_beside(self.weights_path)]
        return hashes[0] if len(hashes) == 1 else content_hash("\n".join(hashes).encode())

    def config(self) -> U2NetConfig | None:
        """Return the config that was given, or read config.json; None if there is none of this library.

        Raises:
            ValueError: The file is not a valid config; the message names it.
        """
        if self.given is not None or self.config_path is None:
            return self.given
        try:
            return U2NetConfig.load(self.config_path)
        except ForeignConfigError as e:
            logger.info("%s", e)
            return None

    def foreign_config(self) -> str:
        """Say that config.json is another library's, for the message of an error; "" if it is not."""
        try:
            if self.given is None and self.config_path is not None:
                U2NetConfig.load(self.config_path)
        except ForeignConfigError as e:
            return f" ({e})"
        except ValueError:
            pass
        return ""
