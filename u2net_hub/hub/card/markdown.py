"""Escape untrusted text for Markdown."""

from __future__ import annotations

import html
import re
import shlex
import unicodedata


def format_score(key: str, value: float | None, digits: int) -> str:
    return f"{value:.{0 if key == 'hce' else digits}f}"


class _Raw(str):
    """Text that is Markdown already; all other text is escaped."""


def plain(text: str) -> str:
    """Make text one line without control characters, direction marks and marks of the card's sections."""
    shown = "".join(c if unicodedata.category(c) not in ("Cc", "Cf") else " " for c in text)
    return " ".join(shown.split()).replace("<!--", "< !--")


def escape(value: object) -> str:
    if isinstance(value, _Raw):
        return value
    text = html.escape(plain(str(value)), quote=False).replace("`", "&#96;")
    return re.sub(r"([\\*_\[\]|~$]|(?<!&)#)", r"\\\1", text)


def code(value: object) -> _Raw:
    """Format as a span of code."""
    return _Raw("`" + plain(str(value)).replace("`", "'") + "`")


def line(value: object) -> _Raw:
    """Format as a line inside a fenced block."""
    return _Raw(plain(str(value)).replace("```", "'''"))


def shell(value: object) -> _Raw:
    """Format as one word of a command inside a fenced block."""
    return line(shlex.quote(plain(str(value))))


_ROOT = r"(?:~[\w.-]*|\.\.?|[A-Za-z]:)?[/\\]"
_PATH = re.compile(
    rf"(?<=')(?P<single>{_ROOT}[^']*)(?=')"
    rf'|(?<=")(?P<double>{_ROOT}[^"]*)(?=")'
    # a path in the middle of a word is a part of an address or of a relative path
    rf"""|(?<![^\s=,;('"\[])(?P<bare>{_ROOT}(?:\\ |[^\s,;)'"\]])*)"""
)


def last_parts(text: str) -> str:
    """Replace each absolute path, and each that starts with ~, . or .., by its last part."""
    return _PATH.sub(lambda found: re.split(r"[/\\](?! )", found[0].rstrip("/\\"))[-1] or found[0], text)
