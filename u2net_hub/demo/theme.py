"""How the demo looks: colours, type and the few lines of HTML and CSS that Gradio does not bring."""

from __future__ import annotations

from collections.abc import Container, Sequence
from html import escape

import gradio as gr

# Fonts that come with Gradio, so that the page asks no other host for them
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
    """Paper and ink with one warm accent; by night the same on charcoal."""
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


# Gradio puts its container before the first selector of a rule under .dark alone: one selector in each
CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important; }
.gradio-container > .main { padding: 14px clamp(14px, 3vw, 32px) 0 !important; }
.html-container { padding: 0 !important; }
footer .divider { display: none; }
.masthead { display: flex; align-items: center; gap: 14px; flex-wrap: wrap; padding: 10px 2px 2px; }
.masthead svg { width: 46px; height: 46px; flex: none; }
.masthead path { color: var(--primary-600) !important; }
.dark .masthead path { color: var(--primary-400) !important; }
.masthead h1 { font-size: 1.75rem; line-height: 1.1; font-weight: 700; letter-spacing: -0.01em; margin: 0;
  color: var(--body-text-color); }
.masthead p { margin: 2px 0 0; color: var(--body-text-color-subdued); }
.chips { display: flex; gap: 6px; flex-wrap: wrap; margin-left: auto; padding: 0; list-style: none; }
.chip { font: 0.8rem var(--font-mono); padding: 3px 10px; border-radius: 999px; margin: 0;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-secondary);
  color: var(--body-text-color); white-space: nowrap; }
.say { color: var(--body-text-color); line-height: 1.5; max-width: 72ch; margin: 4px 2px; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 8px 2px;
  color: var(--body-text-color); }
.facts div { display: flex; gap: 6px; align-items: baseline; }
.facts dt { color: var(--body-text-color-subdued); font-size: 0.85rem; }
.facts dd { margin: 0; font-family: var(--font-mono); font-size: 0.9rem; }
.verdict { margin: 0; padding: 10px 12px; border-radius: var(--radius-md); font-weight: 700;
  border-left: 4px solid var(--neutral-400); background: var(--background-fill-secondary);
  color: var(--body-text-color); }
.verdict.none { border-left-color: var(--primary-600); }
.verdict span { display: block; font-weight: 400; color: var(--body-text-color-subdued); }
table.ledger tr { border: 0 !important; }
.gallery-container .grid-wrap {
  height: auto !important; min-height: 0 !important; max-height: none !important; }
.gallery-container .grid-container { padding-top: 26px;
  grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)) !important; align-items: start; }
#inside-maps .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
.gallery-container .thumbnail-item { aspect-ratio: auto !important; height: auto !important; }
.gallery-container .thumbnail-item img { width: 100% !important; height: auto !important; }
.dark button[role="tab"][aria-selected="true"] { color: var(--primary-400) !important; }
table.ledger { width: 100%; border-collapse: collapse; font-size: 0.92rem; color: var(--body-text-color);
  border: 0 !important; margin: 0; }
table.ledger th, table.ledger td { text-align: left; padding: 7px 10px; overflow-wrap: break-word;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
table.ledger td.figure { text-align: right; font-family: var(--font-mono); white-space: nowrap; }
table.ledger th.figure { text-align: right; }
table.ledger thead th { color: var(--body-text-color-subdued); font-weight: 700; font-size: 0.82rem; }
table.ledger .bad td { color: #b3261e !important; }
.dark table.ledger .bad td { color: #ff9d94 !important; }
.checker img.fixed, .checker .thumbnail-item {
  background: repeating-conic-gradient(#e9e4dc 0 25%, #fbf9f6 0 50%) 0 0 / 20px 20px !important; }
.dark .checker img.fixed {
  background: repeating-conic-gradient(#332d29 0 25%, #24201d 0 50%) 0 0 / 20px 20px !important; }
.dark .checker .thumbnail-item {
  background: repeating-conic-gradient(#332d29 0 25%, #24201d 0 50%) 0 0 / 20px 20px !important; }
.gallery-item .container.gallery { width: 64px !important; height: 64px !important; }
.credit { font-size: 0.82rem; color: var(--body-text-color-subdued); margin: 0 2px; }
:focus-visible { outline: 2px solid var(--primary-500) !important; outline-offset: 2px; }
@media (max-width: 640px) {
  .tab-container button { padding: 0 8px !important; }
  .chips { margin-left: 0; width: 100%; }
  .masthead > div { flex: 1; }
  .masthead h1 { font-size: 1.4rem; }
  .gallery-container .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  #inside-maps .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  table.ledger th, table.ledger td { padding: 6px 4px; }
}
@media (prefers-reduced-motion: reduce) {
  * { animation-duration: 0.01ms !important; transition: none !important; }
}
"""

# Gradio gives the thumbnails of examples and the two halves of the slider no words for screen readers
HEAD = """<script>
new MutationObserver(() => {
  for (const img of document.querySelectorAll('.gallery-item img[alt=""]'))
    img.alt = "Example: " + decodeURIComponent(img.src).split("/").pop().split(".")[0];
  for (const img of document.querySelectorAll('[data-testid="imageslider-image"][alt=""]'))
    img.alt = img.classList.contains("fixed") ? "After" : "Before";
}).observe(document, {childList: true, subtree: true});
</script>"""

_LOGO = """<svg viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-linecap="round"
aria-hidden="true">
<path d="M7 8v18a17 17 0 0 0 34 0V8" stroke-width="5"/>
<path d="M18 10v15a6 6 0 0 0 12 0V10" stroke-width="4" opacity=".55"/></svg>"""


def masthead(chips: list[str]) -> str:
    """The head of the page, with a few facts on its right."""
    items = "".join(f'<li class="chip">{escape(chip)}</li>' for chip in chips)
    return (
        f'<header class="masthead">{_LOGO}<div><h1>U²-Net</h1>'
        "<p>Finds what stands out in a photo, and cuts it out.</p></div>"
        f'<ul class="chips" aria-label="Models and device">{items}</ul></header>'
    )


def say(text: str) -> str:
    """A paragraph of plain text."""
    return f'<p class="say">{escape(text)}</p>'


def verdict(found: bool, confidence: float, needed: float) -> str:
    """Whether there is a salient object, in plain words, for eyes and screen readers."""
    if found:
        return f'<p class="verdict" role="status">Object found<span>Confidence {confidence:.2f}</span></p>'
    return (
        '<p class="verdict none" role="status">No salient object found<span>Nothing in this photo stands out '
        f"to the network: confidence {confidence:.2f}, below {needed:.2f}.</span></p>"
    )


def facts(**named: str) -> str:
    """A line of short facts: name and value."""
    items = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(value)}</dd></div>"
        for name, value in named.items()
    )
    return f'<dl class="facts">{items}</dl>'


def ledger(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    figures: Container[int] = (),
    bad: Container[int] = (),
) -> str:
    """A table; `figures` are the columns of numbers, `bad` the rows in the colour of warnings."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=figure' if i in figures else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(
        f"<tr{' class=bad' if i in bad else ''}>{cells(row, 'td')}</tr>" for i, row in enumerate(rows)
    )
    return f'<table class="ledger"><thead><tr>{cells(head, "th")}</tr></thead><tbody>{body}</tbody></table>'
