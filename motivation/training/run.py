"""A run: all that the loop needs, and the decisions that its ranks take together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from motivation.data.update_loader import UpdateLoader
from motivation.method.pair import MotivatedPair
from motivation.method.records import DeferredScalar, Role
from motivation.training.evaluate import Evaluator, HeldOut
from motivation.training.finite import FiniteStateGuard, NonFiniteLossGuard
from motivation.training.folder_lock import FolderLock
from motivation.training.hooks import HookList
from motivation.training.learner import Learner
from motivation.training.losses import LossMeter
from motivation.training.records import EpochRecord
from motivation.training.saver import Saver
from motivation.training.signals import Interrupt

PLATEAU_POSITION = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
"""Keys in the state of torch's plateau scheduler that belong to the run; the others are options, which a resume may
change."""


@dataclass
class Clock:
    """Step the schedules of both learners together."""

    schedules: list[Any]
    updates_per_epoch: int

    def move_to(self, epoch: int, updates: int) -> None:
        """Move the schedules, but those that follow the metric, to the place after ``updates`` updates of an epoch."""
        for schedule in self.schedules:
            if epoch:
                schedule.step(epoch)
            if done := epoch * self.updates_per_epoch + updates:
                schedule.step_update(num_updates=done)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of schedules that follow the metric; all others are functions of the epoch or the update."""
        return [
            {
                "scheduler": schedule.lr_scheduler.state_dict(),
                "restore_lr": schedule.restore_lr,
                "lrs": [group["lr"] for group in schedule.optimizer.param_groups],
            }
            for schedule in self.schedules
            if hasattr(schedule, "lr_scheduler")
        ]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned: the state of the base's schedule, in those of both models."""
        for schedule in self.schedules:
            if not states or not hasattr(schedule, "lr_scheduler"):
                continue
            plateau, saved = schedule.lr_scheduler, states[0]["scheduler"]
            position = {name: saved[name] for name in PLATEAU_POSITION if name in saved}
            if saved["mode"] != plateau.mode:
                position.pop("best", None)  # of another metric
            plateau.load_state_dict({**plateau.state_dict(), **position})
            schedule.restore_lr = states[0]["restore_lr"]
            for group, lr in zip(schedule.optimizer.param_groups, states[0]["lrs"], strict=False):
                group["lr"] = lr

    def tick(self, step: int) -> None:
        """Step the schedules that move per update, after update number ``step``."""
        for schedule in self.schedules:
            schedule.step_update(num_updates=step)

    def end_epoch(self, epoch: int, metric: float | None) -> None:
        """Step the schedules that move per epoch, after that epoch."""
        for schedule in self.schedules:
            schedule.step(epoch + 1, metric)


@dataclass
class Run:
    """All that the loop needs; made by `motivation.build`.

    Attributes:
        held_out: measures the loss on held-out images after an update, for a condition that wants it.
        recovery_interval: updates between recovery checkpoints; 0 for none.
        world_size: number of ranks.
        ranking: the metric by which checkpoints of the base are ranked.
        guard, state_guard: watch for losses, and for weights and other state, that are not finite.
        losses: mean loss of the current epoch.
        trained: see `RunView`.
        resumed_mid_epoch: True until the rest of an epoch is trained that the resumed run had begun.
        completed: True once all epochs were trained.
        flops: forward FLOPs of both models, on the primary rank; None in a plain run.
        folder, lock: folder of the run's files and the lock on it, on the primary rank.
        can_be_stopped: True if there are hooks of the user's own; the same on all ranks.
        generation: of its checkpoints, see `motivation.training.checkpoint.Age`.
        stopped_by: the reason a hook gave for stopping the run before its last epoch; set from the start if the run
            that is resumed was stopped.
        interrupted_by: number of the signal that ended the run, 0 for none.
    """

    pair: MotivatedPair[Learner]
    feed: UpdateLoader
    clock: Clock
    hooks: HookList
    evaluator: Evaluator
    savers: dict[Role, Saver]
    start_epoch: int
    epochs: int
    held_out: HeldOut | None = None
    val_interval: int = 1
    recovery_interval: int = 0
    world_size: int = 1
    ranking: str = "top1"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    guard: NonFiniteLossGuard = field(default_factory=NonFiniteLossGuard)
    state_guard: FiniteStateGuard = field(default_factory=FiniteStateGuard)
    losses: LossMeter = field(default_factory=LossMeter)
    records: list[EpochRecord] = field(default_factory=list)
    trained: tuple[int, int] | None = None
    resumed_mid_epoch: bool = False
    completed: bool = False
    interrupt: Interrupt = field(default_factory=Interrupt)
    flops: dict[Role, float] | None = None
    folder: Path | None = None
    lock: FolderLock | None = None
    can_be_stopped: bool = False
    generation: int = 0
    stopped_by: str | None = None
    interrupted_by: int = 0
    _stop_votes: deque[DeferredScalar] = field(default_factory=deque)

    def held_out_loss(self, learner: Learner) -> DeferredScalar | None:
        """Return the loss on the held-out images after an update of this learner; None if the condition does not
        want it."""
        return None if self.held_out is None else self.held_out.loss(learner)

    @property
    def expected_share(self) -> float | None:
        """Share of motivated updates to expect of all epochs; None if the condition has no law for it."""
        epochs, updates = self.epochs, self.clock.updates_per_epoch
        count = self.pair.condition.expected_updates(epochs, updates)
        return None if count is None or not epochs * updates else count / (epochs * updates)

    @property
    def asked_to_stop(self) -> bool:
        """True if a hook wants the run to end after this update; several ranks agree on it at the epoch's end only."""
        return self.world_size == 1 and self.hooks.stop_reason is not None

    def agreed_stop(self) -> str | None:
        """Return the reason of the primary rank's hooks to end the run with this epoch, on all ranks; None to go on."""
        reasons = [self.hooks.stop_reason]
        if self.world_size > 1 and self.can_be_stopped:
            dist.broadcast_object_list(reasons, src=0, device=self.device)
        return reasons[0]

    def interrupted_after_update(self, stop_votes: DeferredScalar | None) -> bool:
        """Return True if a signal has reached some rank; all ranks give the same answer after an update.

        Args:
            stop_votes: number of ranks that had been asked to stop when the update's loss was averaged. A plain run on
                a GPU reads it an update later, when it has arrived, as it waits for nothing else either.
        """
        if self.world_size == 1:
            self.interrupted_by = self.interrupt.requested
        elif stop_votes is not None:
            self._stop_votes.append(stop_votes)
            delay = self.device.type == "cuda" and self.pair.motivated is None
            if len(self._stop_votes) > delay and self._stop_votes.popleft().value:
                self._agree_on_signal()
        return bool(self.interrupted_by)

    def interrupted_after_epoch(self) -> bool:
        """Return the same after an epoch, by asking all ranks at once."""
        self._stop_votes.clear()
        if self.world_size == 1:
            self.interrupted_by = self.interrupt.requested
        else:
            self._agree_on_signal()
        return bool(self.interrupted_by)

    def on_all_ranks(self, holds: bool) -> bool:
        """Return True if something holds on all ranks, which all call it."""
        if self.world_size == 1:
            return holds
        lowest = torch.tensor(int(holds), device=self.device)
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        return bool(lowest.item())

    def _agree_on_signal(self) -> None:
        number = torch.tensor(self.interrupt.requested, device=self.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        self.interrupted_by = int(number.item())
