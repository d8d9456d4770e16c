"""The settings of training: recipes, and the configuration of one run."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ..atomic import write_file
from ..config import STAGES
from .augmentation import Augmentation, check_augmentation
from .limits import check_numbers
from .loss_weights import LossWeights, check_loss_weights
from .trackers import check_names


class Phase(NamedTuple):
    """A part of the run at one resolution. Pictures are squashed to squares, as in the paper."""

    until: float
    """The end of the phase, as a fraction of all steps. The last phase ends at 1."""
    load: int
    """The side that pictures are resized to, in pixels."""
    crop: int
    """The side of the network's random crop, in pixels. If it equals `load`, nothing is cropped."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation, LossWeights):
    """Everything that decides what a training step does.

    The docstring below each field is its help text; see `field_help`.
    """

    epochs: float
    """Passes over the training pairs."""
    batch_size: int
    """Pairs per optimizer step, over all devices and accumulation steps."""
    phases: tuple[Phase, ...]
    """Resolutions of the run, one after the other. If empty, one resolution near the network's input size."""
    optimizer: str
    """Name of an optimizer in timm's registry."""
    lr: float
    """Highest learning rate."""
    weight_decay: float = 0.0
    """Weight decay of the optimizer."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or falling like a cosine."""
    warmup: float = 0.0
    """Fraction of all steps in which the learning rate rises; used with the cosine schedule."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine, as a fraction of the highest."""
    ema: float | None = None
    """Decay of the moving average of the weights. Without it, no average is kept."""
    side_weights: tuple[float, ...] | None = None
    """Loss weight of each output, the fused output first. By default all are 1, as in the paper."""
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    """Weights of the classes in the loss: one number for each, or balanced for the inverse of their share of
    the training masks. By default all are 1."""
    scales: tuple[float, ...] | None = None
    """Sizes of batches as multiples of the crop, one of them drawn for each batch, as in F³Net: 0.75, 1 and
    1.25, for instance. By default batches are not resized."""
    clip_norm: float | None = None
    """Largest norm of the gradient. By default gradients are not clipped."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Number format of the network's computations: float32, bf16 or fp16."""
    channels_last: bool = False
    """Store activations with channels last, which is faster on many devices."""
    freeze_bn: bool = False
    """Keep the statistics and weights of batch norm as they are."""
    interpolate: float | None = None
    """Validate and keep weights that lie this fraction of the way from the start to the current weights."""
    least_steps: int = 0
    """Least number of optimizer steps, unless the epochs are given."""
    most_steps: int | None = None
    """Largest number of optimizer steps, unless the epochs are given. By default there is no limit."""


