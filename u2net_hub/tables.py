"""Print tables as aligned text or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int = 0) -> list[str]:
    """Make the lines of a table for a terminal.

    Args:
        head: The names of the columns.
        rows: The cells of each row, one for each column.
        width: The least width of all columns but the first, in characters.

    Returns:
        The lines, all of one length. The first column is aligned to the left, the others to the right.
    """
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[1:] = [max(width, 2 + each) for each in widths[1:]]
    return ["".join([_padded(row[:1], widths[:1], "<"), _padded(row[1:], widths[1:], ">")]) for row in table]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = False) -> list[str]:
    """Make the lines of a table in Markdown.

    Args:
        head: The names of the columns.
        rows: The cells of each row, one for each column. A "|" in a cell is escaped.
        aligned: Pad the cells, so that the source of the table is easy to read too.
    """
    table = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns] if aligned else [0] * len(columns)
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    lines.insert(1, ["-" * (width or 3) for width in widths])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _padded(cells: Sequence[str], widths: Sequence[int], side: str) -> str:
    return "".join(f"{cell:{side}{width}}" for cell, width in zip(cells, widths, strict=True))
