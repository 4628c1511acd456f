"""Hooks watch a run. Their events, in the order of the loop::

    run_start
    for each epoch:
        epoch_start
        for each update:
            update_end
        epoch_end                # only of epochs that are evaluated
    run_end

Optimizer steps, schedules, switches and checkpoints are not hooks: without any hook a run trains the same weights. A
hook can ask the run to stop (`Hook.request_stop`), and can remember something over a resume (``state_dict``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from motivation.training.records import EpochRecord, UpdateReport


@dataclass(frozen=True)
class RunView:
    """Facts about a run that hooks are told at its start.

    Attributes:
        epochs: number of epochs of the whole run.
        start_epoch: the first epoch of this process.
        updates_per_epoch: optimizer updates in each epoch.
        motivated: True if there is a motivated model.
        start_update: updates of the first epoch that were done before the run was resumed, else 0.
        trained: the epochs, and updates of the next one, that the weights have been trained; less than the run's first
            where ``--start-epoch`` has passed over some. None if that is not known.
    """

    epochs: int
    start_epoch: int
    updates_per_epoch: int
    motivated: bool
    start_update: int = 0
    trained: tuple[int, int] | None = None

    @property
    def recorded_before(self) -> tuple[int, int]:
        """The epoch and update from which on an earlier record is not of this run's weights: it is trained anew, or was
        passed over."""
        place = (self.start_epoch, self.start_update)
        return place if self.trained is None else min(place, self.trained)


class Hook:
    """Watch a run; subclasses override the events that they need."""

    stop_reason: str | None = None

    def run_start(self, run: RunView) -> None:
        """Called before training begins."""

    def epoch_start(self, epoch: int) -> None:
        """Called before the first update of an epoch, or the first after a resume inside it."""

    def update_end(self, record: UpdateReport) -> None:
        """Called after each update. Reading ``record.loss`` waits for the GPU."""

    def epoch_end(self, record: EpochRecord) -> None:
        """Called once an epoch was trained and evaluated, before its checkpoint is written."""

    def run_end(self) -> None:
        """Called once training is over, also if it was interrupted or failed."""

    def request_stop(self, reason: str) -> None:
        """Ask the run to stop; not an event, but called by the hook itself.

        Called in `epoch_end`, the run ends with that epoch. Called in `update_end`, it ends with that update, and the
        epoch is evaluated and saved as it is; with several processes it ends with that epoch.
        """
        self.stop_reason = reason

    def state_dict(self) -> dict[str, Any]:
        """Return what to remember over a resume, in plain values and tensors; nothing by default.

        Called just before a checkpoint is written, so a file that the hook has written by then is there after a resume.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


EVENTS = ("run_start", "epoch_start", "update_end", "epoch_end", "run_end")


class HookList(Hook):
    """Pass each event to several hooks, in order."""

    def __init__(self, hooks: Iterable[Hook] = ()):
        self.hooks = list(hooks)

    def _tell(self, event: str, *what: Any) -> None:
        for hook in self.hooks:
            getattr(hook, event)(*what)
            if hook.stop_reason is not None:
                self.request_stop(hook.stop_reason)

    def run_start(self, run: RunView) -> None:
        self._tell("run_start", run)

    def epoch_start(self, epoch: int) -> None:
        self._tell("epoch_start", epoch)

    def update_end(self, record: UpdateReport) -> None:
        self._tell("update_end", record)

    def epoch_end(self, record: EpochRecord) -> None:
        self._tell("epoch_end", record)

    def run_end(self) -> None:
        with ExitStack() as all_of_them:  # also when one fails
            for hook in reversed(self.hooks):
                all_of_them.callback(hook.run_end)

    def state_dict(self) -> dict[str, Any]:
        return {name_of(hook): state for hook in self.hooks if (state := hook.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; hooks that are not in it begin anew."""
        for hook in self.hooks:
            if name_of(hook) in state:
                hook.load_state_dict(state[name_of(hook)])


_hooks: dict[str, type[Hook]] = {}
_HookClass = TypeVar("_HookClass", bound=type[Hook])


def name_of(hook: Hook) -> str:
    """Return the name that a hook was registered by, else that of its class."""
    return next((name for name, cls in _hooks.items() if cls is type(hook)), type(hook).__name__)


def register_hook(name: str) -> Callable[[_HookClass], _HookClass]:
    """Decorate a `Hook` class; every run with the plugin that it stands in makes one.

    Its constructor is given those of ``--motivation-plugin-kwargs`` that it names.

    Raises:
        ValueError: the name is taken, the class is no `Hook`, or it has a public method that is no event.
    """

    def register(cls: _HookClass) -> _HookClass:
        if name in _hooks:
            raise ValueError(f"a hook {name!r} is registered already, by {_hooks[name].__module__}")
        if not (isinstance(cls, type) and issubclass(cls, Hook)):
            raise ValueError(f"the hook {name!r} is not a class derived from motivation.training.hooks.Hook")
        public = {method for method in dir(cls) if not method.startswith("_") and callable(getattr(cls, method))}
        if unknown := sorted(public - set(dir(Hook))):
            raise ValueError(
                f"{cls.__name__} has the public method {unknown[0]!r}, which is no event; "
                f"events are {', '.join(EVENTS)} (start other methods with an underscore)"
            )
        _hooks[name] = cls
        return cls

    return register


def is_registered(cls: type) -> bool:
    """Return True if a class, or one derived from it, is registered."""
    return any(issubclass(hook, cls) for hook in _hooks.values())


def hooks_of(plugins: Iterable[ModuleType]) -> list[type[Hook]]:
    """Return the registered hooks that stand in these modules, each once."""
    there = [id(value) for module in plugins for value in vars(module).values()]
    return [cls for cls in _hooks.values() if id(cls) in there]
