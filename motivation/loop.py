"""Algorithm 1 of the paper (section 3.5), and the epochs around it."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from motivation.checkpoint import Saver
from motivation.conditions import Condition
from motivation.data import TrainFeed, end_workers
from motivation.evaluate import HeldOut
from motivation.hooks import HookList, RunView
from motivation.interrupt import Interrupt
from motivation.judge import Judge
from motivation.learner import Learner
from motivation.pair import MotivatedPair
from motivation.records import Counts, EpochRecord, Mean, Role, UpdateReport
from motivation.switcher import Switcher

_logger = logging.getLogger("train")


PLATEAU_POSITION = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
"""What torch's plateau scheduler remembers of a run; the rest of its state are options, which a resume may change."""


@dataclass
class Clock:
    """Moves the schedules of both learners together."""

    schedules: list[Any]
    updates_per_epoch: int

    def plateau_state(self) -> list[dict[str, Any]]:
        """Of schedules that follow the metric; all others are functions of the epoch or the update."""
        return [
            {
                "scheduler": schedule.lr_scheduler.state_dict(),
                "restore_lr": schedule.restore_lr,
                "lrs": [group["lr"] for group in schedule.optimizer.param_groups],
            }
            for schedule in self.schedules
            if hasattr(schedule, "lr_scheduler")
        ]

    def load_plateau_state(self, states: list[dict[str, Any]]) -> None:
        """The inverse of `plateau_state`."""
        for schedule, state in zip(self.schedules, states, strict=False):
            present, saved = schedule.lr_scheduler, state["scheduler"]
            position = {name: saved[name] for name in PLATEAU_POSITION if name in saved}
            if saved["mode"] != present.mode:
                position.pop("best", None)  # of another metric
            present.load_state_dict({**present.state_dict(), **position})
            schedule.restore_lr = state["restore_lr"]
            for group, lr in zip(schedule.optimizer.param_groups, state["lrs"], strict=True):
                group["lr"] = lr

    def tick(self, step: int) -> None:
        """Update number ``step`` was done: schedules in updates take their next value."""
        for schedule in self.schedules:
            schedule.step_update(num_updates=step)

    def end_epoch(self, epoch: int, metric: float | None) -> None:
        """Epoch ``epoch`` is over: schedules in epochs take the next one's value."""
        for schedule in self.schedules:
            schedule.step(epoch + 1, metric)


@dataclass
class Run:
    """Everything the loop needs; made by `motivation.builders`.

    Attributes:
        held_out: measures the loss on held-out images after an update, for a condition that wants it.
        recovery_interval: updates between recovery checkpoints; 0 for none.
        world_size: number of ranks.
        ranking: the metric by which checkpoints of the base are ranked.
        epoch_counts: the counts at the present epoch's start.
        completed: whether all epochs were trained.
        flops: forward FLOPs of both models; None in a plain run.
        folder: of the run's files, on the primary rank.
        can_be_stopped: whether there are hooks of the user's own; the same on all ranks.
        stopped_by: what a hook said when it stopped the run before its last epoch.
    """

    pair: MotivatedPair[Learner]
    feed: TrainFeed
    clock: Clock
    hooks: HookList
    judge: Judge
    savers: dict[Role, Saver]
    start_epoch: int
    epochs: int
    held_out: HeldOut | None = None
    val_interval: int = 1
    recovery_interval: int = 0
    world_size: int = 1
    ranking: str = "top1"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    records: list[EpochRecord] = field(default_factory=list)
    epoch_counts: Counts = field(default_factory=Counts)
    completed: bool = False
    interrupt: Interrupt = field(default_factory=Interrupt)
    flops: dict[Role, float] | None = None
    folder: Path | None = None
    can_be_stopped: bool = False
    stopped_by: str | None = None

    @property
    def asked_to_stop(self) -> bool:
        """Whether a hook wants the run to end after this update; several ranks agree on it at the epoch's end only."""
        return self.world_size == 1 and self.hooks.stop_reason is not None

    def agreed_stop(self) -> str | None:
        """Why the run is to end with this epoch: on all ranks what the primary rank's hooks say; None to go on."""
        reasons = [self.hooks.stop_reason]
        if self.world_size > 1 and self.can_be_stopped:
            dist.broadcast_object_list(reasons, src=0, device=self.device)
        return reasons[0]

    @property
    def switcher(self) -> Switcher[Learner]:
        """Both learners."""
        return self.pair.switcher

    @property
    def condition(self) -> Condition:
        """When the motivated model is trained."""
        return self.pair.condition


