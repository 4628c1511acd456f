"""When to train the motivated model: the conditions of the paper (sections 3.4 and 4.4) and of its ablations.

Conditions of a user's own are registered by `register_condition` in a file of ``--motivation-plugins``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from motivation.method.condition import (
    Condition,
    arguments_of,
    condition_class,
    condition_names,
    is_registered,
    needs_of,
    register_condition,
    takes,
)
from motivation.method.records import UpdateRecord

__all__ = [
    "Condition",
    "arguments_of",
    "condition_class",
    "condition_names",
    "is_registered",
    "make_condition",
    "needs_of",
    "register_condition",
    "takes",
]


def make_condition(name: str, k: int = 2, seed: int = 0, **options: Any) -> Condition:
    """The condition of that name.

    Args:
        k: length of a streak; for conditions that have one.
        seed: of the draws; for conditions that draw.
        options: further arguments of its constructor.

    Raises:
        ValueError: no such condition, or one that does not take these arguments or values.

    >>> make_condition("ema", k=3, decay=0.8).k
    3
    """
    taken = arguments_of(condition_class(name))
    if unknown := sorted(options.keys() - set(taken)):
        raise ValueError(f"the condition {name!r} takes no {unknown[0]!r}; it takes {', '.join(taken) or 'nothing'}")
    common = {key: value for key, value in (("k", k), ("seed", seed)) if key in taken}
    try:
        return condition_class(name)(**common, **options)
    except ValueError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise ValueError(f"the condition {name!r} cannot be made: {type(error).__name__}: {error}") from error


def next_streak(streak: int, previous: float | None, signal: float) -> int:
    """Length of the run of strict decreases that ends with ``signal`` (paper, Algorithm 1).

    A value that is not finite ends the run.

    >>> next_streak(1, 0.5, 0.4), next_streak(1, 0.5, 0.5), next_streak(1, 0.5, float("nan"))
    (2, 0, 0)
    """
    return streak + 1 if previous is not None and math.isfinite(signal) and signal < previous else 0


def expected_share(k: int) -> float:
    """Share of motivated updates if successive signals were independent: 1 / (k + 1)!.

    >>> round(expected_share(2), 4)
    0.1667
    """
    return 1.0 / math.factorial(k + 1) if k < 170 else 0.0


def has_streak_law(name: str) -> bool:
    """Whether independent signals give the condition of that name the share 1 / (k + 1)!.

    >>> [name for name in condition_names() if has_streak_law(name)]
    ['loss', 'slope', 'valloss']
    """
    return name in condition_names() and getattr(condition_class(name), "expected_share", None) is Streak.expected_share


class Streak(Condition):
    """A signal has fallen k times in a row. Subclasses say which signal.

    Streak and previous signal are forgotten at an epoch's start (ours).

    Args:
        k: length of the streak, at least 1.
    """

    def __init__(self, k: int):
        if k < 1:
            raise ValueError(f"k is the length of a streak, at least 1, not {k}")
        self.k = k
        self.streak: int = 0
        self._previous: float | None = None

    def signal(self, record: UpdateRecord) -> float:
        """The number that is watched."""
        raise NotImplementedError

    @property
    def motivated(self) -> bool:
        return self.streak >= self.k

    @property
    def expected_share(self) -> float | None:
        return expected_share(self.k)

    def expected_updates(self, epochs: int, updates: int) -> float | None:
        # the first k + 1 of an epoch have no streak of k decreases behind them
        return None if self.expected_share is None else self.expected_share * epochs * max(0, updates - self.k - 1)

    def start_epoch(self, epoch: int, updates: int | None) -> None:
        self.streak, self._previous = 0, None

    def observe(self, record: UpdateRecord) -> None:
        signal = self.signal(record)
        self.streak = next_streak(self.streak, self._previous, signal)
        self._previous = signal

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k, "streak": self.streak, "previous": self._previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streak, self._previous = state["streak"], state["previous"]


@register_condition("loss")
class FallingLoss(Streak):
    """The training loss has fallen k times in a row (paper, section 3.4)."""

    def signal(self, record: UpdateRecord) -> float:
        return record.loss


@register_condition("ema")
class FallingAverage(Streak):
    """The moving average of the training loss has dropped k times in a row (paper, section 4.4.2).

    The average starts at the first loss. It is forgotten at an epoch's start, as the signals of all conditions are
    (ours). A loss that is not finite ends the streak and does not enter the average (ours).

    Args:
        k: length of the streak, at least 1.
        decay: weight of the average so far, from 0 to below 1 (the paper does not give it).
        drop: how much lower the average must be than the last, relative to it (paper: 0.2 %).
    """

    def __init__(self, k: int, decay: float = 0.9, drop: float = 0.002):
        super().__init__(k)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the average's decay is from 0 to below 1, not {decay}")
        if not 0.0 <= drop < 1.0:
            raise ValueError(f"the relative drop is from 0 to below 1, not {drop}")
        self.decay, self.drop = decay, drop

    @property
    def expected_share(self) -> float | None:
        return None  # successive averages are not independent, whatever the losses are

    def observe(self, record: UpdateRecord) -> None:
        if not math.isfinite(record.loss):
            self.streak = 0
            return
        last = self._previous
        average = record.loss if last is None else self.decay * last + (1.0 - self.decay) * record.loss
        fallen = last is not None and average < last and last - average >= self.drop * abs(last)
        self.streak = self.streak + 1 if fallen else 0
        self._previous = average


@register_condition("valloss")
class FallingValidationLoss(Streak):
    """The loss on one held-out batch has fallen k times in a row (paper, section 4.4.2)."""

    needs = ("validation_loss",)

    def signal(self, record: UpdateRecord) -> float:
        return record.validation_loss


@register_condition("slope")
class RisingSlope(Streak):
    """The Euclidean norm of all gradients has risen k times in a row (paper, section 4.4.2)."""

    needs = ("gradient_norm",)

    def signal(self, record: UpdateRecord) -> float:
        return -record.gradient_norm


class _Drawn(Condition):
    """Motivated at updates that are drawn anew for each epoch; a function of seed and epoch, so all ranks agree."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._epoch, self._updates, self._next = -1, 0, 0
        self._chosen: frozenset[int] = frozenset()

    def count(self, epoch: int, updates: int, stream: random.Random) -> int:
        """How many of an epoch's updates are motivated."""
        raise NotImplementedError

    @property
    def motivated(self) -> bool:
        if self._epoch < 0:
            raise ValueError(f"the condition {self.name!r} draws for a whole epoch: start_epoch comes first")
        return self._next in self._chosen

    def start_epoch(self, epoch: int, updates: int | None) -> None:
        if updates is None:
            raise ValueError(f"the condition {self.name!r} must be told at an epoch's start how many updates it has")
        self._epoch, self._updates, self._next = epoch, updates, 0
        stream = random.Random(f"{self.name} {self.seed} {epoch}")
        self._chosen = frozenset(stream.sample(range(updates), self.count(epoch, updates, stream)))

    def observe(self, record: UpdateRecord) -> None:
        self._next += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "epoch": self._epoch, "updates": self._updates, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]
        if state["epoch"] >= 0:
            self.start_epoch(state["epoch"], state["updates"])
        self._next = state["next"]


