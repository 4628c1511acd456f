"""The small values of a training run: outcomes of updates, results of epochs, means."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from motivation.data.update_loader import MicroBatch
from motivation.method.records import Counts, DeferredScalar, UpdateRecord


@dataclass
class Outcome:
    """What a learner reports of one update.

    Attributes:
        loss: mean over the micro-batches and over all ranks.
        gradient_norm: Euclidean norm of all gradients before clipping; None where it was not asked for.
        own_losses: ``(loss, images)`` of each micro-batch on this rank.
        images: how many images all ranks together have seen.
        data_time_s: seconds spent waiting for data, on this rank.
        last_batch: the last micro-batch.
        votes: how many ranks had been asked to stop when they met for the loss; None with a single one.
    """

    loss: DeferredScalar
    own_losses: list[tuple[DeferredScalar, int]]
    images: int
    data_time_s: float
    last_batch: MicroBatch
    gradient_norm: DeferredScalar | None = None
    votes: DeferredScalar | None = None


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