def train(run: Run) -> None:
    """Train all epochs; evaluate and save those that are due.

    Ctrl-C ends the run after the present update, or with all of the evaluation and checkpoint that it comes in.
    """
    updates = run.feed.updates_per_epoch
    try:
        run.hooks.run_start(RunView(run.epochs, run.start_epoch, updates, run.switcher.motivated is not None))
        with Interrupt(active=run.world_size == 1) as run.interrupt:
            for epoch in range(run.start_epoch, run.epochs):
                began = time.time()
                train_loss = train_epoch(run, epoch)
                if run.interrupt.requested:
                    return
                stop = run.agreed_stop()
                is_last = epoch + 1 == run.epochs or stop is not None
                metric = evaluate_and_save(run, epoch, train_loss, began, is_last)
                run.clock.end_epoch(epoch, metric)
                if run.interrupt.requested and epoch + 1 < run.epochs:
                    return
                stop = stop or run.agreed_stop()
                if stop and epoch + 1 < run.epochs:
                    run.stopped_by = stop
                    _logger.info(f"Stopped after epoch {epoch}: {stop}")
                    break
            run.completed = True
    except KeyboardInterrupt:
        _logger.warning("Interrupted.")
    finally:
        with ExitStack() as ending:
            for loader in (run.feed.loader, run.judge.evaluator and run.judge.evaluator.loader):
                ending.callback(end_workers, loader)
            ending.callback(run.hooks.run_end)


def evaluate_and_save(run: Run, epoch: int, train_loss: float, began: float, is_last: bool) -> float | None:
    """What follows an epoch; returns the metric that ranks it, None where no evaluation is due."""
    run.judge.share_statistics()
    if (epoch + 1) % run.val_interval and not is_last:
        _logger.info("No evaluation is due after this epoch.")
        return None
    with run.judge.verdict() as (base, motivated):
        switcher, counts = run.switcher, run.switcher.counts.copy()
        elapsed_s = time.time() - began
        in_epoch = counts - run.epoch_counts
        record = EpochRecord(epoch, train_loss, base, motivated, switcher.base.lr, in_epoch, counts, elapsed_s)
        run.records.append(record)
        run.hooks.epoch_end(record)
        metric = record.metric(run.ranking)
        of_motivated = record.motivated[run.ranking] if record.motivated else None
        # the base's file comes last: it is the one to resume, and knows what the other has kept
        for role in (Role.MOTIVATED, Role.BASE):
            if role in run.savers:
                run.savers[role].save(epoch, metric if role is Role.BASE else of_motivated)
    return metric


def train_epoch(run: Run, epoch: int) -> float:
    """Algorithm 1: one epoch. Returns the mean training loss."""
    pair = run.pair
    losses = LossMeter()
    run.epoch_counts = pair.counts.copy()
    pair.start_epoch(epoch, run.feed.updates_per_epoch)
    for learner in pair.switcher.sides:
        learner.start_epoch()
    run.hooks.epoch_start(epoch)

    for index, micro_batches in enumerate(run.feed.updates(epoch)):
        learner = pair.active  # the weights have changed hands, if the condition wants it
        lr = learner.lr
        outcome = learner.train(micro_batches)
        if outcome is None:
            break
        validation_loss = run.held_out.loss(learner) if run.held_out is not None else None
        record = pair.observe(outcome.loss, outcome.gradient_norm, validation_loss)
        losses.add(outcome)
        run.hooks.update_end(UpdateReport.of(record, lr, outcome, pair.condition.streak))
        if run.recovery_interval and (index + 1) % run.recovery_interval == 0:
            pair.bring_up_to_date()
            for saver in run.savers.values():
                saver.save_recovery(epoch, index)
        run.clock.tick(pair.step)
        if run.interrupt.requested or run.asked_to_stop:
            break

    pair.switcher.active.end_epoch()
    pair.end_epoch()
    return losses.mean(run.world_size, run.device)


class LossMeter:
    """Mean training loss over an epoch, weighted by images; reads the losses only when it is asked."""

    def __init__(self) -> None:
        self._own = Mean()
        self._pending: list[Any] = []

    def add(self, outcome: Any) -> None:
        """Count an update."""
        self._pending.extend(outcome.own_losses)
        if len(self._pending) >= 1000:
            self._drain()

    def _drain(self) -> None:
        for loss, images in self._pending:
            self._own.add(loss.value, images)
        self._pending.clear()

    def mean(self, world_size: int, device: torch.device) -> float:
        """Over the images of this rank, then over ranks."""
        self._drain()
        if world_size == 1:
            return self._own.mean
        mean = torch.tensor([self._own.mean], device=device, dtype=torch.float32)
        dist.all_reduce(mean)
        return (mean / world_size).item()
