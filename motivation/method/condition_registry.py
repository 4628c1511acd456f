"""Motivation conditions by name: those of the paper, and those that users register."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from motivation.method import conditions
from motivation.method.conditions import Condition, Streak
from motivation.method.records import SIGNAL_NAMES

_conditions: dict[str, type[Condition]] = {
    cls.name: cls
    for cls in (
        conditions.FallingLoss,
        conditions.FallingAverage,
        conditions.FallingValidationLoss,
        conditions.RisingSlope,
        conditions.RandomUpdates,
        conditions.ScheduledUpdates,
        conditions.Never,
        conditions.Always,
    )
}
_Class = TypeVar("_Class", bound=type[Condition])


def make_condition(name: str, k: int = 2, seed: int = 0, **options: Any) -> Condition:
    """Make the condition of that name.

    Args:
        k: length of a streak; for conditions that have one.
        seed: of random draws; for conditions that draw.
        options: further arguments of its constructor.

    Raises:
        ValueError: there is no such condition, or it does not take these arguments or values.

    >>> make_condition("ema", k=3, decay=0.8).k
    3
    """
    cls = condition_class(name)
    taken = arguments_of(cls)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    if (unknown := sorted(options.keys() - set(taken))) and not open_ended:
        raise ValueError(f"the condition {name!r} takes no {unknown[0]!r}; it takes {', '.join(taken) or 'nothing'}")
    options |= {key: value for key, value in (("k", k), ("seed", seed)) if key in taken}
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        raise ValueError(f"the condition {name!r} cannot be made: {error}") from error
    return cls(**options)


def register_condition(name: str) -> Callable[[_Class], _Class]:
    """Decorate a class derived from `Condition`, so that ``--motivation-condition name`` chooses it.

    Its constructor is given ``k`` and ``seed`` if it names them, and what ``--motivation-plugin-kwargs`` says.

    Raises:
        ValueError: the name is taken, the class is registered already or no `Condition`, it has no property
            ``motivated``, or ``needs`` names an unknown signal.
    """

    def register(cls: _Class) -> _Class:
        if name in _conditions:
            raise ValueError(
                f"a motivation condition {name!r} is registered already, by {_conditions[name].__module__}"
            )
        if not (isinstance(cls, type) and issubclass(cls, Condition)):
            raise ValueError(f"the condition {name!r} is not a class derived from motivation.Condition")
        if cls in _conditions.values():
            raise ValueError(f"the condition {cls.__name__} is registered already, as {cls.name!r}")
        if cls.motivated is Condition.motivated:
            raise ValueError(
                f"the condition {cls.__name__} has no `motivated`, a property that says whether the next update trains "
                "the motivated model"
            )
        if callable(cls.motivated):
            raise ValueError(f"`motivated` of the condition {cls.__name__} is a method: put @property above it")
        if isinstance(cls.needs, str):
            cls.needs = (cls.needs,)
        if unknown := [need for need in cls.needs if need not in SIGNAL_NAMES]:
            raise ValueError(f"the condition {cls.__name__} needs {unknown[0]!r}; there are {', '.join(SIGNAL_NAMES)}")
        cls.name = name
        _conditions[name] = cls
        return cls

    return register


def condition_class(name: str) -> type[Condition]:
    """Return the condition class of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _conditions:
        raise ValueError(f"no motivation condition {name!r}; there are {', '.join(condition_names())}")
    return _conditions[name]


def condition_names() -> list[str]:
    """Return all registered names."""
    return sorted(_conditions)


def is_registered(cls: type) -> bool:
    """Return True if a class, or one derived from it, is registered."""
    return any(issubclass(condition, cls) for condition in _conditions.values())


def needs_of(name: str) -> frozenset[str]:
    """Return the signals beside the loss that the condition of that name reads; none if there is no such condition."""
    return frozenset(_conditions[name].needs) if name in _conditions else frozenset()


def arguments_of(cls: type) -> list[str]:
    """Return the names of a constructor's arguments; ``**kwargs`` stand for those of the next class's constructor.

    >>> class Own:
    ...     def __init__(self, k, decay=0.9): ...
    >>> arguments_of(Own)
    ['k', 'decay']
    """
    names: dict[str, None] = {}
    for constructor in (vars(base)["__init__"] for base in cls.__mro__[:-1] if "__init__" in vars(base)):
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        variable = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names |= dict.fromkeys(p.name for p in parameters if p not in variable)
        if not any(p.kind is p.VAR_KEYWORD for p in variable):
            break
    return list(names)


def takes(name: str, argument: str) -> bool:
    """Return True if the condition of that name takes that argument, or is not registered here (a user's own)."""
    return name not in _conditions or argument in arguments_of(_conditions[name])


def has_streak_law(name: str) -> bool:
    """Return True if the share of the condition of that name is `streak_share` where signals are independent.

    >>> [name for name in condition_names() if has_streak_law(name)]
    ['loss', 'slope', 'valloss']
    """
    return name in _conditions and _conditions[name].expected_share is Streak.expected_share
