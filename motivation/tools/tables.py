"""Figures over several runs, and tables of them as aligned text, as Markdown and as CSV. NaN is a missing figure."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MISSING = "-"


def mean(values: Iterable[float | None]) -> float:
    """Return the mean of the values that are not None; NaN if there are none.

    >>> mean([1.0, None, 3.0])
    2.0
    """
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def sample_sd(values: Sequence[float] | np.ndarray) -> float:
    """Return the sample standard deviation (n - 1); NaN of fewer than two values, or if one is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def number(value: float, digits: int = 2) -> str:
    """
    >>> number(1.005), number(-0.0), number(math.nan)
    ('1.00', '0.00', '-')
    """
    return MISSING if math.isnan(value) else f"{value + 0.0:.{digits}f}"


def plus_minus(middle: float, spread: float, digits: int = 2, sign: str = "") -> str:
    """Return a mean with its deviation or half its interval; alone where there is none, as of a single run.

    >>> plus_minus(2.0, 0.5), plus_minus(2.0, math.nan, sign="+"), plus_minus(math.nan, math.nan)
    ('2.00 ± 0.50', '+2.00', '-')
    """
    if math.isnan(middle):
        return MISSING
    text = f"{middle + 0.0:{sign}.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {number(spread, digits)}"


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
    """Return rows as CSV with the keys of the first as header; an empty cell for None and NaN."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # NaN is the one value that differs from itself
        writer.writerow({name: value if value == value else None for name, value in row.items()})
    return file.getvalue()


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
