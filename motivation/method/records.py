"""The small values that the method passes around: roles, scalars on their way to the host, records of updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor


class Role(str, Enum):
    """Which of the two models."""

    BASE = "base"
    MOTIVATED = "motivated"


class DeferredScalar:
    """A 0-dimensional tensor on its way to the host.

    On a GPU the copy starts when the object is made and is waited for when `value` is first read, so the work enqueued
    in between (the backward pass, the optimizer step) hides it.

    Args:
        tensor: the scalar; a plain number is there already.
        factor: a whole number to multiply it by, on the host.
    """

    def __init__(self, tensor: Tensor | float, factor: int = 1):
        self._factor = factor
        self._event: torch.cuda.Event | None = None
        self._host: Tensor | float
        if not isinstance(tensor, Tensor):
            self._host = tensor
        elif tensor.device.type == "cuda":
            self._host = torch.empty((), dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = tensor.detach()
        self._value: float | None = None

    @property
    def value(self) -> float:
        """The number; blocks until it has arrived."""
        if self._value is None:
            if self._event is not None:
                self._event.synchronize()
            self._value = float(self._host) * self._factor
        return self._value


SIGNALS = ("loss", "gradient_norm", "validation_loss")
"""What a record may tell of an update. The loss always; the others to a condition that names them in ``needs``."""


@dataclass(frozen=True)
class UpdateRecord:
    """A read-only account of one update, for conditions.

    Attributes:
        epoch: counted from 0.
        update: index in the epoch, from 0.
        step: updates done since the start of training, this one included.
        role: the model that was trained.
        signals: what was measured, by the names of `SIGNALS`, on its way to the host.
    """

    epoch: int
    update: int
    step: int
    role: Role
    signals: Mapping[str, DeferredScalar]

    @property
    def loss(self) -> float:
        """Training loss of the update, mean over micro-batches and ranks. Reading it waits for a GPU."""
        return self._signal("loss")

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients of the update, before clipping."""
        return self._signal("gradient_norm")

    @property
    def validation_loss(self) -> float:
        """Loss on the held-out batch after the update, of the model that was trained."""
        return self._signal("validation_loss")

    def _signal(self, name: str) -> float:
        if name not in self.signals:
            raise ValueError(f"the {name} of an update was not measured; a condition that wants it has it in `needs`")
        return self.signals[name].value


@dataclass
class Counts:
    """How often each model was trained, and how often they changed."""

    updates: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(Role, 0))
    switches: int = 0

    @property
    def total(self) -> int:
        """All updates."""
        return sum(self.updates.values())

    @property
    def share(self) -> float:
        """Motivated updates over all updates; 0 before the first."""
        return self.updates[Role.MOTIVATED] / self.total if self.total else 0.0

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint."""
        return {"base": self.updates[Role.BASE], "motivated": self.updates[Role.MOTIVATED], "switches": self.switches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """From a checkpoint."""
        self.updates = {role: state[role.value] for role in Role}
        self.switches = state["switches"]

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(
            {role: self.updates[role] - earlier.updates[role] for role in Role}, self.switches - earlier.switches
        )

    def copy(self) -> Counts:
        """A snapshot."""
        return Counts(dict(self.updates), self.switches)
