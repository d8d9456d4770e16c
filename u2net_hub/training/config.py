"""How a network is trained, as data: recipes, and the configuration of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ..atomic import write_file
from ..config import STAGES


class Phase(NamedTuple):
    """A part of the run at one resolution; sizes in pixels, pictures are squares as in the paper."""

    until: float
    """Where the phase ends, as a part of all steps; the last one ends at 1."""
    load: int
    """Side that pictures are resized to."""
    crop: int
    """Side of the random crop that the network sees; equal to `load` for no crop."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training step does."""

    epochs: float
    batch_size: int
    """Pictures per optimizer step, over all devices and accumulation steps."""
    phases: tuple[Phase, ...]
    optimizer: str
    """Name in timm's optimizer registry."""
    lr: float
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    """Part of all steps over which the learning rate rises from 0."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine, as a part of `lr`."""
    ema: float | None = None
    """Decay of the moving average of the weights; None for none."""
    bce: float = 1.0
    """Weight of binary cross-entropy."""
    iou: float = 0.0
    """Weight of the soft IoU loss."""
    side_weights: tuple[float, ...] | None = None
    """Loss weight of each output, fused first; None is 1 for all, as in the paper."""
    flip: bool = True
    """Mirror half of the pictures horizontally."""
    jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor in [1 - jitter, 1 + jitter]."""
    clip_norm: float | None = None
    """Largest norm of the gradient."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False


RECIPES: Mapping[str, Recipe] = {
    # Section 4.2 of arXiv 2005.09007: Adam with its defaults, batches of 12, 600,000 steps, equal losses.
    "paper": Recipe(
        epochs=682,
        batch_size=12,
        phases=(Phase(1.0, 320, 288),),
        optimizer="adam",
        lr=1e-3,
    ),
    # Small pictures first: a step at 96 px costs a ninth of one at 288 px and at the start teaches as much.
    "fast": Recipe(
        epochs=12,
        batch_size=16,
        phases=(Phase(0.6, 112, 96), Phase(0.9, 184, 160), Phase(1.0, 320, 288)),
        # at 96 px Muon's loss stood after 300 steps where AdamW's (4e-3) came after more than 500
        optimizer="muon",
        lr=5e-3,
        weight_decay=0.01,
        schedule="cosine",
        warmup=0.1,
        final_lr=0.01,
        ema=0.998,
        iou=1.0,
        precision="bf16",
        channels_last=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Fields that are None take the recipe's value.

    Raises:
        ValueError: a field is out of range or at odds with another one.
    """

    data: str
    """Folder or list file of the pairs, as `find_pairs` takes it."""
    out: str
    """Folder of the run."""
    images: str | None = None
    masks: str | None = None
    model: str = "u2netp"
    """Size of a new network; with `init`, ignored."""
    init: str | None = None
    """A source of weights to fine-tune; None trains from scratch."""
    classes: int | None = None
    """Number of classes, background included, in masks of class numbers; None for saliency."""
    freeze: tuple[Literal["encoder", "bn"], ...] = ()
    recipe: str = "fast"
    overrides: Mapping[str, object] | None = None
    """Fields of the recipe to change."""
    validation: float = 300
    """How many pairs to hold out, or, below 1, which part of them."""
    validation_data: str | None = None
    """A data set of its own to validate on; then nothing is held out."""
    input_size: tuple[int, int] | None = None
    """What the network sees in use, (height, width) in pixels; by default that of `init`, or, for a new
    network, what the last phase loads."""
    accumulate: int = 1
    """Steps whose gradients are added up before the optimizer moves; `batch_size` is over all of them."""
    seed: int = 0
    device: str = "auto"
    validate_every: int | None = None
    """Steps between validations; by default twenty times a run."""
    save_every: int | None = None
    """Steps between checkpoints; by default as `validate_every`."""
    keep: int = 3
    """How many of the best weights to keep."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where decoded pictures wait: in memory, or in a file under `out` where they do not fit."""
    evaluate: tuple[str, ...] = ()
    """Data sets to score the result on at the end, besides the held-out pairs."""
    push_to: str | None = None
    """Hub repository, "org/name"."""
    compile: bool = False

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(f"unknown recipe {self.recipe!r}, expected one of {list(RECIPES)}")
        if self.init is None and self.model not in STAGES:
            raise ValueError(
                f"unknown model {self.model!r}, expected one of {list(STAGES)}; "
                "weights to start from go into init (--init SOURCE)"
            )
        if self.classes is not None and not 2 <= self.classes <= 255:
            raise ValueError(
                f"classes is {self.classes}, expected 2 to 255, background included; 255 means no label"
            )
        wrong = set(self.freeze) - {"encoder", "bn"}
        if wrong:
            raise ValueError(f"cannot freeze {sorted(wrong)}, expected 'encoder' or 'bn'")
        if self.init is None and "encoder" in self.freeze:
            raise ValueError("a frozen encoder needs trained weights: give a source as init (--init SOURCE)")
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}, expected at least 1")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}, expected at least 1")
        recipe = self.settings
        _check_recipe(recipe)
        if recipe.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {recipe.batch_size} does not divide into {self.accumulate} parts, "
                "expected a multiple"
            )

    @property
    def settings(self) -> Recipe:
        """The recipe with this run's changes.

        Raises:
            ValueError: a change is not a field of the recipe.
        """
        changes = dict(self.overrides or {})
        known = [field.name for field in fields(Recipe)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(f"a recipe has no {unknown}, expected some of {known}")
        return replace(RECIPES[self.recipe], **changes)  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write the configuration as JSON, the recipe's own values spelled out."""
        content = {**asdict(self), "overrides": asdict(self.settings)}
        write_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such a file.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name in ("freeze", "evaluate", "input_size"):
                content[name] = None if content[name] is None else tuple(content[name])
            overrides = content["overrides"]
            overrides["phases"] = tuple(Phase(*phase) for phase in overrides["phases"])
            if overrides["side_weights"] is not None:
                overrides["side_weights"] = tuple(overrides["side_weights"])
            return cls(**content)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is not there: {path.parent} holds no run to resume") from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{path} is not the configuration of a run: {e}") from e


