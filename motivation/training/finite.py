"""Watch for numbers that are not finite: in losses, too many of which end the run, and in what is to be saved."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from motivation.method.records import DeferredScalar, UpdateRecord

_logger = logging.getLogger("train")

REMEDY = "try a smaller --lr, --clip-grad 1, or bfloat16 in place of float16"


class NotFiniteError(RuntimeError):
    """Too many losses in a row were not finite, or the weights at the end of a run are not."""


@contextmanager
def refusing_overflow() -> Iterator[None]:
    """Turn the errors of an optimizer whose factors overflow into a `NotFiniteError`: its weights would be infinite.

    Where a factor of a tensor is more than its dtype holds, torch raises a RuntimeError instead of returning infinity;
    Python does so where a power overflows, or a factor is divided by zero.
    """
    try:
        yield
    except (RuntimeError, ArithmeticError) as error:
        if isinstance(error, RuntimeError) and "without overflow" not in str(error):
            raise
        raise NotFiniteError(f"the optimizer's step overflows ({error}); {REMEDY}") from error


def are_finite(state: Any) -> bool:
    """Return True if the floating point tensors among nested values are finite; all of them cost one read."""
    tensors = [tensor for _, tensor in named_tensors(state) if _can_overflow(tensor)]
    return not tensors or bool(torch.nn.utils.get_total_norm(tensors, norm_type=float("inf")).isfinite())


def nonfinite_names(state: Any) -> list[str]:
    """Return the names of the tensors among nested values that are not finite, with dots between the levels."""
    return [name for name, tensor in named_tensors(state) if _can_overflow(tensor) and not tensor.isfinite().all()]


def _can_overflow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors among nested values with their names, which have dots between the levels."""
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from named_tensors(item, f"{name}.{index}")


class FiniteStateGuard:
    """Keep states that are not finite from being saved: from such a file no training could go on.

    A loss is computed before the step that follows it, so a last step that overflows shows in the weights only.
    """

    def __init__(self) -> None:
        self._last_finite = "the run's start"
        self._fault = ""

    def allows(self, state: Any, is_finite: bool, place: str) -> bool:
        """Return True if a state may be saved; warn if not.

        Args:
            state: nested values with tensors.
            is_finite: if `are_finite` says so, on all ranks.
            place: words for the update after which it is saved.
        """
        if is_finite:
            self._last_finite, self._fault = place, ""
            return True
        names = nonfinite_names(state) or ["the state of another rank"]
        more = f" and {len(names) - 1} more tensors" if names[1:] else ""
        self._fault = f"{names[0]}{more} are not finite after {place}; all were after {self._last_finite}"
        _logger.warning(f"No checkpoint is written: {self._fault}.")
        return False

    def finish(self) -> None:
        """End the run.

        Raises:
            NotFiniteError: the last state was not finite.
        """
        if self._fault:
            raise NotFiniteError(f"{self._fault}; {REMEDY}")


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
