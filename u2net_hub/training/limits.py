"""The ranges of the numbers in a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_ABOVE_ZERO = ("epochs", "lr", "batch_size")
_FROM_ZERO = ("weight_decay", "final_lr", "least_steps")


def check_numbers(recipe: Mapping[str, Any]) -> None:
    """Refuse numbers that no run can work with: negative ones, NaN and infinity.

    Args:
        recipe: The values of a recipe by the names of its fields.

    Raises:
        ValueError: A number is out of range.
    """
    if not all(0 < recipe[name] < math.inf for name in _ABOVE_ZERO):
        told = ", ".join(f"{name} {recipe[name]}" for name in _ABOVE_ZERO)
        raise ValueError(f"{told}: expected values above 0, and none infinite")
    for name in _FROM_ZERO:
        if not 0 <= recipe[name] < math.inf:
            raise ValueError(f"{name} is {recipe[name]}, expected 0 or more")
    clip_norm, most, sides = recipe["clip_norm"], recipe["most_steps"], recipe["side_weights"]
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm is {clip_norm}, expected a value above 0")
    if most is not None and most < max(1, recipe["least_steps"]):
        raise ValueError(
            f"least_steps {recipe['least_steps']}, most_steps {most}: expected at least 1 for most_steps, "
            "and not less than for least_steps"
        )
    if sides is not None and not (all(0 <= side < math.inf for side in sides) and sum(sides) > 0):
        raise ValueError(f"side_weights are {sides}, expected at least one above 0, none below")
