"""The small values of a training run: outcomes of updates, results of epochs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from motivation.data.update_loader import MicroBatch
from motivation.method.records import Counts, DeferredScalar, UpdateRecord


@dataclass
class Outcome:
    """The result of one update of a learner.

    Attributes:
        loss: mean over the micro-batches and over all ranks.
        local_losses: ``(loss, images)`` of each micro-batch on this rank.
        images: number of images on all ranks together.
        data_time_s: seconds spent waiting for data, on this rank.
        last_batch: the last micro-batch.
        gradient_norm: Euclidean norm of all gradients before clipping; None if it was not asked for.
        stop_votes: number of ranks that had been asked to stop when the loss was averaged; None with one rank.
    """

    loss: DeferredScalar
    local_losses: list[tuple[DeferredScalar, int]]
    images: int
    data_time_s: float
    last_batch: MicroBatch
    gradient_norm: DeferredScalar | None = None
    stop_votes: DeferredScalar | None = None


@dataclass(frozen=True)
class UpdateReport(UpdateRecord):
    """A record of an update for hooks, with more about how it was done.

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
        """Add what conditions are not told."""
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
        """Return the number by which checkpoints of the base are ranked."""
        return (self.base or {"loss": self.train_loss})[name]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        return state | {"counts": self.counts.state_dict(), "run_counts": self.run_counts.state_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EpochRecord:
        """Restore a record from what `state_dict` returned."""
        counts = {name: Counts() for name in ("counts", "run_counts")}
        for name, value in counts.items():
            value.load_state_dict(state[name])
        return cls(**{**state, **counts})
