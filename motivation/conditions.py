"""When to train the motivated model (paper, sections 3.4 and 4.4).

A condition is fed a read-only record after each update and answers `motivated` for the next one. It never sees the
trainer. Conditions of a user's own are registered by `register_condition` in a file of ``--motivation-plugins``.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from motivation.records import SIGNALS, UpdateRecord


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

    >>> arguments_of(FallingAverage)
    ['k', 'decay', 'drop']
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
        return _conditions[name](**common, **options)
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
    condition: Any = _conditions.get(name)
    return condition is not None and getattr(condition, "expected_share", None) is Streak.expected_share


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