@register_condition("random")
class RandomUpdates(_Drawn):
    """Experiment A of the paper's ablation (section 4.4.1): a random number of updates, at random places.

    The number is uniform in 0 ... updates of the epoch, the places are drawn without replacement (ours).

    Args:
        seed: of the draws.
    """

    expected_share = 0.5

    def count(self, epoch: int, updates: int, stream: random.Random) -> int:
        return stream.randint(0, updates)


@register_condition("scheduled")
class ScheduledUpdates(_Drawn):
    """Experiment B of the paper's ablation (section 4.4.1): as many updates per epoch as in earlier runs, drawn anew.

    Args:
        counts: motivated updates of each epoch; a mean over runs is rounded to the nearest whole number, a half up.
        seed: of the draws.
    """

    def __init__(self, counts: Sequence[float], seed: int = 0):
        super().__init__(seed)
        self.counts = [math.floor(count + 0.5) for count in counts]
        self._share: float | None = None

    @property
    def expected_share(self) -> float | None:
        return self._share

    def start_run(self, epochs: int, updates: int) -> None:
        if len(self.counts) < epochs:
            raise ValueError(f"the earlier runs have {len(self.counts)} epochs, this one {epochs}")
        most = max(self.counts[:epochs], default=0)
        if most > updates:
            raise ValueError(
                f"the earlier runs have up to {most} motivated updates in an epoch of this run's {updates}"
            )
        self._share = sum(self.counts[:epochs]) / max(1, epochs * updates)

    def count(self, epoch: int, updates: int, stream: random.Random) -> int:
        return self.counts[epoch]


class _Bound(Condition):
    """A condition that looks at nothing."""


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
