"""Small values of the method: the role of a model, scalars that are read late, records of updates, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Role(str, Enum):
    """One of the two models."""

    BASE = "base"
    MOTIVATED = "motivated"


class DeferredScalar:
    """Copy a scalar from the GPU without waiting; `value` waits.

    The copy starts when the object is made. What is enqueued before `value` is read (the backward pass, the optimizer
    step) overlaps it.

    Args:
        tensor: a 0-dimensional tensor, or a plain number.
        factor: multiplies the value, to undo the division of the loss by the number of micro-batches.
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
            self._event.record(torch.cuda.current_stream(tensor.device))  # the stream of the copy
        else:
            self._host = tensor.detach()
        self._value: float | None = None

    @property
    def value(self) -> float:
        """The number; waits until it has arrived."""
        if self._value is None:
            if self._event is not None:
                self._event.synchronize()
            self._value = float(self._host) * self._factor
            self._event, self._host = None, 0.0  # pinned memory is scarce
        return self._value


SIGNAL_NAMES = ("loss", "gradient_norm", "validation_loss")
"""Signals of an update that a condition can read: always the loss, the others if it names them in ``needs``."""


@dataclass(frozen=True)
class UpdateRecord:
    """A read-only account of one update, for conditions.

    Attributes:
        epoch: counted from 0.
        update: index in the epoch, from 0.
        step: updates done since the start of training, this one included.
        role: the model that was trained.
        signals: the measured signals, by the names of `SIGNAL_NAMES`.
    """

    epoch: int
    update: int
    step: int
    role: Role
    signals: Mapping[str, DeferredScalar]

    @property
    def loss(self) -> float:
        """Training loss of the update, mean over micro-batches and ranks. Reading it waits for the GPU."""
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
    """Updates of each model, switches, and cost.

    Attributes:
        updates: number of updates of each model.
        switches: how often an update trained another model than the update before it; before the first is the base.
        flops: forward FLOPs of one image, summed over the updates of each model; 0 where they were not counted.
        last: the model of the last update.
    """

    updates: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(Role, 0))
    switches: int = 0
    flops: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(Role, 0.0))
    last: Role = Role.BASE

    def add(self, role: Role) -> None:
        """Count an update of a model."""
        self.updates[role] += 1
        self.switches += role is not self.last
        self.last = role

    @property
    def total(self) -> int:
        """Number of all updates."""
        return sum(self.updates.values())

    @property
    def share(self) -> float:
        """Share of motivated updates; 0 before the first update."""
        return self.updates[Role.MOTIVATED] / self.total if self.total else 0.0

    @property
    def average_flops(self) -> float:
        """Mean forward FLOPs of one image over all updates (paper, supplementary section 6); 0 before the first."""
        return sum(self.flops.values()) / self.total if self.total else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            **{role.value: count for role, count in self.updates.items()},
            "switches": self.switches,
            "flops": {role.value: flops for role, flops in self.flops.items()},
            "last": self.last.value,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; earlier versions returned neither FLOPs nor the last model."""
        self.updates = {role: int(state[role.value]) for role in Role}
        self.switches = int(state["switches"])
        self.flops = {role: float(state.get("flops", {}).get(role.value, 0.0)) for role in Role}
        self.last = Role(state.get("last", Role.BASE))

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(
            {role: self.updates[role] - earlier.updates[role] for role in Role},
            self.switches - earlier.switches,
            {role: self.flops[role] - earlier.flops[role] for role in Role},
            self.last,
        )

    def copy(self) -> Counts:
        """Return a copy."""
        return Counts(dict(self.updates), self.switches, dict(self.flops), self.last)
