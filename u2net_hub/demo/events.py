"""The events of the tabs: they turn the files and choices of a visitor into pictures and facts."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from .models import PREVIEW, Answer, Models, read_photo  # isort: skip  # before gradio

import gradio as gr
from PIL import Image

from .. import imaging as im
from ..imaging import Edges, encode
from . import theme, words
from .anatomy import draw_anatomy
from .batch import cut_all, safe_stem
from .look import BACKGROUNDS, EDGES, Look, hex_colour, level, one_of
from .manners import polite
from .pictures import difference, grey, heat
from .preview import Previews, draw
from .storage import Storage
from .visitors import Job, Turns, current_visitor

if TYPE_CHECKING:
    from ..imaging import Photo
    from ..inference import SaliencyResult


Sent: TypeAlias = "Mapping[str, object]"
"""A file from Gradio: "path" is its path on the server, "orig_name" its name on the visitor's machine."""
Facts: TypeAlias = dict[str, object]
View: TypeAlias = Literal["heat over the photo", "map alone"]

MAX_FILES = 30
"""Largest number of files in a batch."""
TILE = 640
"""Longest side in pixels of a map in the tab Inside."""
VIEWS: tuple[View, ...] = get_args(View)
KINDS: tuple[Literal["cutout", "mask"], ...] = ("cutout", "mask")