_CHOICES = {"schedule": ("constant", "cosine"), "precision": ("float32", "bf16", "fp16")}


def _check_recipe(recipe: Recipe) -> None:
    if recipe.epochs <= 0 or recipe.lr <= 0 or recipe.batch_size < 1:
        raise ValueError(
            f"epochs {recipe.epochs}, lr {recipe.lr}, batch_size {recipe.batch_size}: expected values above 0"
        )
    for name, choices in _CHOICES.items():
        if getattr(recipe, name) not in choices:
            raise ValueError(f"{name} is {getattr(recipe, name)!r}, expected one of {list(choices)}")
    ends = [phase.until for phase in recipe.phases]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise ValueError(f"phases end at {ends}, expected rising parts of the run, the last one 1")
    for phase in recipe.phases:
        if not 32 <= phase.crop <= phase.load:
            raise ValueError(f"phase crops {phase.crop} of {phase.load} px, expected 32 ≤ crop ≤ load")
    if recipe.bce < 0 or recipe.iou < 0 or recipe.bce + recipe.iou == 0:
        raise ValueError(
            f"loss weights bce {recipe.bce}, iou {recipe.iou}: expected at least one above 0, none below"
        )
    if not 0 <= recipe.warmup < 1:
        raise ValueError(f"warmup is {recipe.warmup}, expected a part of the run from 0 up to 1")
    if recipe.ema is not None and not 0 < recipe.ema < 1:
        raise ValueError(f"ema is {recipe.ema}, expected a decay between 0 and 1")
    if not 0 <= recipe.jitter < 1:
        raise ValueError(f"jitter is {recipe.jitter}, expected a part from 0 up to 1")
