"""Watch for losses that are not finite: each is reported, and too many in a row end the run."""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Any

from motivation.method.records import DeferredScalar, UpdateRecord

_logger = logging.getLogger("train")

REMEDY = "try a smaller --lr, --clip-grad 1, or --amp-dtype bfloat16 in place of float16"


class NotFiniteError(RuntimeError):
    """Too many losses in a row were not finite."""


class NonFiniteLossGuard:
    """Count losses that are not finite.

    If gradients overflow, the gradient scaler skips the step; the loss is finite then, and does not count.

    Args:
        limit: so many in a row end the run.
        delay: number of updates after which a loss is read; on a GPU it has arrived by then, so that nothing waits.

    Attributes:
        count: since the start of the run.
        in_a_row: up to the latest loss that was read.
    """

    def __init__(self, limit: int = 20, delay: int = 0):
        self._limit, self._delay = limit, delay
        self.count = self.in_a_row = 0
        self._unread: deque[tuple[UpdateRecord, DeferredScalar]] = deque()

    def watch(self, record: UpdateRecord) -> None:
        """Count the loss of an update.

        Raises:
            NotFiniteError: the limit is reached.
        """
        self._unread.append((record, record.signals["loss"]))
        while len(self._unread) > self._delay:
            self._read()

    def flush(self) -> None:
        """Read all losses that are not read yet.

        Raises:
            NotFiniteError: as `watch`.
        """
        while self._unread:
            self._read()

    def finish(self) -> None:
        """End the run.

        Raises:
            NotFiniteError: its last loss was not finite, so most likely its weights are not finite either.
        """
        self.flush()
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
        _logger.warning(f"The loss of {where} is {loss.value}: {self.in_a_row} in a row, at most {self._limit}.")
        if self.in_a_row >= self._limit:
            raise NotFiniteError(
                f"{self.in_a_row} losses in a row were not finite (--max-nonfinite {self._limit}), the last at "
                f"{where}; {REMEDY}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the count; no checkpoint is written while losses in a row are not finite."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count = state["count"]