class Tabs:
    """The events of all tabs. Visitors take turns.

    Args:
        models: The models of the demo.
        folder: The folder in which Gradio keeps uploads, and in which results are written.
        turns: The turns of the visitors.
        storage: It bounds what visitors store.
    """

    def __init__(
        self, models: Models, folder: Path, turns: Turns | None = None, storage: Storage | None = None
    ) -> None:
        self.models = models
        self.turns = turns or Turns()
        self._storage = storage or Storage(folder)
        self._folder = folder.resolve()
        self.previews = Previews()

    @polite
    def cutout(
        self,
        photo: Sent | None,
        model: str,
        background: str = "transparent",
        colour: str = "#ffffff",
        picture: Sent | None = None,
        hard_edges: bool = False,
        threshold: float = 0.5,
        crop: bool = False,
        edges: Edges = "sharp",
    ) -> tuple[str, Facts]:
        """Cut the object out of a photo, in the photo's own size and colours.

        photo: JPEG, PNG, WebP, AVIF, TIFF and more, up to 20 MB and 24 megapixels, uploaded: an address is
        not fetched. model: one of the models of this demo. background: transparent (RGBA), colour, picture or
        blur. colour: for background "colour", as red, #f00 or #ff0000. picture: for background "picture".
        hard_edges: cut at the threshold instead of softly. threshold: what counts as the object with hard
        edges, 0 to 1. crop: crop to the object. edges: sharp for things with a clear outline, hair for hair
        and fur, soft for the network's own map.

        Returns the PNG, and facts: model, found, confidence, width, height, milliseconds (the median of this
        model's last runs), device.
        """
        path, name = self._sent(photo)
        with self._alone([path]):
            hard = level(threshold) if hard_edges else None
            look = self._look(background, colour, picture, crop, edges, hard)
            return self._make(path, name, model, "cutout", look.finish)

    @polite
    def mask(
        self,
        photo: Sent | None,
        model: str,
        black_and_white: bool = False,
        threshold: float = 0.5,
        edges: Edges = "soft",
    ) -> tuple[str, Facts]:
        """Make the mask of the object, in the photo's own size.

        photo: as for cutout. model: one of the models of this demo. black_and_white: 255 where the saliency
        is at least the threshold, 0 elsewhere, instead of 256 grey levels. threshold: from 0 to 1. edges: as
        for cutout.

        Returns the PNG, and facts as for cutout.
        """
        path, name = self._sent(photo)
        chosen = level(threshold) if black_and_white else None
        edges = one_of(edges, EDGES, "edges")
        with self._alone([path]):
            return self._make(path, name, model, "mask", lambda result: result.mask(chosen, edges=edges))

    @polite
    def preview(
        self,
        photo: Sent | None,
        model: str,
        background: str = "transparent",
        picture: Sent | None = None,
        crop: bool = False,
        edges: Edges = "sharp",
    ) -> tuple[str, str]:
        """Draw the preview of a cutout and its mask, without the colour, which the browser adds.

        A background picture that is not chosen yet is no error, because the visitor is about to choose it.
        """
        if photo is None:
            return theme.empty("Choose a photo. Its background is removed; its colours and size stay."), ""
        if background == "picture" and picture is None:
            background = "transparent"
        path, name = self._sent(photo)
        with self._alone([path]):
            look = self._look(background, "#ffffff", picture, crop, edges)
            self.models.get(model)
            small = self.previews.get(path, model, lambda: self.models.run(model, read_photo(path, name)))
            return draw(small.result, look), words.verdict(small.facts)

    @polite
    def compare(
        self, photo: Sent | None, first: str, second: str
    ) -> tuple[Image.Image, Image.Image, Image.Image, Facts, str]:
        """Ask two models about the same photo.

        photo: as for cutout. first, second: models of this demo.

        Returns both maps and their difference (orange where only the first sees the object, blue where only
        the second does), at most 1280 pixels wide and high, and facts: per model its parameters, megabytes,
        milliseconds (the median of its last runs) and confidence, and the mean absolute difference of the
        maps.
        """
        path, called = self._sent(photo)
        with self._alone([path]):
            read = read_photo(path, called)
            answers = [self.models.run(name, read) for name in (first, second)]
            results = [answer.result(PREVIEW) for answer in answers]
            one, other = (result.saliency for result in results)
            apart = round(float(abs(one - other).mean()), 4)
            each = [answer.facts() for answer in answers]
            facts: Facts = {
                "models": [
                    {
                        "model": answer.model.name,
                        "parameters": answer.model.parameters,
                        "megabytes": round(answer.model.megabytes, 1),
                        **{name: fact[name] for name in ("milliseconds", "confidence", "found")},
                    }
                    for answer, fact in zip(answers, each, strict=True)
                ],
                "mean_difference": apart,
            }
            return grey(one), grey(other), difference(one, other), facts, words.comparison(answers, apart)

    @polite
    def inside(
        self, photo: Sent | None, model: str, view: View = "heat over the photo"
    ) -> tuple[list[tuple[Image.Image, str]], Facts]:
        """Show the side outputs of a network, from coarse to fine, and the fused map made of them.

        photo: as for cutout. model: one of the models of this demo. view: heat over the photo, or map alone
        in 256 grey levels. The maps are the network's probabilities, without min–max.

        Returns the pictures with their captions, at most 640 pixels wide and high, and facts as for cutout.
        """
        pictures, answer = self._maps(photo, model, view)
        names = [f"Side {len(pictures) - 1 - i}" for i in range(len(pictures) - 1)] + ["Fused"]
        if len(pictures) > 2:
            names[0] += ", coarsest"
            names[-2] += ", finest"
        return list(zip(pictures, names, strict=True)), answer.facts()

    @polite
    def anatomy(self, photo: Sent | None, model: str, view: View = "heat over the photo") -> str:
        """Draw the network's stages with the maps of a photo as HTML. Without a photo there are no maps."""
        if photo is None:
            return draw_anatomy(self.models.get(model), [])
        pictures, answer = self._maps(photo, model, view)
        return draw_anatomy(answer.model, pictures)

    def _maps(self, photo: Sent | None, model: str, view: View) -> tuple[list[Image.Image], Answer]:
        """The pictures of the side outputs, coarse to fine, and of the fused map."""
        alone = one_of(view, VIEWS, "view") == "map alone"
        path, name = self._sent(photo)
        with self._alone([path]):
            answer = self.models.run(model, read_photo(path, name), side_outputs=True)
            result = answer.result(TILE)
            maps = [*reversed(result.side_outputs or ()), im.resize(result.probability, result.size)]
            return [grey(each) if alone else heat(result.photo, each) for each in maps], answer

    @polite
    def batch(
        self,
        files: Sequence[Sent] | None,
        model: str,
        kind: Literal["cutout", "mask"] = "cutout",
        background: str = "transparent",
        colour: str = "#ffffff",
        picture: Sent | None = None,
        crop: bool = False,
        edges: Edges = "sharp",
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how Gradio knows that it is wanted
    ) -> tuple[str, list[Facts], list[tuple[Image.Image, str]], str]:
        """Cut out many photos; a bad file is listed, the others are done.

        files: up to 30 photos, each as for cutout; the same photo is processed once. model: one of the models
        of this demo. kind: cutout, or mask (the saliency map in 256 grey levels). background, colour,
        picture, crop, edges: of cutouts, as for cutout.

        Returns a zip of PNG files with the photos' names, and for each file: name, written, error, found,
        confidence, same_as.
        """
        if not files:
            raise ValueError("no files yet; choose some photos first")
        if len(files) > MAX_FILES:
            raise ValueError(f"{len(files)} files, expected at most {MAX_FILES} at once")
        kind = one_of(kind, KINDS, "kind")
        self.models.get(model)
        sent = [self._sent(file) for file in files]
        outcomes = []
        progress((0, len(sent)), unit="photos")
        behind = [picture] if background == "picture" and picture is not None else []
        with self._job([path for path, _ in (*sent, *map(self._sent, behind))]) as job:
            archive = self._new_file(f"{kind}s.zip")
            with job.turn():
                look = self._look(background, colour, picture, crop, edges)
            finish = look.finish if kind == "cutout" else _soft_mask
            store = functools.partial(self._storage.charge, job.visitor.address)
            for outcome in cut_all(self.models, model, sent, archive, finish, turn=job.turn, store=store):
                outcomes.append(outcome)
                progress((len(outcomes), len(sent)), unit="photos")
        report: list[Facts] = [
            {
                "name": each.name,
                "written": each.written,
                "error": each.error,
                "found": each.found,
                "confidence": None if each.confidence is None else round(each.confidence, 4),
                "same_as": each.same_as,
            }
            for each in outcomes
        ]
        gallery = [(each.preview, each.written or "") for each in outcomes if each.preview is not None]
        return str(archive), report, gallery, words.report(report)

    @polite
    def load_model(self, source: str) -> tuple[str, Facts, str]:
        """Load a public model of this library from the Hub.

        source: org/name or org/name@revision.

        Returns the name that the other calls know it by, and facts: architecture, parameters, megabytes,
        revision.
        """
        with self.turns.job(current_visitor()):  # it waits for the Hub, not for its turn
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
        return model.name, facts, words.description(model)

    @polite
    def try_model(
        self,
        photo: Sent | None,
        model: str,
        background: str = "transparent",
        colour: str = "#ffffff",
        picture: Sent | None = None,
        crop: bool = False,
        edges: Edges = "sharp",
    ) -> tuple[str, Facts]:
        """Cut the object out of a photo with a model that load_model has loaded.

        model: the name that load_model returned. photo, background, colour, picture, crop, edges: as for
        cutout.

        Returns the PNG, and facts as for cutout.
        """
        path, name = self._sent(photo)
        with self._alone([path]):
            look = self._look(background, colour, picture, crop, edges)
            return self._make(path, name, model, "cutout", look.finish)

    def _make(
        self, path: Path, name: str, model: str, kind: str, finish: Callable[[SaliencyResult], Image.Image]
    ) -> tuple[str, Facts]:
        """Write the picture for a photo at full size."""
        answer = self.models.run(model, read_photo(path, name))
        picture = finish(answer.result())
        png = encode(picture, "png")
        self._storage.charge(current_visitor().address, len(png))
        file = self._new_file(f"{safe_stem(name)}_{kind}.png")
        file.write_bytes(png)
        return str(file), answer.facts()

    def _look(
        self,
        background: str,
        colour: str,
        picture: Sent | None,
        crop: bool,
        edges: Edges,
        threshold: float | None = None,
    ) -> Look:
        background = one_of(background, BACKGROUNDS, "background")
        behind: str | Photo | None = None
        if background == "colour":
            behind = hex_colour(colour)
        elif background == "picture":
            behind = read_photo(*self._sent(picture, "a picture for the background"))
        elif background == "blur":
            behind = "blur"
        return Look(behind, threshold, one_of(crop, (False, True), "crop"), one_of(edges, EDGES, "edges"))

    def _job(self, paths: Sequence[Path]) -> AbstractContextManager[Job]:
        sizes = [im.peek_size(path) or (0, 0) for path in paths]
        return self.turns.job(current_visitor(), sum(height * width for height, width in sizes))

    @contextmanager
    def _alone(self, paths: Sequence[Path]) -> Iterator[None]:
        """A job with one turn."""
        with self._job(paths) as job, job.turn():
            yield

    def _sent(self, sent: object, what: str = "a photo") -> tuple[Path, str]:
        """The path and name of an uploaded file. Other files of this machine are refused."""
        if sent is None:
            raise ValueError(f"{what} is missing; choose one first")
        if not isinstance(sent, Mapping):
            raise ValueError(f"{what} is a {type(sent).__name__}, expected an uploaded file")
        try:
            path = Path(str(sent.get("path") or "")).resolve()
            uploaded = path.is_relative_to(self._folder) and path.is_file()
        except (OSError, ValueError):  # too long a name, or one with a null
            uploaded = False
        if not uploaded:
            raise ValueError("the file is no longer on the server; upload it again")
        name = str(sent.get("orig_name") or path.name)
        return path, re.sub(r"[^\w.()+, -]", "_", Path(name.replace("\\", "/")).name)[-80:] or "photo"

    def _new_file(self, name: str) -> Path:
        """The path for a new result, in a folder with a name that nobody can guess."""
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder / name


def _soft_mask(result: SaliencyResult) -> Image.Image:
    return result.mask(None)
