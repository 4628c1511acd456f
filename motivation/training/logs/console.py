"""Log lines in timm's form, with the active model and the share so far; a progress bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from timm.utils import AverageMeter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from motivation.method.records import DeferredScalar, Role
from motivation.training.hooks import Hook, RunView
from motivation.training.records import EpochRecord, UpdateReport

_logger = logging.getLogger("train")


class ConsoleLog(Hook):
    """A line every ``interval`` updates and at an epoch's end.

    Args:
        interval: updates between two lines.
        images_to: folder for the images of the last micro-batch at each line, or None.
    """

    def __init__(self, interval: int = 50, images_to: Path | None = None):
        self._interval, self._images_to = max(1, interval), images_to
        self._updates = self._motivated_updates = 0
        self._motivated_run = False

    def run_start(self, run: RunView) -> None:
        self._per_epoch, self._motivated_run = run.updates_per_epoch, run.motivated

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "motivated_updates": self._motivated_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates, self._motivated_updates = state["updates"], state["motivated_updates"]

    def epoch_start(self, epoch: int) -> None:
        self._loss, self._time, self._data = AverageMeter(), AverageMeter(), AverageMeter()
        self._unread: list[tuple[DeferredScalar, int]] = []
        self._since = time.time()

    def update_end(self, record: UpdateReport) -> None:
        self._updates += 1
        self._motivated_updates += record.role is Role.MOTIVATED
        self._unread.append((record.outcome.loss, record.outcome.images))
        now = time.time()
        self._time.update(now - self._since)
        self._since = now
        self._data.update(record.outcome.data_time_s)
        if record.update % self._interval == 0 or record.update == self._per_epoch - 1:
            self._line(record)

    def _line(self, record: UpdateReport) -> None:
        for loss, images in self._unread:
            self._loss.update(loss.value, images)
        self._unread.clear()
        images, done = record.outcome.images, record.update + 1
        parts = [
            f"Train: {record.epoch} [{record.update:>4d}/{self._per_epoch} ({100 * done / self._per_epoch:>3.0f}%)]",
            f"Loss: {self._loss.val:#.3g} ({self._loss.avg:#.3g})",
            f"Time: {self._time.val:.3f}s, {images / max(self._time.val, 1e-9):>7.2f}/s",
            f"({self._time.avg:.3f}s, {images / max(self._time.avg, 1e-9):>7.2f}/s)",
            f"LR: {record.lr:.3e}",
            f"Data: {self._data.val:.3f} ({self._data.avg:.3f})",
        ]
        if self._motivated_run:
            parts.append(f"Active: {record.role.value} (share {self._motivated_updates / self._updates:.4f})")
        _logger.info("  ".join(parts))
        if self._images_to is not None:
            batch = record.outcome.last_batch
            _save_images(batch.images, self._images_to / f"train-batch-{batch.index}.jpg")


def _save_images(images: Any, path: Path) -> None:
    from torchvision.utils import save_image

    save_image(images, path, padding=0, normalize=True)


class ProgressBar(Hook):
    """One bar per epoch; made only where the standard error stream is a terminal.

    Args:
        file: where to draw it; default that stream.
    """

    def __init__(self, file: TextIO | None = None):
        self._file = file

    def run_start(self, run: RunView) -> None:
        self._run = run
        self._bar: Any = None

    def epoch_start(self, epoch: int) -> None:
        self._close()
        title = f"epoch {epoch + 1}/{self._run.epochs}"
        total = self._run.updates_per_epoch
        self._bar = tqdm(total=total, desc=title, unit="update", leave=False, file=self._file)

    def update_end(self, record: UpdateReport) -> None:
        self._bar.update()
        if self._run.motivated and self._bar.n % 10 == 0:
            self._bar.set_postfix_str(record.role.value, refresh=False)

    def epoch_end(self, record: EpochRecord) -> None:
        self._close()

    def run_end(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def on_terminal() -> bool:
    """Whether a person watches."""
    return sys.stderr.isatty()


@contextmanager
def tidy_terminal() -> Iterator[None]:
    """Let log lines and a progress bar share the terminal."""
    if not on_terminal():
        yield
        return
    with logging_redirect_tqdm(loggers=[logging.getLogger()]):
        yield
