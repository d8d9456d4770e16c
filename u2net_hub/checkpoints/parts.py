"""The files that a file of weights needs beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from .onnx_files import external_data

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
"""The suffixes of pickles."""
INDEX = ".index.json"
"""The end of the name of the file that lists the shards of a checkpoint."""


def files_beside(path: str | Path) -> list[str]:
    """List the files that a file of weights needs: its shards, or the external data of an .onnx file.

    Returns:
        Paths relative to the folder of the file, sorted.

    Raises:
        ValueError: The file is damaged, or names a file outside its folder.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        return sorted(part.name for part in shards(path))
    return external_data(path) if path.suffix.lower() == ".onnx" else []


def shards(path: Path) -> list[Path]:
    """List the shards that an index names, in the order of their names.

    Raises:
        ValueError: The index is damaged, names no shards, or names files outside its folder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not valid JSON; copy or download it again") from e
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    names = set(weight_map.values()) if isinstance(weight_map, dict) and _are_names(weight_map) else set()
    kinds = {Path(name).suffix.lower() for name in names}
    if not kinds or not (kinds == {".safetensors"} or kinds <= set(PICKLES)):
        raise ValueError(f"{path} names no shards, expected files of one kind beside it in its 'weight_map'")
    return [path.with_name(name) for name in sorted(names)]


def _are_names(weight_map: Mapping[str, object]) -> bool:
    """Tell whether all values are names of files, without folders."""
    return all(
        isinstance(name, str) and re.fullmatch(r"\w[\w.+-]*", name) is not None
        for name in weight_map.values()
    )
