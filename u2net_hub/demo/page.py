"""The layout of the page, and the connection of its components to events."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .models import Models  # isort: skip  # imports spaces, before gradio

try:
    import gradio as gr
except ImportError as e:
    raise ImportError("the demo needs gradio; install it with: pip install 'u2net-hub[space]'") from e

from . import theme
from .controls import LookControls, look_controls, own_example, picture_input
from .events import MAX_FILES, VIEWS, Tabs
from .look import EDGES
from .space import shipped
from .storage import Storage
from .visitors import Turns

_EXAMPLES = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg", "grass.jpg")
# The functions called here are in head.html. An event without a Python function never leaves the browser.
_ASIDE: dict[str, Any] = {"fn": None, "queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Page:
    """Lay out the page, and connect its components to the events of `Tabs`.

    One photo is shared by the tabs Cutout, Compare and Inside. The browser tells the open tab which photo it
    wants, by writing to a hidden text of the tab, so only the open tab does any work.

    Args:
        models: The models that visitors can choose from.
        folder: The folder in which Gradio keeps its files.
        turns: The turns of the visitors.
        storage: It bounds what visitors store.
    """

    def __init__(
        self, models: Models, folder: Path, turns: Turns | None = None, storage: Storage | None = None
    ) -> None:
        self._tabs = Tabs(models, folder, turns, storage)
        self._names = models.names
        self._dropdowns: list[gr.Dropdown] = []
        self._wanted: dict[str, gr.Textbox] = {}
        """Which photo each tab wants: its path, and a number that makes each choice another one."""
        self._results: list[Any] = []
        """What becomes empty when another photo is chosen."""
        self._address = ""
        """The address of the page, which is known when it runs."""

    def lay_out(self, *, online: bool = True) -> None:
        """Lay out the photo and the tabs.

        Args:
            online: Whether models can be loaded from the Hub.
        """
        several = len(self._names) > 1
        for name in ("cutout", "compare", "inside") if several else ("cutout", "inside"):
            # outside of the tabs, because Gradio makes the inside of a tab when it is first opened
            self._wanted[name] = gr.Textbox(visible="hidden", elem_id=f"{name}-wanted", label=f"For {name}")
        with gr.Row(elem_id="desk"):
            with gr.Column(min_width=280, scale=2, elem_id="photo-column"):
                self._photo_column()
            with gr.Column(min_width=320, scale=5, elem_id="tabs-column"), gr.Tabs():
                tabs: list[tuple[str, Callable[[], None]]] = [("Cutout", self._cutout)]
                if several:
                    tabs.append(("Compare", self._compare))
                tabs += [("Inside", self._inside), ("Batch", self._batch)]
                if online:
                    tabs.append(("Your model", self._your_model))
                for name, lay_out in tabs:
                    short = name.split()[0].lower()
                    with gr.Tab(name, id=name, elem_id=f"tab-{short}") as tab:
                        lay_out()
                    self._on_tab(tab, short)
        shown = self._results
        self._photo.change(outputs=shown, js=f"() => Array({len(shown)}).fill(null)", **_ASIDE)
        self._photo.change(
            inputs=[self._photo, *self._wanted.values()],
            outputs=[*self._wanted.values()],
            js=f"(photo, ...wanted) => u2net.photo(photo, {[*self._wanted]}, wanted)",
            **_ASIDE,
        )

    def _photo_column(self) -> None:
        self._photo = picture_input("Photo", "photo", 300)
        examples = [str(shipped("examples") / name) for name in _EXAMPLES]
        dataset = gr.Dataset(
            components=[self._photo], samples=[[path] for path in examples], type="index",
            label="Or one of these", elem_id="examples",
        )  # fmt: skip
        served = [str(sample[0]["path"]) for sample in dataset.samples]
        self._example = served[1]
        self._tabs.previews.pinned.update(str(Path(path).resolve()) for path in served)
        dataset.click(
            lambda number: served[number % len(served)], dataset, self._photo,
            preprocess=False, concurrency_limit=None, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        self._own_example(self._photo)

    def _cutout(self) -> None:
        wanted = self._wanted["cutout"]
        with gr.Row(elem_id="cutout-desk"):
            with gr.Column(min_width=320, scale=5):
                stage, words, file = self._result("cutout")
                with gr.Row(elem_classes="downloads"):
                    cut = gr.Button(
                        "Download cutout", variant="primary", elem_id="cutout-download", size="md"
                    )
                    mask = gr.Button("Download mask", elem_id="mask-download", size="md")
            with gr.Column(min_width=230, scale=3, elem_id="cutout-choices"):
                model = self._model("cutout-model")
                view = gr.Radio(["cutout", "mask"], value="cutout", label="Show", elem_id="cutout-view")
                look = self._look("cutout")
                with gr.Group(elem_classes="for-mask"):
                    hard = gr.Checkbox(
                        False, label="Black and white", info="Each pixel is object or background.",
                        elem_id="mask-hard",
                    )  # fmt: skip
                    threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold", elem_id="mask-threshold")
        background, colour, picture, crop, edges = look
        seen = [self._photo, model, background, picture, crop, edges]
        live = [model.input, background.input, picture.input, picture.clear, crop.input, edges.input]
        view.input(inputs=view, js="view => u2net.set('view', view)", **_ASIDE)
        # first, because Gradio starts the events of one click one after another
        background.input(inputs=background, js="chosen => u2net.set('background', chosen)", **_ASIDE)
        self._run(
            self._tabs.preview, seen, [stage, words], [wanted.change, *live],
            go_to="cutout-stage", show_on=[stage],
        )  # fmt: skip
        colour.change(inputs=colour, js="u2net.colour", **_ASIDE)
        gr.on(
            [hard.input, threshold.input, threshold.change],
            inputs=[hard, threshold], js="u2net.threshold", **_ASIDE,
        )  # fmt: skip
        # through the API a cutout can have a hard edge too, and a mask any edges
        with gr.Row(visible=False):
            cut_hard, cut_level = (
                gr.Checkbox(False, label="Hard edges"),
                gr.Slider(0, 1, 0.5, label="Threshold"),
            )
            mask_edges = gr.Radio(list(EDGES), value="soft", label="Edges")
        facts = gr.JSON(visible=False, label="Facts")
        self._offer(
            self._tabs.cutout,
            [self._photo, model, *look[:3], cut_hard, cut_level, crop, edges],
            [file, facts],
        )
        self._offer(self._tabs.mask, [self._photo, model, hard, threshold, mask_edges], [file, facts])
        self._save(
            cut,
            self._tabs.cutout,
            [self._photo, model, *look[:3], cut_hard, cut_level, crop, edges],
            file,
            words,
        )
        self._save(mask, self._tabs.mask, [self._photo, model, hard, threshold, edges], file, words)

    def _compare(self) -> None:
        wanted = self._wanted["compare"]
        with gr.Row():
            first = self._model("compare-first-model", "First model")
            second = self._model("compare-second-model", "Second model", 1)
        with gr.Row(elem_id="compare-maps"):
            maps = [
                gr.Image(
                    label=label, format="png", interactive=False, buttons=["download", "fullscreen"],
                    elem_id=elem_id, min_width=200, alt_text=label,
                )
                for label, elem_id in (
                    ("First model", "compare-first"),
                    ("Second model", "compare-second"),
                    ("Difference", "compare-difference"),
                )
            ]  # fmt: skip
        table = gr.HTML(
            theme.empty("The maps of two models, and where they differ."), elem_id="compare-table"
        )
        facts = gr.JSON(visible=False, label="Facts")
        seen, shown = [self._photo, first, second], [*maps, table]

        def compare(*args: Any) -> Any:
            *pictures, _, words = self._tabs.compare(*args) if args[0] else [None] * 5
            return *pictures, words

        self._run(compare, seen, shown, [wanted.change, first.input, second.input], go_to="compare-maps")
        self._offer(self._tabs.compare, seen, [*maps, facts])

    def _inside(self) -> None:
        wanted = self._wanted["inside"]
        gr.HTML(theme.say(
            "U²-Net is a U whose stages are Us themselves. In training, each stage of the decoder learns to "
            "predict its own map (deep supervision). Click a map to enlarge it."
        ))  # fmt: skip
        with gr.Row():
            model = self._model("inside-model")
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_id="inside-view")
        drawing = gr.HTML(
            self._tabs.anatomy(None, self._names[0]), elem_id="inside-drawing", label="Stages and maps"
        )
        maps, facts = (
            gr.Gallery(visible=False, label="Maps", format="png"),
            gr.JSON(visible=False, label="Facts"),
        )
        seen = [self._photo, model, view]
        live = [wanted.change, model.input, view.input]
        self._run(self._tabs.anatomy, seen, [drawing], live, go_to="inside-drawing")
        self._offer(self._tabs.inside, seen, [maps, facts])

    def _batch(self) -> None:
        gr.HTML(
            theme.say(
                f"Choose up to {MAX_FILES} photos. You get one zip file with results of the same names."
            )
        )
        with gr.Row():
            with gr.Column(min_width=280):
                files = gr.File(
                    label="Photos", file_count="multiple", file_types=["image", ".heic", ".heif", ".avif"],
                    height=220, elem_id="batch-files",
                )  # fmt: skip
                self._own_example(files)
                go = gr.Button("Process all", variant="primary", elem_id="batch-go")
                archive = gr.DownloadButton("Download zip", interactive=False, elem_id="batch-download")
            with gr.Column(min_width=280):
                model = self._model("batch-model")
                kind = gr.Radio(["cutout", "mask"], value="cutout", label="Make", elem_id="batch-kind")
                look = self._look("batch")
        words = gr.HTML(elem_id="batch-report")
        gallery = gr.Gallery(
            label="Results", columns=5, height="auto", object_fit="contain", interactive=False,
            buttons=["fullscreen"], elem_id="batch-gallery", elem_classes="checker",
        )  # fmt: skip
        report = gr.JSON(visible=False, label="Report")
        kind.input(inputs=kind, js="kind => u2net.set('kind', kind)", **_ASIDE)
        look[0].input(inputs=look[0], js="chosen => u2net.set('batch', chosen)", **_ASIDE)
        seen = [files, model, kind, *look]

        @functools.wraps(self._tabs.batch)
        def batch(*args: Any, **kwargs: Any) -> Any:
            written, _, pictures, said = self._tabs.batch(*args, **kwargs)
            return gr.update(value=written, interactive=True), pictures, said

        # first, because Gradio starts the events of one click one after another
        gr.on(
            [files.upload, files.clear, go.click],
            outputs=[archive, gallery, words],
            js="u2net.noBatch",
            **_ASIDE,
        )
        self._run(batch, seen, [archive, gallery, words], [go.click], show_on=[words])
        self._offer(self._tabs.batch, seen, [archive, report])

    def _your_model(self) -> None:
        gr.HTML(theme.say(
            "Load any public model of this library from the Hub, at any revision. Its files are checked "
            "against the hashes of the Hub, and no code in them is run. Then it is in the list of models of "
            "every tab."
        ))  # fmt: skip
        with gr.Row(elem_id="your-row"):
            source = gr.Textbox(
                label="Model on the Hub", placeholder="org/name or org/name@revision", max_length=250,
                elem_id="your-source", scale=4,
            )  # fmt: skip
            load = gr.Button("Load", variant="primary", elem_id="your-load", scale=1, min_width=120)
        about = gr.HTML(theme.say("No model loaded yet."), elem_id="your-about")
        use = gr.Button("Cut out with it", elem_id="your-use", visible=False)
        loaded = gr.Textbox(visible=False, label="Model in memory")
        description = gr.JSON(visible=False, label="Model facts")

        def load_model(source: str) -> Any:
            name, _, said = self._tabs.load_model(source)
            chosen = [gr.update(choices=[*self._names, name], visible=True) for _ in self._dropdowns]
            return said, gr.update(value=name), gr.update(visible=True), *chosen

        self._run(
            load_model,
            [source],
            [about, loaded, use, *self._dropdowns],
            [load.click, source.submit],
            show_on=[about],
        )
        use.click(
            inputs=[loaded, *self._wanted.values()],
            outputs=[self._dropdowns[0], *self._wanted.values()],
            js=f"(model, ...wanted) => u2net.use(model, {[*self._wanted]}, wanted)",
            **_ASIDE,
        )
        self._offer(self._tabs.load_model, [source], [loaded, description])
        with gr.Row(visible=False):
            look = self._look("try")
            png, facts = gr.DownloadButton("PNG"), gr.JSON(label="Facts")
        self._offer(self._tabs.try_model, [self._photo, loaded, *look], [png, facts])

    # Parts

    def _look(self, prefix: str) -> LookControls:
        look = look_controls(prefix)
        self._own_example(look.picture)
        return look

    def _model(self, elem_id: str, label: str = "Model", which: int = 0) -> gr.Dropdown:
        several = len(self._names) > 1
        dropdown = gr.Dropdown(
            self._names, value=self._names[which], label=label, visible=several, elem_id=elem_id
        )
        self._dropdowns.append(dropdown)
        return dropdown

    def _result(self, prefix: str) -> tuple[gr.HTML, gr.HTML, gr.DownloadButton]:
        stage = gr.HTML(self._tabs.preview(None, "")[0], elem_id=f"{prefix}-stage")
        words = gr.HTML(elem_id=f"{prefix}-words")
        return stage, words, gr.DownloadButton("PNG", visible=False)

    def _own_example(self, component: gr.Image | gr.File) -> None:
        own_example(component, lambda: f"{self._address}gradio_api/file={self._example}")

    def runs_at(self, address: str) -> None:
        """Say at which address the page runs, for the snippets of the API page."""
        host = os.environ.get("SPACE_HOST")
        self._address = f"https://{host}/" if host else address

    # Events

    def _on_tab(self, tab: gr.Tab, name: str) -> None:
        tab.select(
            inputs=[*self._wanted.values()], outputs=[*self._wanted.values()],
            js=f"(...wanted) => u2net.tab('{name}', {[*self._wanted]}, wanted)", **_ASIDE,
        )  # fmt: skip

    def _run(
        self,
        event: Callable[..., Any],
        inputs: list[Any],
        outputs: list[Any],
        triggers: Sequence[Any],
        *,
        go_to: str = "",
        show_on: list[Any] | None = None,
    ) -> None:
        """Run an event for the page.

        Gradio's own preprocessing is switched off, because it opens files before they are checked; `Tabs`
        reads them. Visitors take turns in `Tabs`, so the queue of Gradio lets all events start.

        Args:
            event: The event.
            inputs: Its inputs.
            outputs: Its outputs.
            triggers: What starts it.
            go_to: The element that a narrow screen scrolls to, if the event shows the shared photo.
            show_on: Where to show the progress; by default on all outputs.
        """
        run = gr.on(
            triggers, event, inputs, outputs,
            preprocess=False, concurrency_limit=None, trigger_mode="always_last", show_progress_on=show_on,
            api_visibility="private", api_name=f"{event.__name__}_here",
        )  # fmt: skip
        if go_to:
            # no old result stays after an error
            nothing = "() => null" if len(outputs) == 1 else f"() => Array({len(outputs)}).fill(null)"
            run.failure(outputs=outputs, js=nothing, **_ASIDE)
            self._results += outputs
            run.success(js=f"() => u2net.goTo('{go_to}')", **_ASIDE)

    def _save(
        self, button: gr.Button, event: Callable[..., Any], inputs: list[Any], file: Any, show_on: Any
    ) -> None:
        """Make a file at full size when a button is clicked, and let the browser save it."""

        def made(*args: Any) -> str:
            return str(event(*args)[0])

        button.click(
            made, inputs, file, preprocess=False, concurrency_limit=None, trigger_mode="once",
            api_visibility="private", show_progress_on=show_on,
        ).success(inputs=file, js="u2net.save", **_ASIDE)  # fmt: skip

    def _offer(self, event: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Offer an event to programs. The API returns its first results."""

        @functools.wraps(event)
        def for_programs(*args: Any, **kwargs: Any) -> Any:
            return tuple(event(*args, **kwargs))[: len(outputs)]

        described = " ".join((event.__doc__ or "").split())
        gr.Button(visible=False).click(
            for_programs, inputs, outputs, preprocess=False, concurrency_limit=None,
            api_name=event.__name__, api_description=described,
        )  # fmt: skip
