"""What a motivation condition is (paper, section 3.4), and all of them by name.

A condition is fed a read-only record after each update and answers `motivated` for the next one. It never sees the
trainer. Those of the paper are in `motivation.method.conditions`, which has all of these names too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from motivation.method.records import SIGNALS, UpdateRecord


class Condition:
    """A motivation condition.

    Subclasses answer `motivated` and whatever of the other methods they need.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[Iterable[str]] = ()
    """What `observe` reads of a record besides the loss (then measured): ``gradient_norm``, ``validation_loss``."""
    streak: Any = None
    """Length of the present streak, for the log; None where there is none."""

    @property
    def motivated(self) -> bool:
        """Whether the next update trains the motivated model."""
        raise NotImplementedError

    @property
    def expected_share(self) -> float | None:
        """Share of motivated updates to expect of a run, if there is a law for it."""
        return None

    def expected_updates(self, epochs: int, updates: int) -> float | None:
        """How many updates to expect motivated in that many epochs of ``updates`` updates, if there is a law for it."""
        return None if self.expected_share is None else self.expected_share * epochs * updates

    def start_run(self, epochs: int, updates: int) -> None:
        """A run of that many epochs, each of ``updates`` updates, is about to begin.

        Raises:
            ValueError: this condition cannot serve it.
        """

    def start_epoch(self, epoch: int, updates: int | None) -> None:
        """An epoch begins.

        Args:
            epoch: counted from 0.
            updates: how many it has; None in a loop that does not know.
        """

    def observe(self, record: UpdateRecord) -> None:
        """An update was done."""

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on in the middle of an epoch, in plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


_conditions: dict[str, type[Condition]] = {}
_Class = TypeVar("_Class", bound=type)


def register_condition(name: str) -> Callable[[_Class], _Class]:
    """Decorator: a condition class that ``--motivation-condition name`` chooses.

    The class is made with those of ``k`` and ``seed`` that its constructor names, and with what
    ``--motivation-plugin-kwargs`` says. It need not derive from `Condition`: what it leaves out is added.

    Raises:
        ValueError: the name is taken, ``motivated`` or ``observe`` is missing, or ``needs`` asks for what there is not.
    """

    def register(cls: _Class) -> _Class:
        if name in _conditions:
            raise ValueError(
                f"a motivation condition {name!r} is registered already, by {_conditions[name].__module__}"
            )
        condition: Any = (
            cls if issubclass(cls, Condition) else type(cls.__name__, (cls, Condition), {"__module__": cls.__module__})
        )
        if condition.motivated is Condition.motivated:
            raise ValueError(
                f"the condition {cls.__name__} has no `motivated`, a property that says whether the next update trains "
                "the motivated model"
            )
        if callable(condition.motivated):
            raise ValueError(f"`motivated` of the condition {cls.__name__} is a method: put @property above it")
        if isinstance(condition.needs, str):
            condition.needs = (condition.needs,)
        if cls is not condition and condition.observe is Condition.observe:
            raise ValueError(f"the condition {cls.__name__} has no method `observe(record)`")
        unknown = [need for need in condition.needs if need not in SIGNALS]
        if unknown:
            raise ValueError(f"the condition {cls.__name__} needs {unknown[0]!r}; there are {', '.join(SIGNALS)}")
        condition.name = name
        _conditions[name] = condition
        return condition

    return register


def is_registered(cls: type) -> bool:
    """Whether a class, or one derived from it, has a name."""
    return any(issubclass(condition, cls) for condition in _conditions.values())


def condition_names() -> list[str]:
    """All registered names."""
    return sorted(_conditions)


def needs_of(name: str) -> frozenset[str]:
    """What the condition of that name wants to be told of each update besides the loss; nothing if there is none."""
    return frozenset(_conditions[name].needs) if name in _conditions else frozenset()


def arguments_of(cls: type) -> list[str]:
    """The names that a class's constructor takes.

    >>> class Own:
    ...     def __init__(self, k, decay=0.9): ...
    >>> arguments_of(Own)
    ['k', 'decay']
    """
    constructor = cls.__init__  # type: ignore[misc]
    return [] if constructor is object.__init__ else list(inspect.signature(constructor).parameters)[1:]


def takes(name: str, argument: str) -> bool:
    """Whether the condition of that name takes that argument; one that is not registered is believed to."""
    return name not in _conditions or argument in arguments_of(_conditions[name])


def condition_class(name: str) -> type[Condition]:
    """The condition of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _conditions:
        raise ValueError(f"no motivation condition {name!r}; there are {', '.join(condition_names())}")
    return _conditions[name]
