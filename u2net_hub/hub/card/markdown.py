"""Text from elsewhere, escaped for Markdown."""

from __future__ import annotations

import html
import re
import unicodedata


def format_score(key: str, value: float | None, digits: int) -> str:
    return f"{value:.{0 if key == 'hce' else digits}f}"


# Text in Markdown: whatever comes from a config or a results.json is escaped unless it is _Raw


class _Raw(str):
    """Text that is Markdown already."""


def plain(text: str) -> str:
    """One line, without control characters, those that turn the direction of text, and our marks."""
    shown = "".join(c if unicodedata.category(c) not in ("Cc", "Cf") else " " for c in text)
    return " ".join(shown.split()).replace("<!--", "< !--")


def escape(value: object) -> str:
    if isinstance(value, _Raw):
        return value
    text = html.escape(plain(str(value)), quote=False).replace("`", "&#96;")
    return re.sub(r"([\\*_\[\]|~$]|(?<!&)#)", r"\\\1", text)


def code(value: object) -> _Raw:
    """A span of code."""
    return _Raw("`" + plain(str(value)).replace("`", "'") + "`")


def line(value: object) -> _Raw:
    """A line inside a fenced block."""
    return _Raw(plain(str(value)).replace("```", "'''"))
