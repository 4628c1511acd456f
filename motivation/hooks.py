"""What watches a run. The events, in the order of the loop::

    run_start
    for each epoch:
        epoch_start
        for each update:
            update_end
        epoch_end                # only of epochs that are evaluated
    run_end

Optimizer steps, schedules, switches and checkpoints are not hooks: a run without any hook trains the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from motivation.records import EpochRecord, UpdateRecord


@dataclass(frozen=True)
class RunView:
    """What a hook is told of the run at its start.

    Attributes:
        epochs: epochs to be trained, in all.
        start_epoch: the first one of this process.
        updates_per_epoch: optimizer updates in each.
        motivated: whether there is a motivated model.
    """

    epochs: int
    start_epoch: int
    updates_per_epoch: int
    motivated: bool


class Hook:
    """Override the events you need."""

    def run_start(self, run: RunView) -> None:
        """Training is about to begin."""

    def epoch_start(self, epoch: int) -> None:
        """The first update of the epoch is about to begin."""

    def update_end(self, record: UpdateRecord) -> None:
        """An update was done. Reading ``record.loss`` waits for the GPU."""

    def epoch_end(self, record: EpochRecord) -> None:
        """The epoch was trained and evaluated; its checkpoint is not written yet."""

    def run_end(self) -> None:
        """Training is over, also when it was interrupted or failed."""


EVENTS = frozenset(name for name in vars(Hook) if not name.startswith("_"))


class HookList(Hook):
    """Passes each event to its hooks, in order.

    Raises:
        ValueError: a hook has a public method that is no event: most likely a misspelt one, which would never fire.
    """

    def __init__(self, hooks: Iterable[Hook] = ()):
        self.hooks = list(hooks)
        for hook in self.hooks:
            public = {name for name in dir(type(hook)) if not name.startswith("_") and callable(getattr(hook, name))}
            if unknown := sorted(public - EVENTS):
                raise ValueError(
                    f"{type(hook).__name__} has the public method {unknown[0]!r}, which is no event; "
                    f"events are {', '.join(sorted(EVENTS))} (start other methods with an underscore)"
                )

    def run_start(self, run: RunView) -> None:
        for hook in self.hooks:
            hook.run_start(run)

    def epoch_start(self, epoch: int) -> None:
        for hook in self.hooks:
            hook.epoch_start(epoch)

    def update_end(self, record: UpdateRecord) -> None:
        for hook in self.hooks:
            hook.update_end(record)

    def epoch_end(self, record: EpochRecord) -> None:
        for hook in self.hooks:
            hook.epoch_end(record)

    def run_end(self) -> None:
        for hook in self.hooks:
            hook.run_end()