RECIPES: Mapping[str, Recipe] = {
    # Section 4.2 of arXiv 2005.09007: Adam with its defaults, batches of 12, 600,000 steps, equal losses.
    "paper": Recipe(
        epochs=682,
        batch_size=12,
        phases=(Phase(1.0, 320, 288),),
        optimizer="adam",
        lr=1e-3,
    ),
    # The first steps use small pictures: a step at 96 px costs a ninth of one at 288 px and at the start
    # improves the network as much.
    "fast": Recipe(
        epochs=12,
        batch_size=16,
        phases=(Phase(0.6, 112, 96), Phase(0.9, 184, 160), Phase(1.0, 320, 288)),
        # at 96 px, Muon reached after 300 steps the loss that AdamW (lr 4e-3) needed over 500 for
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
    # For trained weights: few steps, batch norm frozen. Binary cross-entropy makes the maps of a network that
    # is unsure of new photos softer, so that the mean error grows; IoU and L1 keep them crisp. Weights half
    # way between start and end were better than the end (model_cards/finetune).
    "finetune": Recipe(
        epochs=2,
        batch_size=8,
        phases=(),
        optimizer="adamw",
        lr=1e-4,
        schedule="cosine",
        warmup=0.1,
        final_lr=0.05,
        bce=0.0,
        iou=1.0,
        l1=1.0,
        jitter=0.1,
        precision="bf16",
        channels_last=True,
        freeze_bn=True,
        interpolate=0.5,
        least_steps=16,
        most_steps=120,
    ),
}


def phases_near(side: int) -> tuple[Phase, ...]:
    """Choose the resolution for fine-tuning a network whose input has this side in pixels.

    Small inputs are trained at their own size, cut from slightly larger pictures. Large inputs are trained at
    four fifths of their size, which costs 36 % less and gives results as good.
    """
    load, crop = (1.1 * side, side) if side < 256 else (0.9 * side, 0.8 * side)
    return (Phase(1.0, max(round(load / 8) * 8, 32), max(round(crop / 8) * 8, 32)),)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The configuration of one training run.

    The docstring below each field is its help text; see `field_help`.

    Raises:
        ValueError: A field is out of range, or contradicts another one.
    """

    data: str | tuple[str, ...]
    """Folder or list file of photos and masks, or several. A share may follow each: DUTS-TR:0.2 trains on a
    fifth of the pairs, mine:3 repeats them three times. Held-out pairs come from the first."""
    out: str
    """Folder of the run."""
    images: str | None = None
    """Folder of the photos, if it cannot be guessed from its name."""
    masks: str | None = None
    """Folder of the masks, if it cannot be guessed from its name."""
    model: str = "u2netp"
    """Size of a new network: u2netp or u2net. Ignored when training starts from other weights."""
    init: str | None = None
    """Weights to fine-tune: a bundled name, a path, or a name on the Hub. By default the network is new."""
    classes: int | None = None
    """Number of classes, background included, if masks hold class numbers. By default masks are saliency."""
    labels: tuple[str, ...] | None = None
    """Names of the classes, background first. They tell the number of classes too."""
    freeze: tuple[Literal["encoder", "bn"], ...] = ()
    """Parts of the network that do not learn: encoder, or bn for batch norm."""
    recipe: str | None = None
    """Set of training settings to start from: finetune, fast or paper. By default finetune for the weights of
    `init`, and fast for a new network or new classes."""
    overrides: Mapping[str, object] | None = None
    """Fields of the recipe to change, by name."""
    validation: float | None = None
    """Pairs to hold out for validation: a number, or a fraction below 1. By default 10 %, at most 300; with
    `init` at least 12 of them, or a quarter of fewer than 48."""
    validation_data: str | None = None
    """Separate data set to validate on. Then no training pair is held out."""
    input_size: tuple[int, int] | None = None
    """Size (height, width) in pixels at which the trained network is used. By default that of the weights it
    starts from, or the size that a new network is trained at."""
    accumulate: int = 1
    """Number of parts that each batch is split into to save memory. Gradients are summed over them."""
    seed: int = 0
    """Seed of the split, the weights, the order of pairs and the augmentation."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    validate_every: int | None = None
    """Steps between validations. By default there are twenty validations in a run, or one at its end if the
    recipe interpolates. A run with `init` also validates its start."""
    save_every: int | None = None
    """Steps between checkpoints. By default those between validations, at most a twentieth of the run. Each
    validation is followed by a checkpoint too."""
    keep: int = 3
    """Number of best weights to keep."""
    cache: Literal["auto", "memory", "disk", "stream"] = "auto"
    """Where decoded pictures are kept: memory, disk (temporary files in `out`), or stream for nowhere, which
    decodes each one when it is needed. auto takes the first of these that has the room."""
    track: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ("tensorboard",)
    """Where charts of the run go: tensorboard (the default), trackio or wandb. Can be repeated."""
    evaluate: tuple[str, ...] = ()
    """Data sets to score the result on at the end, besides the held-out pairs."""
    push_to: str | None = None
    """Hub repository (org/name): the best weights so far go to its branch training, the result to main."""
    compile: bool = False
    """Compile the network, which pays off in long runs on a GPU."""

    def __post_init__(self) -> None:
        if not isinstance(self.data, str):  # one set is written as before, several as a tuple
            several = tuple(map(str, self.data))
            if not several:
                raise ValueError(
                    "data is empty, expected at least one folder or list file of photos and masks"
                )
            object.__setattr__(self, "data", several[0] if len(several) == 1 else several)
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            object.__setattr__(self, "classes", self.classes or len(self.labels))
        if self.recipe not in (None, *RECIPES):
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
        if self.labels is not None and (len(set(self.labels)) < len(self.labels) or "" in self.labels):
            raise ValueError(f"labels are {list(self.labels)}, expected names that differ, and none empty")
        if self.labels is not None and len(self.labels) != self.classes:
            raise ValueError(
                f"got {len(self.labels)} labels for {self.classes} classes, expected one for each"
            )
        wrong = set(self.freeze) - {"encoder", "bn"}
        if wrong:
            raise ValueError(f"cannot freeze {sorted(wrong)}, expected 'encoder' or 'bn'")
        if self.init is None and "encoder" in self.freeze:
            raise ValueError("a frozen encoder needs trained weights: give a source as init (--init SOURCE)")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}, expected 0 to 2**64 - 1")
        if self.cache not in ("auto", "memory", "disk", "stream"):
            raise ValueError(f"cache is {self.cache!r}, expected one of ['auto', 'memory', 'disk', 'stream']")
        check_names(self.track)
        for name in ("keep", "accumulate", "validate_every", "save_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        recipe = self.settings
        _check_recipe(recipe)
        check_loss_weights(recipe, self.classes)
        if self.init is None and not recipe.phases:
            raise ValueError(f"recipe {self.recipe_name!r} needs trained weights; give them with --init")
        _check_class_weights(recipe, self.classes)
        if recipe.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {recipe.batch_size} does not divide into {self.accumulate} parts, "
                "expected a multiple"
            )

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The training data as a tuple, whether there is one set or several."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def recipe_name(self) -> str:
        """The name of the recipe: the one given, else finetune or fast, as the start of the run says."""
        if self.recipe is not None:
            return self.recipe
        return "finetune" if self.init is not None and self.classes is None else "fast"

    @property
    def settings(self) -> Recipe:
        """Return the recipe with the changes of this run.

        Raises:
            ValueError: A change names no field of the recipe.
        """
        changes = dict(self.overrides or {})
        for asked, other in (("ema", "interpolate"), ("interpolate", "ema")):
            if changes.get(asked) is not None:
                changes.setdefault(other, None)  # the two exclude each other; the one asked for is taken
        if "epochs" in changes:  # epochs that are asked for are not limited
            changes = {"least_steps": 0, "most_steps": None, **changes}
        known = [field.name for field in fields(Recipe)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(f"a recipe has no {unknown}, expected some of {known}")
        return replace(RECIPES[self.recipe_name], **changes)  # type: ignore[arg-type]

    def save(self, path: Path, *, command: str | None = None) -> None:
        """Write the configuration as JSON, with all values of the recipe.

        Args:
            path: The file to write.
            command: The command that the run began with.
        """
        content = {**asdict(self), "overrides": asdict(self.settings), "command": command}
        write_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read what `save` wrote. The folder that the file is in now becomes `out`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not the configuration of a run.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("command", None)
            content["out"] = str(path.parent)
            for name in ("freeze", "evaluate", "input_size"):
                content[name] = None if content[name] is None else tuple(content[name])
            content["track"] = tuple(content.get("track", cls.track))
            overrides = content["overrides"]
            if isinstance(overrides.get("class_weights"), list):
                overrides["class_weights"] = tuple(overrides["class_weights"])
            overrides["phases"] = tuple(Phase(*phase) for phase in overrides["phases"])
            for name in ("side_weights", "scales"):
                if overrides.get(name) is not None:
                    overrides[name] = tuple(overrides[name])
            return cls(**content)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is not there: {path.parent} holds no run to resume") from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{path} is not the configuration of a run: {e}") from e


