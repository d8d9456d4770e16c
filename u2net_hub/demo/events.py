"""The events of the tabs: they turn the files and choices of a visitor into pictures and facts."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar, get_args

from .models import MAX_PIXELS, PREVIEW, Answer, Model, Models, read_photo  # isort: skip  # before gradio

import gradio as gr
from PIL import Image

from .. import imaging as im
from ..imaging import Edges, encode
from . import theme
from .batch import cut_all, safe_stem
from .pictures import difference, grey, heat

if TYPE_CHECKING:
    from ..imaging import Photo
    from ..inference import SaliencyResult


P = ParamSpec("P")
R = TypeVar("R")

Sent: TypeAlias = "Mapping[str, object]"
"""A file from Gradio: "path" is its path on the server, "orig_name" its name on the visitor's machine."""
Facts: TypeAlias = dict[str, object]

MAX_FILES = 30
"""Largest number of files in a batch."""
TILE = 640
"""Longest side in pixels of a map in the tab Inside."""


class Cut(NamedTuple):
    """A cutout as the page shows it. The API returns the first two fields."""

    file: str
    facts: Facts
    preview: tuple[Image.Image, Image.Image]
    """The photo and the cutout, for the slider."""
    words: str
    """The verdict and the facts, as HTML."""


def polite(event: Callable[P, R]) -> Callable[P, R]:
    """Show the expected errors of an event to the visitor in one line. Other errors reveal nothing."""

    @functools.wraps(event)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        from ..hub import HubError

        try:
            return event(*args, **kwargs)
        except HubError as e:
            # the remedy after the semicolon is for owners of a token, not for visitors
            message = str(e).partition("; ")[0]
        except ImportError:
            message = "photos of this format cannot be read here; save it as JPEG or PNG"
        except ValueError as e:
            message = str(e)
        except OSError as e:
            message = f"the file cannot be used ({e.strerror or type(e).__name__}); send it again"
        raise gr.Error(message, duration=15, print_exception=False)

    return answered


