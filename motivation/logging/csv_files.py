"""``summary.csv``, a line per evaluated epoch, and ``updates.csv``, a line per update."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from motivation.cost import average_flops
from motivation.hooks import Hook, RunView
from motivation.records import EpochRecord, Role, UpdateReport

UPDATE_COLUMNS = ("epoch", "update", "active", "loss", "streak", "lr")


def keep_epochs_before(path: Path, epoch: int) -> None:
    """Drop the rows from ``epoch`` on, so that a resumed run writes them once.

    Where no row is left, the file is that of another run in the same folder: it is put aside as ``<name>.previous``.
    """
    if not path.exists():
        return
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) < epoch]
    if not kept:
        path.replace(path.with_name(f"{path.name}.previous"))
        return
    scratch = path.with_name(f".{path.name}.tmp")
    with open(scratch, "w", newline="") as file:
        csv.writer(file).writerows([rows[0], *kept])
    scratch.replace(path)


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append to a CSV file. A new one gets a header; one with other columns is rewritten with the columns of both."""
    columns = list(rows[0])
    if path.exists() and path.stat().st_size:
        with open(path, newline="") as file:
            old = list(csv.reader(file))
        if old[0] != columns:
            columns = [*columns, *(name for name in old[0] if name not in columns)]
            scratch = path.with_name(f".{path.name}.tmp")
            with open(scratch, "w", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(dict(zip(old[0], row, strict=False)) for row in old[1:])
            scratch.replace(path)
    new = not path.exists() or path.stat().st_size == 0
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if new:
            writer.writeheader()
        writer.writerows(rows)


class UpdatesCsv(Hook):
    """Epoch, update, active model, loss in full precision, streak, learning rate.

    Losses are read in batches of ``buffer`` updates, so that the log does not make a GPU wait.
    """

    def __init__(self, path: Path, buffer: int = 100):
        self._path, self._buffer = path, buffer
        self._unwritten: list[tuple[Any, ...]] = []

    def run_start(self, run: RunView) -> None:
        keep_epochs_before(self._path, run.start_epoch)

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
        keep_epochs_before(self._path, run.start_epoch)

    def epoch_end(self, record: EpochRecord) -> None:
        append_rows(self._path, [summary_row(record, self._flops)])
