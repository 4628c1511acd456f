"""The hooks that log a run: console, progress bar, ``updates.csv``, ``summary.csv``, Weights & Biases, TensorBoard."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from timm.utils import AverageMeter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from motivation.method.records import Role
from motivation.training.checkpoint import blaming_file
from motivation.training.csv_files import append_rows, keep_rows_before
from motivation.training.hooks import Hook, RunView
from motivation.training.losses import LossMeter
from motivation.training.records import EpochRecord, UpdateReport

_logger = logging.getLogger("train")

Flops = dict[Role, float]
"""Forward FLOPs of one image, of both models."""


class ConsoleLog(Hook):
    """Log a line in timm's form every ``interval`` updates and at an epoch's end.

    Args:
        interval: updates between two lines.
        images_to: folder for the images of the last micro-batch at each line, or None.
    """

    def __init__(self, interval: int = 50, images_to: Path | None = None):
        self._interval, self._images_to = interval, images_to

    def run_start(self, run: RunView) -> None:
        self._run = run

    def epoch_start(self, epoch: int) -> None:
        self._losses, self._time_s, self._data_time_s = LossMeter(), AverageMeter(), AverageMeter()
        self._since = time.time()

    def update_end(self, record: UpdateReport) -> None:
        self._losses.add(record.outcome.loss, record.outcome.images)
        now = time.time()
        self._time_s.update(now - self._since)
        self._since = now
        self._data_time_s.update(record.outcome.data_time_s)
        if record.update % self._interval == 0 or record.update == self._run.updates_per_epoch - 1:
            self._log_line(record)

    def _log_line(self, record: UpdateReport) -> None:
        images, total = record.outcome.images, self._run.updates_per_epoch
        loss, time_s, data_time_s = self._losses.read(), self._time_s, self._data_time_s
        parts = [
            f"Train: {record.epoch} [{record.update:>4d}/{total} ({100 * (record.update + 1) / total:>3.0f}%)]",
            f"Loss: {loss.val:#.3g} ({loss.avg:#.3g})",
            f"Time: {time_s.val:.3f}s, {images / max(time_s.val, 1e-9):>7.2f}/s",
            f"({time_s.avg:.3f}s, {images / max(time_s.avg, 1e-9):>7.2f}/s)",
            f"LR: {record.lr:.3e}",
            f"Data: {data_time_s.val:.3f} ({data_time_s.avg:.3f})",
        ]
        if self._run.motivated:
            parts.append(f"Active: {record.role.value} (share {record.run_counts.share:.4f})")
        _logger.info("  ".join(parts))
        if self._images_to is not None:
            from torchvision.utils import save_image

            batch = record.outcome.last_batch
            path = self._images_to / f"train-batch-{batch.index}.jpg"
            save_image(batch.images, path, padding=0, normalize=True)


class ProgressBar(Hook):
    """Draw one bar per epoch, below the log lines; used only where the standard error stream is a terminal.

    Args:
        file: where to draw it; default that stream.
    """

    def __init__(self, file: TextIO | None = None):
        self._file = file
        self._bar: Any = None
        self._redirected_logs = ExitStack()

    def run_start(self, run: RunView) -> None:
        self._run = run
        self._redirected_logs.enter_context(logging_redirect_tqdm(loggers=[logging.getLogger()]))

    def epoch_start(self, epoch: int) -> None:
        self._close()
        title, total = f"epoch {epoch + 1}/{self._run.epochs}", self._run.updates_per_epoch
        self._bar = tqdm(total=total, desc=title, unit="update", leave=False, file=self._file)

    def update_end(self, record: UpdateReport) -> None:
        self._bar.update()
        if self._run.motivated and self._bar.n % 10 == 0:
            self._bar.set_postfix_str(record.role.value, refresh=False)

    def epoch_end(self, record: EpochRecord) -> None:
        self._close()

    def run_end(self) -> None:
        self._close()
        self._redirected_logs.close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def on_terminal() -> bool:
    """Return True if the standard error stream is a terminal."""
    return sys.stderr.isatty()


class UpdatesCsv(Hook):
    """Write a row per update: epoch, update, active model, loss in full precision, streak, learning rate.

    Losses are read in batches of ``buffer`` updates, so that the log does not make a GPU wait.
    """

    def __init__(self, path: Path, buffer: int = 100):
        self._path, self._buffer = path, buffer
        self._unwritten: list[dict[str, Any]] = []

    def run_start(self, run: RunView) -> None:
        with blaming_file(self._path):
            keep_rows_before(self._path, run)

    def state_dict(self) -> dict[str, Any]:
        """Remember nothing, but flush: a checkpoint must not be ahead of the file, even after a crash."""
        self._write()
        if self._path.exists():
            with blaming_file(self._path), open(self._path, "rb") as file:
                os.fsync(file.fileno())
        return {}

    def update_end(self, record: UpdateReport) -> None:
        self._unwritten.append(
            {
                "epoch": record.epoch,
                "update": record.update,
                "active": record.role.value,
                "loss": record.outcome.loss,
                "streak": "" if record.streak is None else record.streak,
                "lr": repr(record.lr),
            }
        )
        if len(self._unwritten) >= self._buffer:
            self._write()

    def epoch_end(self, record: EpochRecord) -> None:
        self._write()

    def run_end(self) -> None:
        self._write()

    def _write(self) -> None:
        rows = [{**row, "loss": repr(row["loss"].value)} for row in self._unwritten]
        self._unwritten.clear()
        if rows:
            with blaming_file(self._path):
                append_rows(self._path, rows)


class SummaryCsv(Hook):
    """Write a row per evaluated epoch.

    Args:
        path: the file; rows of epochs before the run's first are kept.
        flops: forward FLOPs of both models in a motivated run, None in a plain one.
    """

    def __init__(self, path: Path, flops: Flops | None = None):
        self._path, self._flops = path, flops

    def run_start(self, run: RunView) -> None:
        with blaming_file(self._path):
            keep_rows_before(self._path, run)

    def epoch_end(self, record: EpochRecord) -> None:
        with blaming_file(self._path):
            append_rows(self._path, [summary_row(record, self._flops)])


def summary_row(record: EpochRecord, flops: Flops | None) -> dict[str, Any]:
    """Return timm's columns of an epoch, followed by ours in a motivated run."""
    row: dict[str, Any] = {"epoch": record.epoch, "train_loss": record.train_loss}
    row |= {f"eval_{name}": value for name, value in (record.base or {}).items()}
    row["lr"] = record.lr
    if flops is not None:
        for name in ("loss", "top1", "top5"):
            row[f"motivated_eval_{name}"] = record.motivated[name] if record.motivated else ""
        row |= {
            "base_updates": record.counts.updates[Role.BASE],
            "motivated_updates": record.counts.updates[Role.MOTIVATED],
            "switches": record.counts.switches,
            "average_flops": record.counts.average_flops,
            "seconds": round(record.elapsed_s, 3),
        }
    return row


