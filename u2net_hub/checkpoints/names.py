"""The official names of tensors in checkpoints that other programs wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FIRST = "stage1.rebnconvin.conv_s1.weight"
"""The first tensor of the published networks."""


def official_names(path: Path, keys: Iterable[str]) -> dict[str, str]:
    """Map each key to its official key.

    The prefixes that DataParallel and torch.compile add are removed, and one that all keys share, such as
    "model." in a checkpoint of Lightning.

    Args:
        path: The file, for messages.
        keys: The names of the tensors in the file.

    Raises:
        ValueError: Two keys have the same official key.
    """
    names = {key: _unwrapped(key) for key in keys}
    while (prefix := _common_prefix(names.values())) is not None:
        names = {key: _unwrapped(name.removeprefix(prefix)) for key, name in names.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path} holds tensors twice, with and without prefixes such as 'module.'")
    return names


def _unwrapped(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _common_prefix(names: Iterable[str]) -> str | None:
    """Find the prefix of all names, or that of the only network among them."""
    names = list(names)
    heads = {name.partition(".")[0] for name in names}
    if len(heads) == 1 and all("." in name for name in names):
        return f"{heads.pop()}."
    networks = {name.removesuffix(_FIRST) for name in names if name.endswith(f".{_FIRST}")}
    return networks.pop() if len(networks) == 1 and _FIRST not in names else None
