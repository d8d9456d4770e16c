"""The command that started a run, as its records and cards show it, without folders of this machine."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import MISSING, fields, replace
from pathlib import Path

from ..datasets import parse_share
from ..hub import is_hub_id, list_bundled
from .config import RECIPES, TrainConfig

_ROOTED = re.compile(r"[/\\~]|\.{1,2}([/\\]|$)|[A-Za-z]:[/\\]")
_PATHS = ("data", "out", "images", "masks", "init", "validation_data", "evaluate")
"""The fields of TrainConfig that hold paths."""


def resume_command(out: str, processes: int = 1, *, cpu: bool = False) -> str:
    """Make the command that continues a run."""
    launcher = ["u2net"]
    if processes > 1:  # accelerate starts several processes on GPUs only
        start = ["torchrun", "--nproc-per-node", str(processes)] if cpu else ["accelerate", "launch"]
        launcher = [*start, "-m", "u2net_hub"]
    return shlex.join([*launcher, "train", "--out", out, "--resume"])


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the configuration with absolute paths, so that the run can be resumed from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else path

    def inside_data(folder: str | None) -> str | None:
        # a folder that `find_pairs` finds inside the data set stays relative to it
        if folder is None or not Path(folder).is_dir():
            return folder
        if any((Path(parse_share(each).path) / folder).is_dir() for each in config.data_sets):
            return folder
        return absolute(folder)

    init = config.init
    if init and init not in {model.name for model in list_bundled()} and Path(init).expanduser().exists():
        init = absolute(init)
    return replace(
        config,
        data=tuple(map(absolute, config.data_sets)),
        out=absolute(config.out),
        images=inside_data(config.images),
        masks=inside_data(config.masks),
        init=init,
        validation_data=config.validation_data and absolute(config.validation_data),
        evaluate=tuple(map(absolute, config.evaluate)),
    )


def without_folders(text: str) -> str:
    """Reduce a path to its last name; anything else, such as a name on the Hub, stays as it is."""
    parts = re.split(r"[/\\]", text.rstrip("/\\"))
    if "://" in text or not (
        _ROOTED.match(text) or (len(parts) > 1 and (not is_hub_id(text) or Path(text).exists()))
    ):
        return text
    return Path(text).absolute().resolve().name if parts[-1] in ("", ".", "..", "~") else parts[-1]


def command_without_folders(command: str) -> str:
    """Reduce each path in a command line to its last name."""
    words = []
    for word in shlex.split(command):
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        words.append(option + equals + without_folders(value))
    return shlex.join(words)


def python_call(config: TrainConfig) -> str:
    """Write the call of `train` that starts such a run, with the fields that differ from their defaults."""
    arguments = []
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "overrides":
            recipe = RECIPES[config.recipe_name]
            value = {k: v for k, v in (value or {}).items() if v != getattr(recipe, k)} or None
        elif field.name in _PATHS and value:
            value = _names(value)
        if field.default is MISSING or value != field.default:
            arguments.append(f"{field.name}={value!r}")
    return f"train(TrainConfig({', '.join(arguments)}))"


def public_settings(config: TrainConfig, command: str) -> dict[str, bool | int | float | str | None]:
    """The settings of a run as trackers show them: the recipe in full, each path shortened to its last name.

    Args:
        config: The settings of the run.
        command: The command that started it, without folders.
    """
    settings: dict[str, bool | int | float | str | None] = {"command": command}
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    values |= vars(config.settings) | {"recipe": config.recipe_name}
    for name, value in values.items():
        if name == "overrides":
            continue
        shown = _names(value) if name in _PATHS and value else value
        settings[name] = shown if shown is None or isinstance(shown, (bool, int, float, str)) else str(shown)
    return settings


def _names(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return tuple(map(without_folders, paths)) if isinstance(paths, tuple) else without_folders(paths)


def first_command(config: TrainConfig, command: str | None, *, record: Path | None = None) -> str:
    """Return the command that started the run, with each path shortened to its last name.

    Args:
        config: The settings of the run.
        command: The command line that was given now. None means that `train` was called from Python.
        record: The train.json of a run that is resumed; it holds the command that the run began with.
    """
    if record is not None and record.is_file():
        written = json.loads(record.read_text(encoding="utf-8")).get("command")
        if isinstance(written, str):
            return written
        command = None
    return python_call(config) if command is None else command_without_folders(command)