class WandbLog(Hook):
    """Log the columns of ``summary.csv``, as timm does, with the shares of the epoch and of the run so far.

    Args:
        run: an open run of wandb's.
        flops: forward FLOPs of both models; None in a plain run.
    """

    def __init__(self, run: Any, flops: Flops | None = None):
        self._run, self._flops = run, flops

    def epoch_end(self, record: EpochRecord) -> None:
        row = {name: value for name, value in summary_row(record, self._flops).items() if value != ""}
        if self._flops is not None:
            row |= {"share": record.counts.share, "run_share": record.run_counts.share}
            row["run_average_flops"] = record.run_counts.average_flops
        self._run.log(row)

    def run_end(self) -> None:
        self._run.finish()


class TensorboardLog(Hook):
    """Write scalars over updates: every ``interval`` updates loss and active model, every epoch the rest.

    Args:
        folder: for the event files.
        flops: forward FLOPs of both models; None in a plain run.
        interval: updates between two values of the training loss.
    """

    def __init__(self, folder: Path, flops: Flops | None = None, interval: int = 50):
        self._folder, self._flops, self._interval = folder, flops, interval
        self._writer: Any = None

    def run_start(self, run: RunView) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._updates_per_epoch = run.updates_per_epoch
        epoch, update = run.recorded_before
        hidden_from = epoch * run.updates_per_epoch + update + 1
        self._writer = SummaryWriter(str(self._folder), purge_step=hidden_from)

    def update_end(self, record: UpdateReport) -> None:
        if record.update % self._interval:
            return
        self._write({"update/loss": record.loss, "update/lr": record.lr}, record.step)
        if self._flops is not None:
            self._write({"update/motivated": float(record.role is Role.MOTIVATED)}, record.step)

    def epoch_end(self, record: EpochRecord) -> None:
        self._write(epoch_scalars(record, self._flops), (record.epoch + 1) * self._updates_per_epoch)
        self._writer.flush()

    def run_end(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)


def epoch_scalars(record: EpochRecord, flops: Flops | None) -> dict[str, float]:
    """Return an epoch's numbers by their names in TensorBoard."""
    scalars = {"train/loss": record.train_loss, "train/lr": record.lr, "train/seconds": record.elapsed_s}
    for role, metrics in ((Role.BASE, record.base), (Role.MOTIVATED, record.motivated)):
        scalars |= {f"{role.value}/{name}": value for name, value in (metrics or {}).items()}
    if flops is not None:
        scalars["motivation/share"] = record.counts.share
        scalars["motivation/run_share"] = record.run_counts.share
        scalars["motivation/switches"] = record.counts.switches
        scalars["motivation/average_flops"] = record.counts.average_flops
        scalars["motivation/run_average_flops"] = record.run_counts.average_flops
    return scalars
