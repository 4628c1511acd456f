"""What watches a run. The events, in the order of the loop::

    run_start
    for each epoch:
        epoch_start
        for each update:
            update_end
        epoch_end                # only of epochs that are evaluated
    run_end

Optimizer steps, schedules, switches and checkpoints are not hooks: a run without any hook trains the same weights. A
hook may ask the run to stop (`Hook.request_stop`), and may remember something over a resume (``state_dict``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from motivation.training.plugin_errors import blaming_plugin, state_of
from motivation.training.records import EpochRecord, UpdateReport


@dataclass(frozen=True)
class RunView:
    """What a hook is told of the run at its start.

    Attributes:
        epochs: epochs to be trained, in all.
        start_epoch: the first one of this process.
        updates_per_epoch: optimizer updates in each.
        motivated: whether there is a motivated model.
        start_update: updates of that first epoch that were done before; more than 0 where a run is resumed inside it.
    """

    epochs: int
    start_epoch: int
    updates_per_epoch: int
    motivated: bool
    start_update: int = 0


class Hook:
    """Override the events you need."""

    stop_reason: str | None = None

    def run_start(self, run: RunView) -> None:
        """Training is about to begin."""

    def epoch_start(self, epoch: int) -> None:
        """The first update of the epoch is about to begin, or the first after a resume inside it."""

    def update_end(self, record: UpdateReport) -> None:
        """An update was done. Reading ``record.loss`` waits for the GPU."""

    def epoch_end(self, record: EpochRecord) -> None:
        """The epoch was trained and evaluated; its checkpoint is not written yet."""

    def run_end(self) -> None:
        """Training is over, also when it was interrupted or failed."""

    def request_stop(self, reason: str) -> None:
        """Ask the run to end; not an event, to be called by the hook itself.

        After `epoch_end` the run ends with that epoch. After `update_end` it ends with that update: the epoch is
        evaluated and saved as it is, with several processes after the rest of it.
        """
        self.stop_reason = reason

    def state_dict(self) -> dict[str, Any]:
        """What to remember over a resume, in plain values and tensors; nothing by default.

        It is asked just before a checkpoint is written; what is in a file then will be there after a resume.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


NO_EVENTS = ("request_stop", "state_dict", "load_state_dict")
EVENTS = frozenset(name for name in vars(Hook) if not name.startswith("_") and callable(getattr(Hook, name))) - set(
    NO_EVENTS
)


def unknown_event(hook: type) -> str | None:
    """Why a class is no hook: a public method that is no event, most likely a misspelt one, which would never fire."""
    public = {name for name in dir(hook) if not name.startswith("_") and callable(getattr(hook, name))}
    if unknown := sorted(public - EVENTS - set(NO_EVENTS)):
        return (
            f"{hook.__name__} has the public method {unknown[0]!r}, which is no event; "
            f"events are {', '.join(sorted(EVENTS))} (start other methods with an underscore)"
        )
    return None


class HookList(Hook):
    """Passes each event to its hooks, in order.

    Raises:
        ValueError: a hook has a public method that is no event.
    """

    def __init__(self, hooks: Iterable[Hook] = ()):
        self.hooks = list(hooks)
        for hook in self.hooks:
            if reason := unknown_event(type(hook)):
                raise ValueError(reason)

    def _tell(self, event: str, *what: Any) -> None:
        for hook in self.hooks:
            with blaming_plugin(hook, event):
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
                all_of_them.callback(self._end, hook)

    @staticmethod
    def _end(hook: Hook) -> None:
        with blaming_plugin(hook, "run_end"):
            hook.run_end()

    def state_dict(self) -> dict[str, Any]:
        states = {}
        for hook in self.hooks:
            if state := state_of(hook):
                states[name_of(hook)] = state
        return states

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`; hooks that the state does not know begin anew."""
        for hook in self.hooks:
            if name_of(hook) in state:
                with blaming_plugin(hook, "load_state_dict"):
                    hook.load_state_dict(state[name_of(hook)])


_hooks: dict[str, type[Hook]] = {}
_HookClass = TypeVar("_HookClass", bound=type[Hook])


def name_of(hook: Hook) -> str:
    """The name that a hook was registered by, else its class's."""
    return next((name for name, cls in _hooks.items() if cls is type(hook)), type(hook).__name__)


def register_hook(name: str) -> Callable[[_HookClass], _HookClass]:
    """Decorator: a `Hook` class of the user's own; every run with its plugin makes one.

    It is made with those of ``--motivation-plugin-kwargs`` that its constructor names.

    Raises:
        ValueError: the name is taken, the class is no `Hook`, or it has a public method that is no event.
    """

    def register(cls: _HookClass) -> _HookClass:
        if name in _hooks:
            raise ValueError(f"a hook {name!r} is registered already, by {_hooks[name].__module__}")
        if not (isinstance(cls, type) and issubclass(cls, Hook)):
            raise ValueError(f"the hook {name!r} is not a class derived from motivation.training.hooks.Hook")
        if reason := unknown_event(cls):
            raise ValueError(reason)
        _hooks[name] = cls
        return cls

    return register


def is_registered(cls: type) -> bool:
    """Whether a class, or one derived from it, has a name."""
    return any(issubclass(hook, cls) for hook in _hooks.values())


def hooks_of(plugins: Iterable[ModuleType]) -> list[type[Hook]]:
    """The registered hooks that stand in these modules, each once."""
    there = [id(value) for module in plugins for value in vars(module).values()]
    return [cls for cls in _hooks.values() if id(cls) in there]