class Tabs:
    """The events of all tabs.

    Args:
        models: The models of the demo.
        folder: The folder in which Gradio keeps uploads, and in which results are written.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self.models = models
        self._folder = folder.resolve()

    @polite
    def cutout(
        self,
        photo: Sent | None,
        model: str,
        background: Literal["transparent", "colour", "picture", "blur"] = "transparent",
        colour: str = "#ffffff",
        picture: Sent | None = None,
        hard_edges: bool = False,
        threshold: float = 0.5,
        crop: bool = False,
        edges: Edges = "sharp",
    ) -> Cut:
        """Cut the object out of a photo, in the photo's own size and colours.

        photo: JPEG, PNG, WebP, AVIF, TIFF and more, up to 20 MB and 24 megapixels. model: one of the models
        of this demo. background: transparent (RGBA), colour, picture or blur. colour: for background
        "colour", as #rrggbb. picture: for background "picture". hard_edges: a mask of 0 and 1 in the place of
        a soft one. threshold: what counts as the object with hard edges, 0 to 1. crop: crop to the object.
        edges: sharp for things with a clear outline, hair for hair and fur, soft for the network's own map.

        Returns the PNG, and facts: model, found, confidence, width, height, milliseconds, device.
        """
        name, read = self._read(photo)
        answer = self.models.run(model, read)
        level = float(threshold) if hard_edges else None
        behind: str | Photo | None = None
        if background == "colour":
            behind = hex_colour(colour)
        elif background == "picture":
            behind = self._read(picture, "a picture for the background")[1]
        elif background == "blur":
            behind = "blur"
        elif background != "transparent":
            raise ValueError(
                f"unknown background {background!r}, expected transparent, colour, picture or blur"
            )
        if edges not in get_args(Edges):
            raise ValueError(f"unknown edges {str(edges)[:40]!r}, expected one of {list(get_args(Edges))}")
        look = functools.partial(_finished, behind=behind, threshold=level, crop=bool(crop), edges=edges)
        return self._cut(answer, name, look, crop=bool(crop), edges=edges)

    @polite
    def compare(
        self, photo: Sent | None, first: str, second: str
    ) -> tuple[Image.Image, Image.Image, Image.Image, Facts, str]:
        """Ask two models about the same photo.

        photo: as for cutout. first, second: models of this demo.

        Returns both maps and their difference (orange where only the first sees the object, blue where only
        the second does), at most 1280 pixels wide and high, and facts: per model its parameters, megabytes,
        milliseconds and confidence, and the mean absolute difference of the maps.
        """
        read = self._read(photo)[1]
        answers = [self.models.run(name, read) for name in (first, second)]
        results = [answer.result(PREVIEW) for answer in answers]
        one, other = (result.saliency for result in results)
        apart = round(float(abs(one - other).mean()), 4)
        facts: Facts = {
            "models": [
                {
                    "model": answer.model.name,
                    "parameters": answer.model.parameters,
                    "megabytes": round(answer.model.megabytes, 1),
                    "milliseconds": round(1000 * answer.seconds, 1),
                    "confidence": round(result.confidence, 4),
                    "found": result.found,
                }
                for answer, result in zip(answers, results, strict=True)
            ],
            "mean_difference": apart,
        }
        return grey(one), grey(other), difference(one, other), facts, _comparison(answers, apart)

    @polite
    def inside(
        self, photo: Sent | None, model: str, view: Literal["heat over the photo", "map alone"]
    ) -> tuple[list[tuple[Image.Image, str]], Facts]:
        """Show the side outputs of a network, from coarse to fine, and the fused map made of them.

        photo: as for cutout. model: one of the models of this demo. view: heat over the photo, or the map
        alone in 256 grey levels. The maps are the network's probabilities, without min–max.

        Returns the pictures with their captions, at most 640 pixels wide and high, and facts as for cutout.
        """
        answer = self.models.run(model, self._read(photo)[1])
        result = answer.result(TILE)
        maps = [*reversed(result.side_outputs or ()), im.resize(result.probability, result.size)]
        captions = [f"Side {len(maps) - 1 - i}" for i in range(len(maps) - 1)] + ["Fused"]
        if len(maps) > 2:
            captions[0] += ", coarsest"
            captions[-2] += ", finest"
        alone = view == "map alone"
        pictures = [grey(each) if alone else heat(result.photo, each) for each in maps]
        return list(zip(pictures, captions, strict=True)), answer.facts()

    @polite
    def batch(
        self,
        files: Sequence[Sent] | None,
        model: str,
        kind: Literal["cutout", "mask"] = "cutout",
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio knows that it is wanted
    ) -> tuple[str, list[Facts], list[tuple[Image.Image, str]], str]:
        """Cut out many photos; a bad file is listed, the others are done.

        files: up to 30 photos, each as for cutout. model: one of the models of this demo. kind: cutout
        (RGBA), or mask (the saliency map in 256 grey levels).

        Returns a zip of PNG files with the photos' names, and for each file: name, written, error, found,
        confidence.
        """
        if not files:
            raise ValueError("no files yet; choose some photos first")
        if len(files) > MAX_FILES:
            raise ValueError(f"{len(files)} files, expected at most {MAX_FILES} at once")
        if kind not in ("cutout", "mask"):
            raise ValueError(f"unknown kind {kind!r}, expected cutout or mask")
        self.models.get(model)
        sent = [self._sent(file) for file in files]
        archive = self._new_file(f"{kind}s.zip")
        outcomes = []
        progress((0, len(sent)), unit="photos")
        for outcome in cut_all(self.models, model, sent, archive, kind=kind):
            outcomes.append(outcome)
            progress((len(outcomes), len(sent)), unit="photos")
        report: list[Facts] = [
            {
                "name": each.name,
                "written": each.written,
                "error": each.error,
                "found": each.found,
                "confidence": None if each.confidence is None else round(each.confidence, 4),
            }
            for each in outcomes
        ]
        gallery = [(each.preview, each.written or "") for each in outcomes if each.preview is not None]
        return str(archive), report, gallery, _report(report)

    @polite
    def load_model(self, source: str) -> tuple[str, Facts, str]:
        """Load a public model of this library from the Hub.

        source: org/name or org/name@revision.

        Returns the name that try_model knows it by, and facts: architecture, parameters, megabytes, revision.
        """
        model = self.models.invite(str(source))
        config = model.pipeline.config
        facts: Facts = {
            "model": model.name,
            "architecture": config.variant,
            "parameters": model.parameters,
            "megabytes": round(model.megabytes, 1),
            "input_size": list(config.input_size),
            "revision": model.revision,
            "device": model.engine.device,
        }
        return model.name, facts, _description(model)

    @polite
    def try_model(self, photo: Sent | None, model: str) -> Cut:
        """Cut the object out of a photo with a model that load_model has loaded.

        photo: as for cutout. model: the name that load_model returned.

        Returns the PNG, and facts as for cutout.
        """
        name, read = self._read(photo)
        return self._cut(self.models.run(str(model), read), name, _finished)

    def _cut(
        self,
        answer: Answer,
        name: str,
        look: Callable[[SaliencyResult], Image.Image],
        *,
        crop: bool = False,
        edges: Edges = "sharp",
    ) -> Cut:
        result, small = answer.result(), answer.result(PREVIEW)
        file = self._new_file(f"{safe_stem(name)}_cutout.png")
        file.write_bytes(encode(look(result), "png"))
        before = _cropped(small.photo.on((255, 255, 255)), small, crop, edges)
        after = look(small)
        facts = answer.facts()
        return Cut(str(file), facts, (before, after), _words(facts))

    def _read(self, sent: Sent | None, what: str = "a photo") -> tuple[str, Photo]:
        if sent is None:
            raise ValueError(f"{what} is missing; choose one first")
        path, name = self._sent(sent)
        return name, read_photo(path, name)

    def _sent(self, sent: Sent) -> tuple[Path, str]:
        """The path and name of an uploaded file. Other files of this machine are refused."""
        path = Path(str(sent.get("path") or "")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise ValueError("the file is no longer on the server; upload it again")
        name = str(sent.get("orig_name") or path.name)
        return path, re.sub(r"[^\w.()+, -]", "_", Path(name.replace("\\", "/")).name)[-80:] or "photo"

    def _new_file(self, name: str) -> Path:
        """The path for a new result, in a folder with a name that nobody can guess."""
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder / name


def hex_colour(colour: str) -> str:
    """Convert a colour from Gradio's picker ("#rrggbb", "rgba(250.4, 12, 0, 1)") to "#rrggbb".

    Raises:
        ValueError: The text is not a colour.
    """
    if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        return colour.lower()
    numbers = re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*(?:,\s*[\d.]+\s*)?\)", colour)
    if numbers is None:
        raise ValueError(f"unknown colour {colour[:40]!r}, expected #rrggbb")
    return "#" + "".join(f"{min(255, round(float(number))):02x}" for number in numbers.groups())


def _finished(
    result: SaliencyResult,
    *,
    behind: str | Photo | None = None,
    threshold: float | None = None,
    crop: bool = False,
    edges: Edges = "sharp",
) -> Image.Image:
    if behind is None:
        picture = result.cutout(threshold, edges=edges)
    else:
        picture = result.over(behind, threshold, edges=edges)
    return _cropped(picture, result, crop, edges)


def _cropped(picture: Image.Image, result: SaliencyResult, crop: bool, edges: Edges) -> Image.Image:
    box = result.bbox(edges=edges) if crop else None
    return picture if box is None else picture.crop(box)


# Words


def _words(facts: Facts) -> str:
    found = theme.verdict(bool(facts["found"]), float(str(facts["confidence"])), im.FOUND_FROM)
    return found + theme.facts(
        size=f"{facts['width']} × {facts['height']} px",
        network=f"{_milliseconds(float(str(facts['milliseconds'])))} on {facts['device']}",
        model=str(facts["model"]),
    )


def _milliseconds(value: float) -> str:
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _comparison(answers: Sequence[Answer], apart: float) -> str:
    rows = [
        ["Parameters", *(f"{answer.model.parameters:,}" for answer in answers)],
        ["File", *(f"{answer.model.megabytes:.1f} MB" for answer in answers)],
        ["Time", *(_milliseconds(1000 * answer.seconds) for answer in answers)],
        ["Confidence", *(f"{answer.result().confidence:.2f}" for answer in answers)],
    ]
    table = theme.ledger(["", *(answer.model.name for answer in answers)], rows, figures=(1, 2))
    device = answers[0].model.engine.device
    return table + theme.facts(mean_difference=f"{apart:.4f}", device=device)


def _report(report: Sequence[Facts]) -> str:
    rows = [
        [
            str(each["name"]),
            str(each["error"] or ("done" if each["found"] else "done, but no salient object found")),
            "" if each["confidence"] is None else f"{each['confidence']:.2f}",
        ]
        for each in report
    ]
    failed = [i for i, each in enumerate(report) if each["error"] is not None]
    head = theme.say(f"{len(report) - len(failed)} of {len(report)} photos are in the zip.")
    return head + theme.ledger(["Photo", "Outcome", "Confidence"], rows, figures=[2], bad=failed)


def _description(model: Model) -> str:
    config = model.pipeline.config
    height, width = config.input_size
    return theme.facts(
        model=model.name.partition("@")[0],
        commit=(model.revision or "")[:12],
        architecture=config.variant,
        parameters=f"{model.parameters:,}",
        file=f"{model.megabytes:.1f} MB",
        input=f"{width} × {height} px",
        device=model.engine.device,
    )


LIMITS = (
    f"Up to 20 MB and {MAX_PIXELS // 1_000_000} megapixels per photo. What you send stays on this machine "
    "for an hour at most, and is shown to nobody else."
)
