"""The layout of the tabs, and the connection of their components to events."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .models import SOURCES_VARIABLE, Models  # isort: skip  # imports spaces, before gradio

try:
    import gradio as gr
except ImportError as e:
    raise ImportError("the demo needs gradio; install it with: pip install 'u2net-hub[space]'") from e

from . import theme
from .events import MAX_FILES, Tabs
from .space import shipped

_EXAMPLES = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg", "grass.jpg")
_BACKGROUNDS = ["transparent", "colour", "picture", "blur"]


class Page:
    """Lay out the tabs, and connect their components to the events of `Tabs`.

    Args:
        models: The models that visitors can choose from.
        folder: The folder in which Gradio keeps its files.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self._tabs = Tabs(models, folder)
        self._names = models.names
        self._examples = [str(shipped("examples") / name) for name in _EXAMPLES]

    def cutout(self) -> None:
        gr.HTML(theme.say("Choose a photo. Its background is removed; its colours and size stay the same."))
        with gr.Row():
            with gr.Column(min_width=320):
                photo = self._photo("cutout-photo")
                model = self._model("cutout-model")
                background = gr.Radio(
                    _BACKGROUNDS, value="transparent", label="Background", elem_id="background"
                )
                colour = gr.ColorPicker("#ffffff", label="Colour", visible=False, elem_id="colour")
                picture = gr.Image(
                    label="Background picture",
                    sources=["upload", "clipboard"],
                    image_mode=None,
                    type="filepath",
                    format="png",
                    height=160,
                    visible=False,
                    elem_id="background-picture",
                )
                hard = gr.Checkbox(False, label="Hard edges", info="Each pixel is either kept or removed.")
                threshold = gr.Slider(
                    0, 1, 0.5, step=0.01, label="Threshold", visible=False, elem_id="threshold"
                )
                crop = gr.Checkbox(False, label="Crop to the object")
                edges = gr.Radio(
                    ["sharp", "hair", "soft"],
                    value="sharp",
                    label="Edges",
                    info="sharp: clear outlines. hair: hair and fur. soft: the network's own map.",
                    elem_id="edges",
                )
                go = gr.Button("Cut out", variant="primary", elem_id="cutout-go")
            with gr.Column(min_width=320):
                preview, words, png, facts = self._result("cutout")
        background.change(
            lambda chosen: (gr.update(visible=chosen == "colour"), gr.update(visible=chosen == "picture")),
            background,
            [colour, picture],
            **_ASIDE,
        )
        hard.change(lambda on: gr.update(visible=on), hard, threshold, **_ASIDE)
        inputs = [photo, model, background, colour, picture, hard, threshold, crop, edges]
        live = [photo.change, model.change, colour.change, picture.change, threshold.release, crop.change]
        live += [background.change, hard.change, edges.change]
        self._wire(
            self._tabs.cutout, inputs, [png, facts, preview, words], go, live, api_name="cutout", returns=2
        )

    def compare(self) -> None:
        if len(self._names) < 2:
            one = self._names[0]
            gr.Markdown(
                f"To compare, the demo needs two models. It was started with one: `{one}`. To add the other "
                "size, name both, separated by a comma:\n\n"
                f"```\n{SOURCES_VARIABLE}={one},org/u2net u2net demo\n```\n\n"
                "A source is a bundled name, a folder, a file, or `org/name` on the Hub. The authors' U²-Net "
                "becomes a folder with `u2net convert --model u2net.pth --out u2net`. On Spaces, set the "
                f"variable `{SOURCES_VARIABLE}` under Settings.",
                elem_id="compare-how",
            )
            return
        gr.HTML(theme.say("Compare two models on the same photo: their maps, their size and their speed."))
        with gr.Row():
            with gr.Column(min_width=320):
                photo = self._photo("compare-photo")
            with gr.Column(min_width=320):
                first = gr.Dropdown(self._names, value=self._names[0], label="First model")
                second = gr.Dropdown(self._names, value=self._names[1], label="Second model")
                go = gr.Button("Compare", variant="primary", elem_id="compare-go")
                table = gr.HTML(elem_id="compare-table")
        with gr.Row():
            maps = [
                gr.Image(
                    label=label,
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id=elem_id,
                    min_width=220,
                    alt_text=label,
                )
                for label, elem_id in (
                    ("Map of the first model", "compare-first"),
                    ("Map of the second model", "compare-second"),
                    ("Difference: orange first only, blue second only", "compare-difference"),
                )
            ]
        facts = gr.JSON(visible=False, label="Facts")
        self._wire(
            self._tabs.compare, [photo, first, second], [*maps, facts, table], go,
            [photo.change, first.change, second.change], api_name="compare", returns=4,
        )  # fmt: skip

    def inside(self) -> None:
        gr.HTML(
            theme.say(
                "In training, each stage of the decoder learns to predict its own map (deep supervision). "
                "The coarse maps show where the object is, the fine maps show its edges. A last convolution "
                "fuses the six maps into one."
            )
        )
        with gr.Row():
            with gr.Column(min_width=320, scale=1):
                photo = self._photo("inside-photo")
                model = self._model("inside-model")
                view = gr.Radio(
                    ["heat over the photo", "map alone"],
                    value="heat over the photo",
                    label="Show",
                    elem_id="inside-view",
                )
                go = gr.Button("Look inside", variant="primary", elem_id="inside-go")
            with gr.Column(min_width=320, scale=2):
                maps = gr.Gallery(
                    label="Side outputs, coarse to fine, and the fused map",
                    format="png",
                    columns=4,
                    height="auto",
                    object_fit="contain",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="inside-maps",
                )
        facts = gr.JSON(visible=False, label="Facts")
        self._wire(
            self._tabs.inside, [photo, model, view], [maps, facts], go,
            [photo.change, model.change, view.change], api_name="inside", returns=2,
        )  # fmt: skip

    def batch(self) -> None:
        gr.HTML(
            theme.say(
                f"Choose up to {MAX_FILES} photos. You get one zip file with results of the same names."
            )
        )
        with gr.Row():
            with gr.Column(min_width=320):
                files = gr.File(
                    label="Photos",
                    file_count="multiple",
                    file_types=["image", ".heic", ".heif", ".avif"],
                    height=220,
                    elem_id="batch-files",
                )
                model = self._model("batch-model")
                kind = gr.Radio(["cutout", "mask"], value="cutout", label="Make", elem_id="batch-kind")
                go = gr.Button("Process all", variant="primary", elem_id="batch-go")
            with gr.Column(min_width=320):
                archive = gr.DownloadButton("Download zip", interactive=False, elem_id="batch-download")
                words = gr.HTML(elem_id="batch-report")
        gallery = gr.Gallery(
            label="Results",
            columns=5,
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="batch-gallery",
            elem_classes="checker",
        )
        report = gr.JSON(visible=False, label="Report")
        report.change(lambda: gr.update(interactive=True), None, archive, **_ASIDE)
        self._wire(
            self._tabs.batch, [files, model, kind], [archive, report, gallery, words], go, [],
            api_name="batch", returns=2,
        )  # fmt: skip

    def your_model(self) -> None:
        gr.HTML(
            theme.say(
                "Load any public model of this library from the Hub, at any revision. Its files are checked "
                "against the hashes of the Hub, and no code in them is run."
            )
        )
        with gr.Row():
            with gr.Column(min_width=320):
                source = gr.Textbox(
                    label="Model on the Hub",
                    placeholder="org/name or org/name@revision",
                    max_length=250,
                    elem_id="your-source",
                )
                load = gr.Button("Load", elem_id="your-load")
                about = gr.HTML(theme.say("No model loaded yet."), elem_id="your-about")
                photo = self._photo("your-photo")
                go = gr.Button("Cut out with it", variant="primary", elem_id="your-go")
            with gr.Column(min_width=320):
                preview, words, png, facts = self._result("your")
        loaded = gr.Textbox(visible=False, label="Model in memory")
        description = gr.JSON(visible=False, label="Model facts")
        self._wire(
            self._tabs.load_model, [source], [loaded, description, about], load, [source.submit],
            api_name="load_model", returns=2, queue_of="hub",
        )  # fmt: skip
        self._wire(
            self._tabs.try_model, [photo, loaded], [png, facts, preview, words], go, [],
            api_name="try_model", returns=2,
        )  # fmt: skip

    def _photo(self, elem_id: str) -> gr.Image:
        photo = gr.Image(
            label="Photo",
            sources=["upload", "webcam", "clipboard"],
            image_mode=None,
            type="filepath",
            format="png",
            height=300,
            buttons=["fullscreen"],
            elem_id=elem_id,
            alt_text="Your photo",
        )
        gr.Examples(
            [[path] for path in self._examples],
            photo,
            cache_examples=False,
            api_visibility="private",
            elem_id=f"{elem_id}-examples",
            label="Or one of these",
        )
        return photo

    def _model(self, elem_id: str) -> gr.Dropdown:
        several = len(self._names) > 1
        return gr.Dropdown(self._names, value=self._names[0], label="Model", visible=several, elem_id=elem_id)

    def _result(self, prefix: str) -> tuple[gr.ImageSlider, gr.HTML, gr.DownloadButton, gr.JSON]:
        preview = gr.ImageSlider(
            label="Before and after",
            format="webp",  # the download is the PNG below
            interactive=False,
            buttons=["fullscreen"],
            slider_position=50,
            elem_id=f"{prefix}-preview",
            elem_classes="checker",
        )
        words = gr.HTML(elem_id=f"{prefix}-words")
        png = gr.DownloadButton(
            "Download PNG", interactive=False, variant="secondary", elem_id=f"{prefix}-download"
        )
        facts = gr.JSON(visible=False, label="Facts")
        facts.change(lambda: gr.update(interactive=True), None, png, **_ASIDE)
        return preview, words, png, facts

    def _wire(
        self,
        event: Callable[..., Any],
        inputs: list[Any],
        outputs: list[Any],
        button: gr.Button,
        live: Sequence[Any],
        *,
        api_name: str,
        returns: int,
        queue_of: str = "models",
    ) -> None:
        """Run an event when the button is clicked, when an input changes, and through the API.

        The API returns the first `returns` outputs. Gradio's own preprocessing is switched off, because it
        opens files before they are checked; `Tabs` reads them. All events of the models share one queue.
        """
        shared: dict[str, Any] = {"preprocess": False, "concurrency_id": queue_of, "concurrency_limit": 1}

        @functools.wraps(event)
        def unless_empty(*args: Any) -> Any:
            return event(*args) if args[0] else gr.skip()

        @functools.wraps(event)
        def for_programs(*args: Any, **kwargs: Any) -> Any:
            return tuple(event(*args, **kwargs))[:returns]

        described = " ".join((event.__doc__ or "").split())
        gr.Button(visible=False).click(
            for_programs, inputs, outputs[:returns], api_name=api_name, api_description=described, **shared
        )
        shared["api_visibility"] = "private"
        button.click(event, inputs, outputs, api_name=f"{api_name}_clicked", **shared)
        if live:
            shared["trigger_mode"] = "always_last"
            gr.on(live, unless_empty, inputs, outputs, api_name=f"{api_name}_changed", **shared)


# for events that only change the page
_ASIDE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
