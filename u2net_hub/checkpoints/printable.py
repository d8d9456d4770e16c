"""Text from files of others, made safe for a terminal."""

from __future__ import annotations


def printable_text(text: object, longest: int = 300) -> str:
    """Make one line of printable characters, so that no terminal takes a part of a file for a command.

    Args:
        text: The text, e.g. the name of a tensor.
        longest: The number of characters to keep.
    """
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:longest].strip()
