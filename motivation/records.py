"""The small values that travel between the rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

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


@dataclass
class MicroBatch:
    """What one forward pass sees.

    Attributes:
        images: ``[B, C, H, W]`` on the training device; NaFlex gives a dict of patches.
        targets: ``[B]`` class indices, or ``[B, num_classes]`` after mixup.
        parts: micro-batches of this update; the loss is divided by it.
        completes: the optimizer steps after this one.
        index: its number in the epoch.
        waited_s: seconds spent on getting it.
    """

    images: Any
    targets: Tensor
    parts: int
    completes: bool
    index: int
    waited_s: float = 0.0

    @property
    def size(self) -> int:
        """Number of images."""
        return self.images["patches"].shape[0] if isinstance(self.images, dict) else self.images.shape[0]


@dataclass
class Outcome:
    """What a learner reports of one update.

    Attributes:
        loss: mean over the micro-batches and over all ranks.
        gradient_norm: Euclidean norm of all gradients before clipping; None where it was not asked for.
        own_losses: ``(loss, images)`` of each micro-batch on this rank.
        images: how many images all ranks together have seen.
        waited_s: seconds spent waiting for data, on this rank.
        last_batch: the last micro-batch.
        votes: how many ranks had been asked to stop when they met for the loss; None with a single one.
    """

    loss: DeferredScalar
    own_losses: list[tuple[DeferredScalar, int]]
    images: int
    waited_s: float
    last_batch: MicroBatch
    gradient_norm: DeferredScalar | None = None
    votes: DeferredScalar | None = None


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


@dataclass(frozen=True)
class UpdateReport(UpdateRecord):
    """The same for hooks, with more about how the update was done.

    Attributes:
        lr: mean learning rate over the parameter groups at this update.
        outcome: see `Outcome`.
        streak: the condition's streak after this update, None if it has none.
    """

    lr: float
    outcome: Outcome
    streak: int | None = None

    @classmethod
    def of(cls, record: UpdateRecord, lr: float, outcome: Outcome, streak: int | None) -> UpdateReport:
        """A record with what conditions are not told."""
        return cls(record.epoch, record.update, record.step, record.role, record.signals, lr, outcome, streak)


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


Metrics = dict[str, float]
"""``loss``, ``top1``, ``top5`` of an evaluation."""


@dataclass(frozen=True)
class EpochRecord:
    """An epoch that was evaluated.

    Attributes:
        epoch: counted from 0.
        train_loss: mean training loss over the epoch.
        base: validation metrics of the base model (of its EMA if there is one); None without validation.
        motivated: the same of the motivated model.
        lr: mean learning rate over the base's parameter groups at the epoch's end.
        counts: updates and switches in this epoch.
        run_counts: updates and switches since the start.
        elapsed_s: seconds the epoch took, its evaluation included.
    """

    epoch: int
    train_loss: float
    base: Metrics | None
    motivated: Metrics | None
    lr: float
    counts: Counts
    run_counts: Counts
    elapsed_s: float

    def metric(self, name: str) -> float:
        """The number a checkpoint of the base is ranked by."""
        return (self.base or {"loss": self.train_loss})[name]

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        return state | {"counts": self.counts.state_dict(), "run_counts": self.run_counts.state_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EpochRecord:
        """From a checkpoint."""
        counts = {name: Counts() for name in ("counts", "run_counts")}
        for name, value in counts.items():
            value.load_state_dict(state[name])
        return cls(**{**state, **counts})


class Mean:
    """A running mean weighted by the number of images."""

    def __init__(self) -> None:
        self.last = self.total = 0.0
        self.count = 0

    def add(self, value: float, n: int = 1) -> None:
        """Count ``value`` n times."""
        self.last = value
        self.total += value * n
        self.count += n

    @property
    def mean(self) -> float:
        """0 before the first value."""
        return self.total / self.count if self.count else 0.0
