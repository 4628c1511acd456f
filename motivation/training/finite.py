"""Losses that are not finite: none passes unseen, and too many in a row end a run."""

from __future__ import annotations

import logging
import math
from collections import deque

from motivation.method.records import DeferredScalar, UpdateRecord

_logger = logging.getLogger("train")

REMEDY = "try a smaller --lr, --clip-grad 1, or --amp-dtype bfloat16 in place of float16"


class NotFiniteError(RuntimeError):
    """Too many losses in a row were not finite."""


class FiniteGuard:
    """Counts losses that are not finite.

    A step that a gradient scaler leaves out, because gradients overflowed, has a finite loss and does not count.

    Args:
        most: so many in a row are too many.
        late: how many updates later a loss is read; on a GPU it has arrived by then, so that nobody waits for it.

    Attributes:
        count: since the start of the run.
        in_a_row: up to the latest that was read.
    """

    def __init__(self, most: int = 20, late: int = 0):
        self._most, self._late = most, late
        self.count = self.in_a_row = 0
        self._unread: deque[tuple[UpdateRecord, DeferredScalar]] = deque()

    def watch(self, record: UpdateRecord) -> None:
        """Count the loss of an update.

        Raises:
            NotFiniteError: it is one too many.
        """
        self._unread.append((record, record.signals["loss"]))
        while len(self._unread) > self._late:
            self._read()

    def settle(self) -> None:
        """Read all that is unread.

        Raises:
            NotFiniteError: as `watch`.
        """
        while self._unread:
            self._read()

    def conclude(self) -> None:
        """The run is over.

        Raises:
            NotFiniteError: its last loss was not finite, so that its weights are most likely not either.
        """
        self.settle()
        if self.in_a_row:
            raise NotFiniteError(f"the last {self.in_a_row} losses of the run were not finite; {REMEDY}")

    def _read(self) -> None:
        record, loss = self._unread.popleft()
        if math.isfinite(loss.value):
            self.in_a_row = 0
            return
        self.count += 1
        self.in_a_row += 1
        where = f"epoch {record.epoch}, update {record.update} ({record.role.value} model)"
        _logger.warning(f"The loss of {where} is {loss.value}: {self.in_a_row} in a row, at most {self._most}.")
        if self.in_a_row >= self._most:
            raise NotFiniteError(
                f"{self.in_a_row} losses in a row were not finite (--max-nonfinite {self._most}), the last at {where}; "
                + REMEDY
            )
