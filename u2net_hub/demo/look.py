"""What a visitor chooses for a cutout: background, edges, crop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar, get_args

from .. import imaging as im
from ..imaging import Edges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

    from ..imaging import Photo
    from ..inference import SaliencyResult

T = TypeVar("T")

BACKGROUNDS = ("transparent", "colour", "picture", "blur")
EDGES: tuple[Edges, ...] = get_args(Edges)


class Look(NamedTuple):
    """How a cutout looks."""

    behind: str | Photo | None = None
    """A colour as #rrggbb, "blur", or a picture; None for a transparent background."""
    threshold: float | None = None
    """Where a hard edge is, from 0 to 1; None for a soft edge."""
    crop: bool = False
    edges: Edges = "sharp"

    def finish(self, result: SaliencyResult) -> Image.Image:
        """Make the cutout: mode RGBA, or RGB on a background."""
        if self.behind is None:
            picture = result.cutout(self.threshold, edges=self.edges)
        else:
            picture = result.over(self.behind, self.threshold, edges=self.edges)
        return self.cropped(picture, result)

    def cropped(self, picture: Image.Image, result: SaliencyResult) -> Image.Image:
        """Crop a picture of the photo's size to the object, if that was chosen and there is one."""
        box = result.bbox(edges=self.edges) if self.crop else None
        return picture if box is None else picture.crop(box)


def one_of(value: object, allowed: Iterable[T], what: str) -> T:
    """Return the value if it is one of those allowed.

    Raises:
        ValueError: It is another one.
    """
    allowed = list(allowed)
    for each in allowed:
        if type(value) is type(each) and value == each:
            return each
    raise ValueError(f"unknown {what} {str(value)[:40]!r}, expected one of {allowed}")


def level(threshold: object) -> float:
    """Return a threshold as a number from 0 to 1.

    Raises:
        ValueError: It is none.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {str(threshold)[:40]!r}, expected a number from 0 to 1")
    return float(threshold)


def hex_colour(colour: object) -> str:
    """Convert a colour to "#rrggbb": a name ("red"), "#f00", "#ff0000", or "rgba(250.4, 12, 0, 1)".

    Raises:
        ValueError: The text is not a colour.
    """
    text = str(colour).strip()[:100]
    # Gradio's picker gives numbers with decimals
    numbers = re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*(?:,\s*[\d.]+\s*)?\)", text)
    try:
        if numbers is None:
            channels = list(im.parse_colour(text))
        else:
            channels = [min(255, round(float(number))) for number in numbers.groups()]
    except ValueError:
        raise ValueError(
            f"unknown colour {text[:40]!r}, expected a name as 'red', or '#f00', or '#ff0000'"
        ) from None
    return "#" + "".join(f"{channel:02x}" for channel in channels)
