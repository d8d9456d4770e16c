"""How other people lay out a model: which of the files in a folder or repo are its weights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from ..checkpoints import INDEX, PICKLES
from .addresses import WEIGHT_SUFFIXES

WEIGHTS_NAME = "model.safetensors"

_PICKLE_NAME = "pytorch_model.bin"
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.\w+")
_BESIDE_TRAINING = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state\w*|random_states\w*)\.\w+"
)
"""Pickles that trainers write beside the weights."""


def choose_weights(
    names: Iterable[str], *, folder: str = "", allow_pickle: bool, where: str, source: str, at: str = ""
) -> str:
    """Choose the file of weights in a folder or repo: model.safetensors, or else the only one of its kind.

    Args:
        names: The files by their paths, with / between folders.
        folder: The folder to look in, "" for the root.
        allow_pickle: Accept a pickle where there are no other weights.
        where: The folder or repo, for messages.
        source: What a person writes for it, for the commands in messages.
        at: What a person writes behind it for a revision, e.g. "@v1".

    Raises:
        FileNotFoundError: There is no file of weights.
        ValueError: There are several, or there are only pickles and they are not allowed.
    """
    names = sorted(names)
    if folder and not any(name.startswith(f"{folder}/") for name in names):
        what = "no file of weights by its suffix" if folder in names else "not in it"
        raise FileNotFoundError(f"{where}: {folder!r} is {what}; it holds {names[:8]}")
    here = {name: PurePosixPath(name).name for name in names if _folder_of(name) == folder}
    for kind in _KINDS:
        found = [name for name, base in here.items() if _is_of_kind(base, kind, here.values())]
        preferred = [name for name in found if here[name] in _PREFERRED]
        if len(found) > 1 and len(preferred) != 1:
            raise ValueError(
                f"{where} holds no {WEIGHTS_NAME} but {found}; name the file to use, "
                f"e.g. {convert_line(f'{source}/{found[0]}{at}')}"
            )
        if not found:
            continue
        chosen = (preferred or found)[0]
        if kind in (PICKLES, _PICKLE_INDEX) and not allow_pickle:
            raise ValueError(
                f"{where} holds weights only as a pickle ({chosen!r}), which is read on request only "
                "(its tensors are read, nothing in it is executed): allow_pickle=True, or convert it with: "
                f"{convert_line(f'{source}{at}', allow_pickle=True)}"
            )
        return chosen
    elsewhere = [name for name in names if name.lower().endswith(_READ) and not _SHARD.fullmatch(name)]
    if elsewhere:
        raise ValueError(
            f"{where} holds weights only {'elsewhere' if folder else 'in folders'}: {elsewhere[:8]}; "
            "name the file to use, "
            f"e.g. {convert_line(f'{source}/{elsewhere[0]}{at}')}"
        )
    raise FileNotFoundError(
        f"{where} holds no weights, expected {WEIGHTS_NAME}; it holds {names[:8] or 'nothing'}"
    )


def convert_line(source: str, allow_pickle: bool = False) -> str:
    """Write the command that converts a source into a folder that loads without further options."""
    name = PurePosixPath(source.partition("@")[0].rstrip("/"))
    out = name.stem if name.name.lower().endswith(WEIGHT_SUFFIXES) else name.name
    flags = ["--allow-pickle"] if allow_pickle else []
    return shlex.join(["u2net", "convert", "--model", source, *flags, "--out", f"{out}-converted"])


_SAFETENSORS_INDEX, _PICKLE_INDEX = (f".safetensors{INDEX}",), (f".bin{INDEX}",)
_KINDS = ((".safetensors",), _SAFETENSORS_INDEX, (".onnx",), PICKLES, _PICKLE_INDEX)
"""The kinds of files in the order in which they are taken."""
_PREFERRED = (WEIGHTS_NAME, _PICKLE_NAME)
_READ = tuple(suffix for suffix in WEIGHT_SUFFIXES if suffix not in (".xml", INDEX))


def _is_of_kind(base: str, kind: tuple[str, ...], beside: Iterable[str]) -> bool:
    """Tell whether a file holds a whole checkpoint of a kind, as far as its name says."""
    if not base.lower().endswith(kind) or _SHARD.fullmatch(base) or _BESIDE_TRAINING.fullmatch(base):
        return False
    # a .bin beside an .xml holds the weights of OpenVINO
    return not (base.endswith(".bin") and f"{base.removesuffix('.bin')}.xml" in beside)


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]
