"""When to train the motivated model (paper, section 3.4).

A condition is fed a read-only record after each update and answers `motivated` for the next one. It never sees the
trainer. The bounds ``never`` and ``always`` are the base trained alone and the motivated model trained alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from motivation.records import UpdateRecord


def next_streak(streak: int, previous: float | None, signal: float) -> int:
    """Length of the run of strict decreases that ends with ``signal`` (paper, Algorithm 1).

    A value that is not finite ends the run.

    >>> next_streak(1, 0.5, 0.4), next_streak(1, 0.5, 0.5), next_streak(1, 0.5, float("nan"))
    (2, 0, 0)
    """
    return streak + 1 if previous is not None and math.isfinite(signal) and signal < previous else 0


def expected_share(k: int) -> float:
    """Share of motivated updates if successive losses were independent: 1 / (k + 1)!.

    >>> round(expected_share(2), 4)
    0.1667
    """
    return 1.0 / math.factorial(k + 1) if k < 170 else 0.0


class Condition:
    """A motivation condition.

    Subclasses answer `motivated` and whatever of the other methods they need.
    """

    name: ClassVar[str]
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

    def start_epoch(self, epoch: int, updates: int) -> None:
        """An epoch of ``updates`` updates begins."""

    def observe(self, record: UpdateRecord) -> None:
        """An update was done."""

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


_conditions: dict[str, Callable[..., Condition]] = {}


def register_condition(name: str) -> Callable[[type[Condition]], type[Condition]]:
    """Decorator: a condition class that ``--motivation-condition name`` chooses.

    The class is made with ``k=`` of ``--motivation-k``.

    Raises:
        ValueError: the name is taken.
    """

    def register(condition: type[Condition]) -> type[Condition]:
        if name in _conditions:
            raise ValueError(f"a motivation condition {name!r} is registered already")
        condition.name = name
        _conditions[name] = condition
        return condition

    return register


def condition_names() -> list[str]:
    """All registered names."""
    return sorted(_conditions)


def needs_of(name: str) -> frozenset[str]:
    """What the condition of that name wants to be told of each update besides the loss; nothing if there is none."""
    return frozenset(getattr(_conditions.get(name), "needs", ()))


def make_condition(name: str, k: int) -> Condition:
    """The condition of that name.

    Raises:
        ValueError: no such condition, or k is not at least 1.
    """
    if name not in _conditions:
        raise ValueError(f"no motivation condition {name!r}; there are {', '.join(condition_names())}")
    return _conditions[name](k=k)


@register_condition("loss")
class FallingLoss(Condition):
    """The training loss has fallen k times in a row (paper, section 3.4).

    Streak and previous loss are forgotten at an epoch's start (ours).

    Args:
        k: length of the streak, at least 1.
    """

    def __init__(self, k: int):
        if k < 1:
            raise ValueError(f"k is the length of a streak, at least 1, not {k}")
        self.k = k
        self.streak: int = 0
        self._previous: float | None = None

    @property
    def motivated(self) -> bool:
        return self.streak >= self.k

    @property
    def expected_share(self) -> float:
        return expected_share(self.k)

    def start_epoch(self, epoch: int, updates: int) -> None:
        self.streak, self._previous = 0, None

    def observe(self, record: UpdateRecord) -> None:
        self.streak = next_streak(self.streak, self._previous, record.loss)
        self._previous = record.loss

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k, "streak": self.streak, "previous": self._previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streak, self._previous = state["streak"], state["previous"]


class _Bound(Condition):
    """A condition that looks at nothing."""

    def __init__(self, k: int = 0):
        pass


@register_condition("never")
class Never(_Bound):
    """The base alone."""

    motivated = False
    expected_share = 0.0


@register_condition("always")
class Always(_Bound):
    """The motivated model alone, from the first update on; the base is its extract."""

    motivated = True
    expected_share = 1.0
