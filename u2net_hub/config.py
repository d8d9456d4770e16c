"""The content of config.json: everything that is needed to rebuild a network and its preprocessing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

FORMAT_VERSION = 1
LIBRARY_NAME = "u2net-hub"
INSTALL = "pip install ."
"""The line that installs the library, run in a checkout of it: the package index does not have it yet."""


class Stage(NamedTuple):
    """One residual U-block of the network: a row of table 1 of the paper (arXiv 2005.09007)."""

    name: str
    """The name of the stage, which is the prefix of its keys in a checkpoint."""
    L: int
    """The height of the block: the number of its encoder convolutions."""
    mid: int
    """The number of channels inside the block."""
    out: int
    """The number of output channels."""
    dilated: bool = False
    """RSU-4F uses dilated convolutions instead of pooling and upsampling."""


_U2NET = (
    #     name     L  mid  out
    Stage("stage1",  7,  32,  64),
    Stage("stage2",  6,  32, 128),
    Stage("stage3",  5,  64, 256),
    Stage("stage4",  4, 128, 512),
    Stage("stage5",  4, 256, 512, dilated=True),
    Stage("stage6",  4, 256, 512, dilated=True),
    Stage("stage5d", 4, 256, 512, dilated=True),
    Stage("stage4d", 4, 128, 256),
    Stage("stage3d", 5,  64, 128),
    Stage("stage2d", 6,  32,  64),
    Stage("stage1d", 7,  16,  64),
)  # fmt: skip

STAGES: Mapping[str, tuple[Stage, ...]] = {
    "u2net": _U2NET,
    "u2netp": tuple(stage._replace(mid=16, out=64) for stage in _U2NET),
}
"""The published variants: encoder stages from the top down, the bottom, decoder stages from the bottom up."""

CUSTOM = "custom"

# A config can come from strangers, so these limits bound its demands. The largest published width is 512.
_MAX_CHANNELS = 4096
_MAX_STAGES = 15
_MAX_HEIGHT = 9
_MAX_SIDE = 8192


class ForeignConfigError(ValueError):
    """A config.json belongs to another library."""


@dataclass(frozen=True, kw_only=True)
class U2NetConfig:
    """Architecture and preprocessing of one checkpoint. `save` writes config.json and `load` reads it.

    Raises:
        ValueError: A field is out of range, is unknown, or contradicts another one.
    """

    variant: str = "u2netp"
    """`"u2net"`, `"u2netp"`, or `"custom"` with a table in `stages`; "architecture" in config.json."""
    stages: tuple[Stage, ...] | None = None
    """A custom table with an odd number of rows: encoder, bottom, decoder. None takes the variant's table."""
    in_channels: int = 3
    out_channels: int = 1
    """The number of maps per output: 1 for saliency, or the number of classes including the background."""
    input_size: tuple[int, int] = (320, 320)
    """The network's input as (height, width) in pixels; the aspect is squashed as in the paper."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    scale: Literal["image_max", "255"] = "image_max"
    """The divisor before mean and std: the image's own maximum (the official code) or 255."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    minmax: Literal["auto", "always", "never"] = "auto"
    """Whether maps are stretched to [0, 1]: always (the official code), never, or if an object was found."""
    invert: bool = False
    """Whether the map is 1 - output, as in the authors' network for portrait drawings."""
    labels: tuple[str, ...] | None = None
    """The names of the classes, one per output channel."""
    other: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """Entries that other libraries read in the same config.json, e.g. "model_type"; they are only kept."""

    def __post_init__(self) -> None:
        for name in _TUPLES:
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        _check(self)

    @property
    def table(self) -> tuple[Stage, ...]:
        """The rows that the network is built from."""
        return self.stages if self.stages is not None else STAGES[self.variant]

    def replace(self, **changes: object) -> U2NetConfig:
        """Return a copy with some fields changed; the new values are checked."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Return the content of config.json, including the entry that timm reads."""
        fields = asdict(replace(self, other={}))
        stages = None if self.stages is None else [stage._asdict() for stage in self.stages]
        del fields["variant"], fields["stages"], fields["other"]
        return {
            "format_version": FORMAT_VERSION,
            "library_name": LIBRARY_NAME,
            "architecture": self.variant,
            "stages": stages,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()},
            "pretrained_cfg": self._pretrained_cfg(),
            **deepcopy(dict(self.other)),
        }

    def _pretrained_cfg(self) -> dict[str, object]:
        """Make the entry that `timm.create_model("hf-hub:…")` reads; this library never reads it back."""
        return {
            "input_size": [self.in_channels, *self.input_size],
            "num_classes": self.out_channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "first_conv": f"{self.table[0].name}.rebnconvin.conv_s1",
            "classifier": "outconv",
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> U2NetConfig:
        """Make a config from the content of config.json, as `to_dict` writes it.

        Entries of other libraries, such as "model_type", are kept in `other`.

        Raises:
            ForeignConfigError: The config belongs to another library.
            ValueError: The config has a newer format or an unknown field, or a value is out of range.
        """
        if content.get("library_name") != LIBRARY_NAME:
            found = str(content.get("library_name") or content.get("model_type") or "none")[:80]
            raise ForeignConfigError(
                f"config.json is of another library (library_name {found!r}), expected {LIBRARY_NAME!r}; "
                "leave it out, and the network is told by the shapes of its weights"
            )
        version = content.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f"config.json has format_version {version!r}, this u2net-hub reads 1 to {FORMAT_VERSION}; "
                "update u2net-hub to read a newer one"
            )
        fields = {k: v for k, v in content.items() if k not in _NOT_FIELDS and not _is_foreign(k)}
        if "architecture" not in fields:
            raise ValueError("config.json has no 'architecture', expected one of " + str([*STAGES, CUSTOM]))
        fields["variant"] = fields.pop("architecture")
        known = set(cls.__dataclass_fields__) - {"other"}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(
                f"config.json has unknown fields {unknown}, expected {sorted(known)}; "
                "update u2net-hub if they come from a newer version"
            )
        if fields.get("stages") is not None:
            fields["stages"] = _read_stages(fields["stages"])
        other = {k: v for k, v in content.items() if _is_foreign(k)}
        return cls(**fields, other=other)  # type: ignore[arg-type]

    def save(self, path: str | Path) -> None:
        """Write the config to the file `path`; on the Hub its name is config.json."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        """Return the text of config.json."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> U2NetConfig:
        """Read a config from a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ForeignConfigError: The file is a config of another library; the message names it.
            ValueError: The file is not JSON, or not a valid config; the message names it.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as e:
            # The file is not text or not JSON, a number has too many digits, or brackets nest too deeply.
            raise ValueError(f"{path} is not valid JSON: {e}") from e
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}, expected a JSON object")
        try:
            return cls.from_dict(content)
        except ValueError as e:
            raise type(e)(f"{path}: {e}") from e


_NOT_FIELDS = {"format_version", "library_name", "pretrained_cfg"}
_TUPLES = ("stages", "input_size", "mean", "std", "labels")

_FOREIGN = frozenset([
    "architectures", "author", "auto_map", "backbone", "backbone_config", "base_model", "bos_token_id",
    "chunk_size_feed_forward", "custom_pipelines", "datasets", "description", "dtype", "eos_token_id",
    "finetuning_task", "framework", "global_pool", "homepage", "id2label", "image_mean", "image_size",
    "image_std", "is_composition", "is_decoder", "is_encoder_decoder", "label2id", "language",
    "library_version", "license", "metrics", "model_args", "model_type", "name", "name_or_path",
    "num_channels", "num_classes", "num_features", "num_labels", "output_attentions",
    "output_hidden_states", "pad_token_id", "pipeline_tag", "problem_type", "quantization_config",
    "repo_id", "repo_url", "return_dict", "tags", "task", "task_specific_params", "tie_word_embeddings",
    "torch_dtype", "torchscript", "transformers_version", "url", "use_cache", "version", "vision_config",
])  # fmt: skip
"""Entries of config.json that other libraries are known to read."""


def _is_foreign(name: str) -> bool:
    """Tell whether an entry of config.json is another library's, e.g. "transformers.js_config"."""
    return name in _FOREIGN or name.startswith("_") or "." in name


