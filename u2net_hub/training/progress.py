"""How far a run is: its state besides tensors, its length in steps, and the phase of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .config import Phase, Recipe


@dataclass
class Progress:
    """The state of a run that a checkpoint holds besides tensors."""

    step: int = 0
    """The number of optimizer steps done."""
    seconds: float = 0.0
    """The time spent on training and validation, over all parts of a resumed run."""
    smooth: float | None = None
    """The moving average of the loss."""
    first: float | None = None
    """The moving average after the first step."""
    lowest: float = math.inf
    """The lowest value of that average so far."""
    best: list[dict[str, float]] = field(default_factory=list)
    """The step and the scores of the best validations, best first."""

    def follow(self, loss: float) -> None:
        """Update the moving average with the loss of a step.

        A loss of 0 tells nothing: the batch had no pixel that counts, as happens where few have a label.
        """
        if not loss:
            return
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        self.first = self.smooth if self.first is None else self.first
        self.lowest = min(self.lowest, self.smooth)


def number_of_steps(recipe: Recipe, pairs: int, batch_size: int) -> int:
    """Count the optimizer steps of the recipe's epochs over some pairs, within the limits of the recipe."""
    steps = max(1, math.ceil(recipe.epochs * pairs / batch_size), recipe.least_steps)
    return steps if recipe.most_steps is None else min(steps, recipe.most_steps)


def phase_at(recipe: Recipe, step: int, total: int) -> Phase:
    """Find the phase of the run after `step` of `total` optimizer steps."""
    return next((phase for phase in recipe.phases if step < round(phase.until * total)), recipe.phases[-1])
