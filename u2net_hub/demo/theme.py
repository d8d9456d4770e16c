"""The look of the demo: its theme, and the pieces of HTML that Gradio has no component for."""

from __future__ import annotations

from collections.abc import Container, Sequence
from html import escape
from importlib.resources import files

import gradio as gr

# these fonts come with Gradio, so the page loads none from another host
_SANS = (gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif")
_MONO = (gr.themes.LocalFont("IBM Plex Mono", weights=(400,)), "ui-monospace", "monospace")

_EMBER = gr.themes.Color(
    name="ember",
    c50="#fff5ed",
    c100="#ffe6d3",
    c200="#ffc9a5",
    c300="#ffa56d",
    c400="#ff7a35",
    c500="#f2590f",
    c600="#c2410c",
    c700="#a3360b",
    c800="#7c2d12",
    c900="#5a2310",
    c950="#32120a",
)


def theme() -> gr.themes.Base:
    """Make the theme: dark text on a light page with one warm accent colour; in dark mode a charcoal page."""
    return gr.themes.Base(
        primary_hue=_EMBER,
        secondary_hue=_EMBER,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="#faf8f5",
        body_background_fill_dark="#151312",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1e1b19",
        background_fill_secondary="#f4f0ea",
        background_fill_secondary_dark="#262220",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1e1b19",
        block_border_color="#e5dfd6",
        block_border_color_dark="#38322e",
        block_shadow="0 1px 2px rgb(60 40 20 / 0.05)",
        block_shadow_dark="none",
        block_label_background_fill="#ffffff",
        block_label_background_fill_dark="#1e1b19",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        input_border_width="1px",
        input_border_color="#d8d0c4",
        input_border_color_dark="#4a423c",
        input_background_fill="#ffffff",
        input_background_fill_dark="#26211e",
        border_color_primary="#e5dfd6",
        border_color_primary_dark="#38322e",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="#ffffff",
        button_border_width="1px",
        button_primary_border_color="*primary_600",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#26211e",
        button_secondary_border_color="#d8d0c4",
        button_secondary_border_color_dark="#4a423c",
        button_large_radius="*radius_md",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        loader_color="*primary_600",
        color_accent="*primary_600",
    )


CSS = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
HEAD = files(__package__).joinpath("head.html").read_text(encoding="utf-8")

_LOGO = """<svg viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-linecap="round"
aria-hidden="true">
<path d="M7 8v18a17 17 0 0 0 34 0V8" stroke-width="5"/>
<path d="M18 10v15a6 6 0 0 0 12 0V10" stroke-width="4" opacity=".55"/></svg>"""


# the threshold of a mask, which the browser applies: an 8-bit level is white from 255 × threshold on
_THRESHOLD = """<svg width="0" height="0" aria-hidden="true" style="position:absolute"><filter
id="u2net-threshold" color-interpolation-filters="sRGB"><feComponentTransfer>
<feFuncR type="linear" slope="255" intercept="-126.5"/><feFuncG type="linear" slope="255" intercept="-126.5"/>
<feFuncB type="linear" slope="255" intercept="-126.5"/></feComponentTransfer></filter></svg>"""


def masthead(chips: list[str]) -> str:
    """The head of the page, with a few short facts on its right."""
    items = "".join(f'<li class="chip">{escape(chip)}</li>' for chip in chips)
    return (
        f'<header class="masthead">{_THRESHOLD}{_LOGO}<div><h1>U²-Net</h1>'
        "<p>Finds the main object in a photo and cuts it out.</p></div>"
        f'<ul class="chips" aria-label="Models and device">{items}</ul></header>'
    )


def say(text: str) -> str:
    """A paragraph of plain text."""
    return f'<p class="say">{escape(text)}</p>'


def empty(text: str) -> str:
    """What stands where a result will be."""
    return f'<p class="empty">{escape(text)}</p>'


def verdict(found: bool, confidence: float, needed: float) -> str:
    """A sentence that says whether a salient object was found, also for screen readers."""
    if found:
        return f'<p class="verdict" role="status">Object found<span>Confidence {confidence:.2f}</span></p>'
    return (
        '<p class="verdict none" role="status">No salient object found<span>Nothing in this photo stands out '
        f"to the network: confidence {confidence:.2f}, below {needed:.2f}.</span></p>"
    )


def facts(**named: str) -> str:
    """A line of short facts, each with a name and a value."""
    items = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(value)}</dd></div>"
        for name, value in named.items()
    )
    return f'<dl class="facts">{items}</dl>'


def difference_scale(first: str, second: str) -> str:
    """The scale of the difference picture, from "only the second" to "only the first"."""
    return (
        '<div class="scale" role="img" '
        'aria-label="Scale: blue −1, black 0, orange +1">'
        f"<i></i><span>−1: only {escape(second)}</span><span>0: both agree</span>"
        f"<span>+1: only {escape(first)}</span></div>"
    )


def ledger(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    figures: Container[int] = (),
    bad: Container[int] = (),
) -> str:
    """A table in HTML.

    Args:
        head: Titles of the columns.
        rows: Text of the cells, row by row.
        figures: Indices of columns that hold numbers.
        bad: Indices of rows in the colour of warnings.
    """

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=figure' if i in figures else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(
        f"<tr{' class=bad' if i in bad else ''}>{cells(row, 'td')}</tr>" for i, row in enumerate(rows)
    )
    return f'<table class="ledger"><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table>'
