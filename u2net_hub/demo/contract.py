"""What a call of the page or its API may hold: known from the page itself, checked before Gradio sees it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

Check = Callable[[object], bool]


class Contract:
    """The inputs of each function of the page.

    Gradio prints a traceback for a call of another form, and looks for files before the page does.

    Args:
        blocks: The page.
        folder: The folder that holds the uploads.
    """

    def __init__(self, blocks: gr.Blocks, folder: Path) -> None:
        self._blocks = blocks
        self._folder = folder.resolve()
        self._inputs: dict[int, list[tuple[str, str, Check]]] = {}
        self._ids: dict[str, int] = {}
        for number, function in blocks.fns.items():
            if function.fn is None:  # it runs in the browser
                continue
            self._inputs[number] = [self._input(block) for block in function.inputs]
            if function.api_visibility == "public" and isinstance(function.api_name, str):
                self._ids[function.api_name] = number

    def check_number(self, number: object, data: Sequence[object]) -> None:
        """Check the call of a function by its number, as the page makes it.

        Raises:
            ValueError: There is no such function, or it takes other inputs.
        """
        if not isinstance(number, int) or number not in self._inputs:
            raise ValueError(f"there is no function number {str(number)[:20]}")
        inputs = self._inputs[number]
        if len(data) != len(inputs):
            raise ValueError(f"got {len(data)} inputs, expected {len(inputs)}")
        for value, (label, expected, holds) in zip(data, inputs, strict=True):
            if not holds(value):
                raise ValueError(f"{label} is {str(value)[:40]!r}, expected {expected}")

    def check_name(self, name: str, data: Sequence[object] | Mapping[str, object]) -> None:
        """Check the call of a public function by its name, with its inputs in order or by their names.

        Raises:
            ValueError: There is no such function, or it takes other inputs.
        """
        if name not in self._ids:
            raise ValueError(f"there is no call {name[:40]!r}, expected one of {sorted(self._ids)}")
        if isinstance(data, Mapping):
            self._check_named(name, data)
        else:
            self.check_number(self._ids[name], data)

    def _check_named(self, name: str, data: Mapping[str, object]) -> None:
        described = self._parameters[f"/{name}"]["parameters"]
        checks = self._inputs[self._ids[name]]
        parameters = {
            each["parameter_name"]: (each, check) for each, check in zip(described, checks, strict=True)
        }
        for parameter, value in data.items():
            if parameter not in parameters:
                raise ValueError(f"{parameter[:40]!r} is no input, expected {list(parameters)}")
            label, expected, holds = parameters[parameter][1]
            if not holds(value):
                raise ValueError(f"{label} is {str(value)[:40]!r}, expected {expected}")
        for parameter, (each, _) in parameters.items():
            if parameter not in data and not each["parameter_has_default"]:
                raise ValueError(f"{parameter} is missing")

    @cached_property
    def _parameters(self) -> dict[str, Any]:
        info = self._blocks.get_api_info()
        return dict(info["named_endpoints"]) if info else {}

    def _input(self, block: object) -> tuple[str, str, Check]:
        kind = type(block).__name__.lower()
        label = str(getattr(block, "label", None) or kind)
        checks: dict[str, tuple[str, Check]] = {
            "image": ("an uploaded file or null", self._is_file),
            "file": (
                "a list of uploaded files or null",
                lambda value: value is None or (isinstance(value, list) and all(map(self._is_file, value))),
            ),
            "slider": ("a number", _is_number),
            "checkbox": ("true or false", lambda value: isinstance(value, bool)),
            "dataset": ("the number of an example", lambda value: isinstance(value, int)),
        }
        expected, holds = checks.get(kind, ("a text or null", lambda v: v is None or isinstance(v, str)))
        return label, expected, holds

    def _is_file(self, value: object) -> bool:
        if value is None:
            return True
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            return False
        if value.get("meta") != {"_type": "gradio.FileData"}:
            return False
        try:
            path = Path(value["path"]).resolve()
            regular = stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:  # deleted after its hour; the handler says so
            regular = True
        except (OSError, ValueError):  # too long a name, one with a null, or a file taken for a folder
            return False
        # Gradio deletes each path that it was given, and its deletion ends for good at one that is no file
        return regular and path.is_relative_to(self._folder)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
