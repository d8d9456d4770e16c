"""The tab Inside: the network drawn as a U of Us, with the map of each stage beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from .preview import data_address

if TYPE_CHECKING:
    from PIL import Image

    from ..config import Stage, U2NetConfig
    from .models import Model

# what changes from the coarsest map to the finest one
_CHANGES = (
    "Few cells, so it only says roughly where something stands out.",
    "The same place, and the first hint of a size.",
    "The rough shape of the object appears.",
    "Parts of the object come apart from each other.",
    "The outline follows the object.",
    "The finest edges, and with them the most noise.",
)
_FUSED = "A 1 × 1 convolution weighs all maps: the place from the coarse ones, the edges from the fine ones."


class StageFacts(NamedTuple):
    """What the drawing says about a stage."""

    name: str
    """The name in the paper: En_1 …, De_1 …"""
    block: str
    """The kind of its residual U-block, such as RSU-7."""
    size: tuple[int, int]
    """The (height, width) of its output in pixels."""
    receptive_field: int
    """Pixels of the input, in width or height, that can change one value of the encoder's output here."""
    parameters: int


def stage_facts(config: U2NetConfig, parameters: Sequence[int]) -> list[StageFacts]:
    """Describe the stages of a network, encoder first, then the decoder from the bottom up.

    Args:
        config: The config of the network.
        parameters: The parameters of each stage, in the order of the table.
    """
    table = config.table
    depth = (len(table) + 1) // 2
    fields = receptive_fields(table[:depth])
    facts = []
    for i, (stage, count) in enumerate(zip(table, parameters, strict=True)):
        level = i if i < depth else len(table) - 1 - i
        height, width = config.input_size
        for _ in range(level):  # max_pool2d(2, 2, ceil_mode=True) in the official code
            height, width = -(-height // 2), -(-width // 2)
        facts.append(
            StageFacts(
                f"{'En' if i < depth else 'De'}_{level + 1}",
                f"RSU-{stage.L}{'F' if stage.dilated else ''}",
                (height, width),
                fields[level],
                count,
            )
        )
    return facts


def receptive_fields(encoder: Sequence[Stage]) -> list[int]:
    """Compute the theoretical receptive field of each encoder stage along the longest path, in input pixels.

    A 3 × 3 convolution with dilation d adds 2d, a pooling of two adds 1, and a bilinear upsampling adds 1,
    each times the distance of neighbouring values at that place.
    """
    field, step, found = 1, 1, []
    for i, stage in enumerate(encoder):
        if i:
            field, step = field + step, step * 2
        field += _inside(stage) * step
        found.append(field)
    return found


def _inside(stage: Stage) -> int:
    """What a residual U-block adds to the receptive field, in its own pixels."""
    dilations = [1 << i for i in range(stage.L)]
    if stage.dilated:
        return 2 + 2 * sum(dilations) + 2 * sum(dilations[:-1])
    steps = dilations[:-1]  # the bottom convolution has dilation 2 instead of a pooling
    convolutions = 2 + 2 * sum(steps) + 4 * steps[-1] + 2 * sum(steps)
    return convolutions + sum(steps[:-1]) + sum(steps[1:])


def draw_anatomy(model: Model, pictures: Sequence[Image.Image]) -> str:
    """Draw the stages of a model as HTML, each decoder stage beside its map.

    Args:
        model: The model.
        pictures: The pictures of the maps, from coarse to fine, then the fused one; none before a photo is
            chosen.
    """
    facts = stage_facts(model.pipeline.config, model.stage_parameters)
    depth = (len(facts) + 1) // 2
    maps = dict(zip(range(depth - 1, -1, -1), pictures, strict=False)) if len(pictures) > 1 else {}
    rows = []
    for level in range(depth):
        boxes = _box(facts[level])
        if level < depth - 1:
            boxes += _box(facts[len(facts) - 1 - level])
        change = _CHANGES[round((1 - level / max(1, depth - 1)) * (len(_CHANGES) - 1))]
        side = _map(f"Side {level + 1}", change, maps.get(level))
        rows.append(
            f'<div class="level" style="--level:{level}"><div class="blocks">{boxes}</div>{side}</div>'
        )
    fused = _map("Fused", _FUSED, pictures[-1] if pictures else None)
    zoom = (
        '<label class="zoom">Zoom of all maps '
        '<input type="range" min="1" max="8" step="0.5" value="1"></label>'
        if pictures
        else ""
    )
    return f'<div class="anatomy">{zoom}<div class="level fused">{fused}</div>{"".join(rows)}</div>'


def _box(facts: StageFacts) -> str:
    height, width = facts.size
    field = f"receptive field {facts.receptive_field:,} px" if facts.name.startswith("En") else ""
    return (
        f'<div class="rsu"><span><b>{escape(facts.name)}</b> {escape(facts.block)}</span>'
        f"<small>{width} × {height} px"
        f"<br>{facts.parameters:,} parameters<br>{field}</small></div>"
    )


def _map(name: str, change: str, picture: Image.Image | None) -> str:
    image = ""
    if picture is not None:
        small = picture.copy()
        small.thumbnail((480, 480))
        image = (
            f'<button type="button" class="map" aria-label="Enlarge {escape(name)}">'
            f'<img alt="{escape(name)}" '
            f'src="{data_address(small.convert("RGB"), "JPEG", quality=85)}"></button>'
        )
    return f"<figure>{image}<figcaption><b>{escape(name)}</b> {escape(change)}</figcaption></figure>"
