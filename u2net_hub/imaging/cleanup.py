"""The settings of a mask's clean-up; `cleaning` does the work."""

from __future__ import annotations

import operator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cleanup:
    """The clean-up of a matte or mask. The steps are made in the order of the fields."""

    largest_part: bool = False
    """Whether to keep only the part with the largest area. Parts are connected regions, corners included, of
    pixels that are at least half as opaque as the most opaque one."""
    fill_holes: bool = False
    """Whether to close the holes: regions less than half opaque that do not reach the picture's border. A
    hole becomes as opaque as what encloses it."""
    smooth: bool = False
    """Whether to drop specks, round the outline off over about 2 pixels, and make it hard."""
    grow: int = 0
    """The number of pixels by which the outline moves outwards; a negative number shrinks the object. The
    picture's border is no outline: an object that is cut by it stays cut by it."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "grow", operator.index(self.grow))
        except TypeError:
            raise ValueError(f"grow is {self.grow!r}, expected a whole number of pixels") from None

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return self != Cleanup()
