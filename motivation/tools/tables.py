"""Tables as aligned text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text, the first column to the left, the others to the right.

    >>> print(text_table([["model", "top-1"], ["resnet20", "92.6"]]))
    model     top-1
    resnet20   92.6
    """
    widths = _widths(rows)
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a header and rows as a Markdown table that can be read as text, too.

    Args:
        rows: the header first.
        left: how many columns stand to the left; the others stand to the right.

    >>> print(markdown_table([["model", "top-1"], ["resnet20", "92.6"]]))
    | model    | top-1 |
    |----------|------:|
    | resnet20 |  92.6 |
    """
    rows = [[cell.replace("|", "\\|").replace("*", "\\*") for cell in row] for row in rows]
    widths = _widths(rows)
    lines = [[*map(str.ljust, row[:left], widths), *map(str.rjust, row[left:], widths[left:])] for row in rows]
    header, *body = ["| " + " | ".join(line) + " |" for line in lines]
    rule = ["-" * (width + 2) if column < left else "-" * (width + 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([header, "|" + "|".join(rule) + "|", *body])


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with the keys of the first as header; an empty cell for None."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
