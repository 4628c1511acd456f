"""When to train the motivated model: what a motivation condition is (paper, section 3.4), and those of the paper.

`FallingLoss` is the paper's condition; the others are those of its sections 4.4.1 and 4.4.2, and the two bounds. A
condition is chosen by its name with `motivation.method.condition_registry.make_condition`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from motivation.method.records import UpdateRecord


class Condition:
    """Decide after each update which model the next one trains.

    It is shown a read-only record of each update by `observe`, and answers by `motivated`. It never sees models or
    trainer. Subclasses define `motivated`, and those of the other methods that they need.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[Iterable[str]] = ()
    """Signals that `observe` reads beside the loss: ``gradient_norm``, ``validation_loss``. Only these are measured."""
    streak: Any = None
    """Length of the current streak, for the log; None if the condition has none."""

    @property
    def motivated(self) -> bool:
        """True if the next update is to train the motivated model."""
        raise NotImplementedError

    @property
    def expected_share(self) -> float | None:
        """Expected share of motivated updates in a run; None if there is no law for it."""
        return None

    def expected_updates(self, epochs: int, updates: int) -> float | None:
        """Return the expected number of motivated updates in ``epochs`` epochs of ``updates`` updates each; None if
        there is no law for it."""
        return None if self.expected_share is None else self.expected_share * epochs * updates

    def start_run(self, epochs: int, updates: int) -> None:
        """Prepare for a run of that many epochs, each of ``updates`` updates.

        Raises:
            ValueError: the condition cannot serve such a run.
        """

    def start_epoch(self, epoch: int, updates: int | None) -> None:
        """Prepare for an epoch.

        Args:
            epoch: counted from 0.
            updates: number of updates in it; None in a loop that does not know.
        """

    def observe(self, record: UpdateRecord) -> None:
        """Take note of an update that was done."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on in the middle of an epoch, in plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def next_streak(streak: int, previous: float | None, signal: float) -> int:
    """Return the number of strict decreases in a row that end with ``signal`` (paper, Algorithm 1).

    A value that is not finite ends the streak, and the next one is not compared with it.

    >>> next_streak(1, 0.5, 0.4), next_streak(1, 0.5, 0.5), next_streak(1, 0.5, float("nan"))
    (2, 0, 0)
    """
    if previous is None or not (math.isfinite(previous) and math.isfinite(signal)):
        return 0
    return streak + 1 if signal < previous else 0


def streak_share(k: int) -> float:
    """Return the share of motivated updates if successive signals were independent: 1 / (k + 1)!.

    >>> round(streak_share(2), 4)
    0.1667
    """
    return 1.0 / math.factorial(k + 1) if k < 170 else 0.0  # 170! is the largest factorial that fits a float


class Streak(Condition):
    """Motivate when a signal has fallen k times in a row; subclasses define the signal.

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
        """Return the number that is watched."""
        raise NotImplementedError

    @property
    def motivated(self) -> bool:
        return self.streak >= self.k

    @property
    def expected_share(self) -> float | None:
        return streak_share(self.k)

    def expected_updates(self, epochs: int, updates: int) -> float | None:
        # the first k + 1 updates of an epoch have no streak of k decreases behind them
        return None if self.expected_share is None else self.expected_share * epochs * max(0, updates - self.k - 1)

    def start_epoch(self, epoch: int, updates: int | None) -> None:
        self.streak, self._previous = 0, None

    def observe(self, record: UpdateRecord) -> None:
        signal = self.signal(record)
        self.streak = next_streak(self.streak, self._previous, signal)
        self._previous = signal

    def state_dict(self) -> dict[str, Any]:
        # k is for readers of the file only: a state may go on with another k
        return {"k": self.k, "streak": self.streak, "previous": self._previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streak, self._previous = state["streak"], state["previous"]


class FallingLoss(Streak):
    """Motivate when the training loss has fallen k times in a row (paper, section 3.4)."""

    name = "loss"

    def signal(self, record: UpdateRecord) -> float:
        return record.loss


class FallingAverage(Streak):
    """Motivate when the moving average of the training loss has dropped k times in a row (paper, section 4.4.2).

    The average starts at the first loss of an epoch (ours). A loss that is not finite ends the streak and is left out
    of the average (ours).

    Args:
        k: length of the streak, at least 1.
        decay: weight of the average so far, from 0 to below 1 (the paper does not give it).
        drop: how much lower the average must be than the last, relative to it (paper: 0.2 %).
    """

    name = "ema"

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


class FallingValidationLoss(Streak):
    """Motivate when the loss on one held-out batch has fallen k times in a row (paper, section 4.4.2)."""

    name = "valloss"
    needs = ("validation_loss",)

    def signal(self, record: UpdateRecord) -> float:
        return record.validation_loss


class RisingSlope(Streak):
    """Motivate when the Euclidean norm of all gradients has risen k times in a row (paper, section 4.4.2)."""

    name = "slope"
    needs = ("gradient_norm",)

    def signal(self, record: UpdateRecord) -> float:
        return -record.gradient_norm  # negated: a streak counts decreases


class RandomSchedule(Condition):
    """Motivate at random updates of each epoch; subclasses define how many.

    What is drawn depends on seed and epoch only, so all ranks draw the same.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._epoch, self._updates, self._next = -1, 0, 0
        self._chosen: frozenset[int] = frozenset()

    def count(self, epoch: int, updates: int, stream: random.Random) -> int:
        """Return how many of an epoch's updates are motivated."""
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


class RandomUpdates(RandomSchedule):
    """Motivate a random number of updates, at random places: experiment A of the paper's ablation (section 4.4.1).

    The number is uniform in 0 ... updates of the epoch, the places are drawn without replacement (ours).

    Args:
        seed: of the draws.
    """

    name = "random"
    expected_share = 0.5

    def count(self, epoch: int, updates: int, stream: random.Random) -> int:
        return stream.randint(0, updates)


class ScheduledUpdates(RandomSchedule):
    """Motivate as many updates per epoch as in earlier runs, at random places: experiment B of the paper's ablation
    (section 4.4.1).

    Args:
        counts: motivated updates of each epoch; a mean over runs is rounded to the nearest whole number, a half up.
        seed: of the draws.
    """

    name = "scheduled"

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
        if epoch >= len(self.counts) or self.counts[epoch] > updates:
            raise ValueError(
                f"the condition {self.name!r} has no count for epoch {epoch} of {updates} updates; "
                "call start_run before training to check all epochs"
            )
        return self.counts[epoch]


class Never(Condition):
    """Train the base alone."""

    name = "never"
    motivated = False
    expected_share = 0.0


class Always(Condition):
    """Train the motivated model alone, from the first update on; the base is extracted from it at an epoch's end."""

    name = "always"
    motivated = True
    expected_share = 1.0
