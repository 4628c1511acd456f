"""CSV files that a run appends to, and that a resumed run cuts back to its checkpoint."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from motivation.training.hooks import RunView


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV file; a new file gets a header.

    A file with other columns is rewritten once, with the columns of both; cells that a row lacks stay empty. Only the
    header of the file is read, because ``updates.csv`` grows long.
    """
    columns = list(rows[0])
    header: list[str] = []
    if path.exists():
        with open(path, newline="") as file:
            header = next(csv.reader(file), [])
    columns += [name for name in header if name not in columns]
    if header and header != columns:
        _rewrite(path, columns)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if not header:
            writer.writeheader()
        writer.writerows(rows)


def _rewrite(path: Path, columns: list[str]) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    with open(path, newline="") as old, open(scratch, "w", newline="") as new:
        writer = csv.DictWriter(new, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(old))
    scratch.replace(path)


def keep_rows_before(path: Path, run: RunView) -> None:
    """Drop the rows of updates and epochs that a resumed run is about to repeat, or that its weights have not seen.

    A header or line that a crash has cut short is dropped too. If no row is left and the run begins with an epoch, the
    file belongs to another run in the same folder: it is renamed to ``<name>.previous``, or ``<name>.previous-2`` ...
    So is a file whose header is no CSV, or whose bytes are no text.
    """
    if not path.exists():
        return
    try:
        with open(path, newline="") as file:
            header, *lines = file.read().splitlines(keepends=True) or [""]
        columns = next(csv.reader([header]), [])
    except (csv.Error, UnicodeDecodeError):
        _set_aside(path)
        return
    if not header.endswith("\n"):
        path.unlink()
        return
    epoch, update = run.recorded_before
    start = (epoch, update if "update" in columns else 0)
    kept = [line for line in lines if line.endswith("\n") and _is_before(line, columns, start)]
    if not kept and not run.start_update:
        _set_aside(path)
        return
    scratch = path.with_name(f".{path.name}.tmp")
    with open(scratch, "w", newline="") as file:
        file.writelines([header, *kept])
    scratch.replace(path)


def _set_aside(path: Path) -> None:
    previous, numbers = path.with_name(f"{path.name}.previous"), itertools.count(2)
    while previous.exists():
        previous = path.with_name(f"{path.name}.previous-{next(numbers)}")
    path.replace(previous)


def _is_before(line: str, columns: list[str], start: tuple[int, int]) -> bool:
    try:
        row = dict(zip(columns, next(csv.reader([line]), []), strict=False))
        return (int(row["epoch"]), int(row.get("update") or 0)) < start
    except (csv.Error, KeyError, ValueError):
        return False