def field_help(cls: type) -> dict[str, str]:
    """Read the help text of each field of `TrainConfig` or `Recipe`: the docstring below it in the source.

    Returns:
        Names of fields and their help texts; nothing where the source is not installed.
    """
    texts = {}
    for each in reversed(cls.__mro__[:-1]):
        try:
            (definition,) = ast.parse(inspect.getsource(each)).body
        except OSError:
            return {}
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


_CHOICES = {"schedule": ("constant", "cosine"), "precision": ("float32", "bf16", "fp16")}


def _check_recipe(recipe: Recipe) -> None:
    check_numbers(vars(recipe))
    for name, choices in _CHOICES.items():
        if getattr(recipe, name) not in choices:
            raise ValueError(f"{name} is {getattr(recipe, name)!r}, expected one of {list(choices)}")
    ends = [phase.until for phase in recipe.phases]
    if ends and (ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1):
        raise ValueError(f"phases end at {ends}, expected rising fractions that end at 1")
    for phase in recipe.phases:
        if not 32 <= phase.crop <= phase.load:
            raise ValueError(f"phase crops {phase.crop} of {phase.load} px, expected 32 ≤ crop ≤ load")
    if recipe.scales is not None and not (recipe.scales and all(0.25 <= s <= 4 for s in recipe.scales)):
        raise ValueError(f"scales are {recipe.scales}, expected multiples of the crop from 0.25 to 4")
    if recipe.interpolate is not None and not 0 < recipe.interpolate <= 1:
        raise ValueError(f"interpolate is {recipe.interpolate}, expected a fraction above 0 and up to 1")
    if recipe.interpolate is not None and recipe.ema is not None:
        raise ValueError("interpolate and ema exclude each other: each says which weights are kept")
    if not 0 <= recipe.warmup < 1:
        raise ValueError(f"warmup is {recipe.warmup}, expected a part of the run from 0 up to 1")
    if recipe.ema is not None and not 0 < recipe.ema < 1:
        raise ValueError(f"ema is {recipe.ema}, expected a decay between 0 and 1")
    check_augmentation(recipe)


def _check_class_weights(recipe: Recipe, classes: int | None) -> None:
    weights = recipe.class_weights
    if weights is None:
        return
    if classes is None:
        raise ValueError("class_weights are for masks of class numbers; say how many with --classes N")
    if weights == "balanced":
        return
    if isinstance(weights, str) or len(weights) != classes or min(weights) < 0 or not max(weights) > 0:
        raise ValueError(
            f"class_weights is {weights!r}, expected 'balanced' or {classes} numbers, at least one above 0, "
            "none below"
        )
