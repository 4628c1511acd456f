"""The small values of a training run: outcomes of updates, results of epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from motivation.data.update_loader import MicroBatch
from motivation.method.records import Counts, DeferredScalar, Role, UpdateRecord


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
        run_counts: updates and switches since the start of the run, this update included.
        streak: the condition's streak after this update, None if it has none.
    """

    lr: float
    outcome: Outcome
    run_counts: Counts
    streak: int | None = None


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
        counts: updates, switches and cost since the last epoch that was evaluated.
        run_counts: the same since the start: of all updates that led to the weights.
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

    def metric(self, role: Role, name: str) -> float | None:
        """Return a metric of one model, None if it was not measured; without validation the base has its training
        loss.

        It is NaN, which ranks below everything, where the loss was not finite: classes of such outputs mean nothing.
        """
        metrics = self.motivated if role is Role.MOTIVATED else self.base or {"loss": self.train_loss}
        if metrics is None or name not in metrics:
            return None
        return metrics[name] if math.isfinite(metrics["loss"]) else math.nan

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


def rank_key(metric: float, decreasing: bool) -> tuple[bool, float]:
    """Return the key by which metrics are sorted: the best first, what is no number last."""
    return math.isnan(metric), metric if decreasing else -metric


def best_epoch(records: Iterable[EpochRecord], role: Role, name: str) -> EpochRecord | None:
    """Return the epoch in which a model had the best metric of that name, the earliest of equal ones; None if it was
    never measured."""
    return next(iter(rank_epochs(records, role, name)), None)


def rank_epochs(records: Iterable[EpochRecord], role: Role, name: str) -> list[EpochRecord]:
    """Return the epochs in which a metric of a model was measured: the best first, the earlier of equal ones first."""
    measured = [(metric, record) for record in records if (metric := record.metric(role, name)) is not None]
    measured.sort(key=lambda pair: rank_key(pair[0], decreasing=name == "loss"))
    return [record for _, record in measured]
