"""``summary.csv``, a line per evaluated epoch, and ``updates.csv``, a line per update."""

from __future__ import annotations

import csv
import itertools
import os
from pathlib import Path
from typing import Any

from motivation.method.records import Role
from motivation.training.checkpoint import blaming_file
from motivation.training.flops import average_flops
from motivation.training.hooks import Hook, RunView
from motivation.training.records import EpochRecord, UpdateReport

UPDATE_COLUMNS = ("epoch", "update", "active", "loss", "streak", "lr")


def keep_rows_before(path: Path, run: RunView) -> None:
    """Drop the rows of updates and epochs that a resumed run is about to do, so that it writes them once.

    A line that a crash has cut short is dropped too, be it the header; it is behind the place that is resumed. Where no
    row is left at an epoch's start, the file is that of another run in the same folder: it is put aside as
    ``<name>.previous``.
    """
    if not path.exists():
        return
    with open(path, newline="") as file:
        header, *lines = file.read().splitlines(keepends=True) or [""]
    if not header.endswith("\n"):
        path.unlink()  # a crash has cut short what was written first
        return
    columns = next(csv.reader([header]), [])
    place = (run.start_epoch, run.start_update if "update" in columns else 0)
    kept = [line for line in lines if line.endswith("\n") and _is_before(line, columns, place)]
    if not kept and not run.start_update:
        path.replace(_first_free(path.with_name(f"{path.name}.previous")))
        return
    scratch = path.with_name(f".{path.name}.tmp")
    with open(scratch, "w", newline="") as file:
        file.writelines([header, *kept])
    scratch.replace(path)


def _first_free(path: Path) -> Path:
    """This name, or with a number behind it: what was put aside before is kept."""
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _is_before(line: str, columns: list[str], place: tuple[int, int]) -> bool:
    row = dict(zip(columns, next(csv.reader([line]), []), strict=False))
    if not row.get("epoch", "").isdigit():
        return False
    return (int(row["epoch"]), int(row["update"]) if row.get("update", "").isdigit() else 0) < place


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append to a CSV file. A new one gets a header; one with other columns is rewritten with the columns of both."""
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
    """Give a file these columns; cells that it has not stay empty."""
    scratch = path.with_name(f".{path.name}.tmp")
    with open(path, newline="") as old, open(scratch, "w", newline="") as new:
        writer = csv.DictWriter(new, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(old))
    scratch.replace(path)


class UpdatesCsv(Hook):
    """Epoch, update, active model, loss in full precision, streak, learning rate.

    Losses are read in batches of ``buffer`` updates, so that the log does not make a GPU wait.
    """

    def __init__(self, path: Path, buffer: int = 100):
        self._path, self._buffer = path, buffer
        self._unwritten: list[tuple[Any, ...]] = []

    def run_start(self, run: RunView) -> None:
        with blaming_file(self._path):
            keep_rows_before(self._path, run)

    def state_dict(self) -> dict[str, Any]:
        """Nothing; but a checkpoint must not be ahead of the file, also not after the machine has crashed."""
        self._write()
        if self._path.exists():
            with blaming_file(self._path), open(self._path, "rb") as file:
                os.fsync(file.fileno())
        return {}

    def update_end(self, record: UpdateReport) -> None:
        streak = "" if record.streak is None else record.streak
        row = (record.epoch, record.update, record.role.value, record.outcome.loss, streak, repr(record.lr))
        self._unwritten.append(row)
        if len(self._unwritten) >= self._buffer:
            self._write()

    def epoch_end(self, record: EpochRecord) -> None:
        self._write()

    def run_end(self) -> None:
        self._write()

    def _write(self) -> None:
        rows = [(*row[:3], repr(row[3].value), *row[4:]) for row in self._unwritten]
        self._unwritten.clear()
        if rows:
            with blaming_file(self._path):
                append_rows(self._path, [dict(zip(UPDATE_COLUMNS, row, strict=True)) for row in rows])


def summary_row(record: EpochRecord, flops: dict[Role, float] | None) -> dict[str, Any]:
    """timm's columns; with the two models' FLOPs those of a motivated run behind them."""
    row: dict[str, Any] = {"epoch": record.epoch, "train_loss": record.train_loss}
    row.update({f"eval_{name}": value for name, value in (record.base or {}).items()})
    row["lr"] = record.lr
    if flops is not None:
        for name in ("loss", "top1", "top5"):
            row[f"motivated_eval_{name}"] = record.motivated[name] if record.motivated else ""
        row["base_updates"] = record.counts.updates[Role.BASE]
        row["motivated_updates"] = record.counts.updates[Role.MOTIVATED]
        row["switches"] = record.counts.switches
        row["average_flops"] = average_flops(record.counts, flops[Role.BASE], flops[Role.MOTIVATED])
        row["seconds"] = round(record.elapsed_s, 3)
    return row


class SummaryCsv(Hook):
    """One row per evaluated epoch.

    Args:
        path: the file; rows of epochs before the run's first are kept.
        flops: forward FLOPs of both models in a motivated run, None in a plain one.
    """

    def __init__(self, path: Path, flops: dict[Role, float] | None = None):
        self._path, self._flops = path, flops

    def run_start(self, run: RunView) -> None:
        with blaming_file(self._path):
            keep_rows_before(self._path, run)

    def epoch_end(self, record: EpochRecord) -> None:
        with blaming_file(self._path):
            append_rows(self._path, [summary_row(record, self._flops)])