_CHOICES = {
    "interpolation": ("bilinear", "bicubic", "lanczos", "nearest"),
    "scale": ("image_max", "255"),
    "activation": ("sigmoid", "softmax"),
    "minmax": ("auto", "always", "never"),
}


def _read_stages(rows: object) -> tuple[Stage, ...]:
    if not isinstance(rows, list):
        raise ValueError(f"stages is {rows!r}, expected null or a list of rows {Stage._fields}")
    stages = []
    needed = set(Stage._fields) - set(Stage._field_defaults)
    for row in rows:
        if not isinstance(row, dict) or not needed <= set(row) <= set(Stage._fields):
            raise ValueError(f"stages has a row {row!r}, expected fields {list(Stage._fields)}")
        stages.append(Stage(**row))
    return tuple(stages)


def _check(config: U2NetConfig) -> None:
    for name in _TUPLES:
        value = getattr(config, name)
        if not isinstance(value, tuple) and not (value is None and name in ("stages", "labels")):
            raise ValueError(f"{name} is {value!r}, expected a tuple or list")
    if config.stages is None:
        if config.variant not in list(STAGES):
            raise ValueError(
                f"unknown variant {config.variant!r}, expected one of {list(STAGES)}, or 'custom' with stages"
            )
    else:
        if config.variant != CUSTOM:
            raise ValueError(f"stages are given for variant {config.variant!r}, expected variant {CUSTOM!r}")
        _check_stages(config.stages)
    if ours := sorted(name for name in config.other if not _is_foreign(name)):
        raise ValueError(f"other has the entries {ours}, expected only those of other libraries")
    _check_int("in_channels", config.in_channels, 1, _MAX_CHANNELS)
    _check_int("out_channels", config.out_channels, 1, 256)  # labels are uint8
    if len(config.input_size) != 2:
        raise ValueError(f"input_size is {config.input_size!r}, expected (height, width)")
    for side in config.input_size:
        _check_int("input_size", side, 1, _MAX_SIDE)
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} is {getattr(config, name)!r}, expected one of {list(choices)}")
    for name in ("mean", "std"):
        values = getattr(config, name)
        if len(values) != config.in_channels:
            raise ValueError(
                f"{name} has {len(values)} values, expected one per channel: {config.in_channels}"
            )
        for value in values:
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
                raise ValueError(f"{name} has the value {value!r}, expected a number")
    if min(config.std) <= 0:
        raise ValueError(f"std is {config.std!r}, expected values above 0")
    if not isinstance(config.invert, bool):
        raise ValueError(f"invert is {config.invert!r}, expected true or false")
    if config.activation == "softmax" and config.out_channels == 1:
        raise ValueError("activation 'softmax' over one channel is always 1, expected 'sigmoid'")
    if config.invert and config.activation == "softmax":
        raise ValueError("invert is for one saliency map, not for classes; use activation 'sigmoid'")
    labels = config.labels
    if labels is not None and (
        len(labels) != config.out_channels or not all(isinstance(label, str) for label in labels)
    ):
        raise ValueError(
            f"labels is {labels!r}, expected {config.out_channels} names, one per output channel"
        )


def _check_stages(stages: tuple[Stage, ...]) -> None:
    if not 3 <= len(stages) <= _MAX_STAGES or len(stages) % 2 == 0:
        raise ValueError(f"stages has {len(stages)} rows, expected an odd number from 3 to {_MAX_STAGES}")
    for stage in stages:
        if not isinstance(stage, Stage):
            raise ValueError(f"stages has the row {stage!r}, expected a Stage{Stage._fields}")
        if not isinstance(stage.name, str) or not re.fullmatch(
            r"(?!side|outconv|module)[a-z]\w*", stage.name
        ):
            raise ValueError(f"stages has the name {stage.name!r}, expected one such as 'stage1'")
        _check_int(f"{stage.name}: L", stage.L, 2, _MAX_HEIGHT)
        _check_int(f"{stage.name}: mid", stage.mid, 1, _MAX_CHANNELS)
        _check_int(f"{stage.name}: out", stage.out, 1, _MAX_CHANNELS)
        if not isinstance(stage.dilated, bool):
            raise ValueError(f"{stage.name}: dilated is {stage.dilated!r}, expected true or false")
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages has a name twice: {names}")


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
