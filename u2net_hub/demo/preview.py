"""The preview of a cutout: small pictures that lie over each other, which the browser turns into any view."""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from .models import PREVIEW

if TYPE_CHECKING:
    from pathlib import Path

    from ..inference import SaliencyResult
    from .look import Look
    from .models import Answer

_KEPT = 12


class Small(NamedTuple):
    """What a preview is made of, which needs no decoding."""

    result: SaliencyResult
    """The result in the size of the preview. It keeps its mattes."""
    facts: dict[str, object]


class Previews:
    """Keep the small results of the last photos, so that another choice costs no decoding."""

    def __init__(self) -> None:
        self.pinned: set[str] = set()
        """Paths of the examples, whose results stay."""
        self._examples: dict[tuple[str, str], Small] = {}
        self._known: OrderedDict[tuple[str, str], Small] = OrderedDict()

    def get(self, path: Path, model: str, run: Callable[[], Answer]) -> Small:
        """Return the small result for a photo, which `run` computes if it is not known yet."""
        key = str(path), model
        small = self._examples.get(key) or self._known.pop(key, None)
        if small is None:
            answer = run()
            small = Small(answer.result(PREVIEW), answer.facts())
        if key[0] in self.pinned and "@" not in model:  # a visitor's model is forgotten one day
            self._examples[key] = small
            return small
        self._known[key] = small
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return small


def draw(result: SaliencyResult, look: Look) -> str:
    """Draw a result as HTML: the photo, the background, the cutout and the mask, and a divider before them.

    The browser shows the cutout or the mask, puts a colour behind, and applies the threshold of the mask.
    """
    profile = result.photo.icc_profile
    before = look.cropped(result.photo.on((255, 255, 255)), result)
    cut = look._replace(behind=None).finish(result)
    mask = look.cropped(result.mask(None, edges=look.edges), result).convert("L")
    width, height = before.size
    behind = ""
    if look.behind is not None and not (isinstance(look.behind, str) and look.behind.startswith("#")):
        behind = _img("behind", "", look.finish(result), "JPEG", quality=85, icc_profile=profile)
    return (
        f'<div class="stage" style="--w:{width};--h:{height}">{behind}'
        + _img("cut", "Cutout", cut, "WEBP", quality=85, method=1, icc_profile=profile or b"")
        + _img("mask", "Mask", mask, "PNG", compress_level=1)
        + _img("before", "Photo", before, "JPEG", quality=85, icc_profile=profile)
        + '<input type="range" min="0" max="100" value="50" '
        'aria-label="Divide between photo and result"></div>'
    )


def data_address(picture: Image.Image, format: str, **how: object) -> str:
    """Encode a picture as the address of an `<img>`, so that no file of it stays on the server."""
    buffer = BytesIO()
    picture.save(buffer, format, **how)
    return f"data:image/{format.lower()};base64,{b64encode(buffer.getvalue()).decode()}"


def _img(name: str, alt: str, picture: Image.Image, format: str, **how: object) -> str:
    address = data_address(picture, format, **how)
    return f'<img class="{name}" alt="{escape(alt)}" src="{address}">'
