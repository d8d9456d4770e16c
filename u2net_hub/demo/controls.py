"""Groups of components that several tabs have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from .look import BACKGROUNDS

_EDGES_SAID = "sharp: clear outlines. hair: hair and fur. soft: the network's own map."


class LookControls(NamedTuple):
    """The choices for a cutout, in the order of the parameters of `Tabs`."""

    background: gr.Radio
    colour: gr.ColorPicker
    picture: gr.Image
    crop: gr.Checkbox
    edges: gr.Radio


def look_controls(prefix: str) -> LookControls:
    """Lay out the choices for a cutout. The stylesheet shows colour and picture where they are wanted."""
    with gr.Group(elem_classes="for-cutout"):
        background = gr.Radio(
            list(BACKGROUNDS), value="transparent", label="Background", elem_id=f"{prefix}-background"
        )
        colour = gr.ColorPicker(
            "#ffffff", label="Colour", elem_id=f"{prefix}-colour", elem_classes="for-colour"
        )
        with gr.Column(elem_classes="for-picture"):
            picture = picture_input("Background picture", f"{prefix}-picture", 160)
        crop = gr.Checkbox(False, label="Crop to the object", elem_id=f"{prefix}-crop")
    edges = gr.Radio(
        ["sharp", "hair", "soft"], value="sharp", label="Edges", info=_EDGES_SAID, elem_id=f"{prefix}-edges"
    )
    return LookControls(background, colour, picture, crop, edges)


def picture_input(label: str, elem_id: str, height: int) -> gr.Image:
    """Lay out an input for a picture, by upload, camera or clipboard but not by address."""
    return gr.Image(
        label=label,
        sources=["upload", "webcam", "clipboard"],
        image_mode=None,
        type="filepath",
        format="png",
        height=height,
        buttons=["fullscreen"],
        elem_id=elem_id,
        alt_text=f"Your {label.lower()}",
    )


def own_example(component: gr.Image | gr.File, address: Callable[[], str]) -> None:
    """Let the snippets of the API page name a photo of this page, not a picture elsewhere.

    Args:
        component: The input.
        address: Where the photo is, once the page runs.
    """

    def several(one: object) -> Any:
        return [one] if isinstance(component, gr.File) else one

    def payload() -> Any:
        where = address()
        file = {"path": where, "url": where, "meta": {"_type": "gradio.FileData"}, "orig_name": "chelsea.jpg"}
        return several(file)

    # of this component only
    setattr(component, "example_payload", payload)  # noqa: B010
    setattr(component, "example_value", lambda: several(address()))  # noqa: B010
