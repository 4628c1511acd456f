"""The numbers behind the pictures: losses by update, motivated stretches, running means, limits of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motivation.method.condition_registry import has_streak_law, takes
from motivation.method.conditions import expected_share
from motivation.method.records import Role
from motivation.training.run_folder import RunError, RunFolder

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAR = 3
"""Values further outside the middle 98 % than this many times their width do not stretch an axis."""


# ---- a run's names


def title(run: RunFolder) -> str:
    """Return models, condition, k and seed."""
    if not run.motivated:
        return f"{run.base} alone, seed {run.seed}"
    condition = run.options.get("motivation_condition", "loss")
    k = f", k = {run.options.get('motivation_k', 2)}" if takes(condition, "k") else ""
    return f"{run.base} in {run.motivated}, condition {condition}{k}, seed {run.seed}"


def loss_name(run: RunFolder) -> str:
    """Return the name of the training loss with its unit, by the run's options."""
    if run.options.get("kd_model_name"):
        return "training loss with distillation"
    if run.options.get("jsd_loss"):
        return "training loss: JSD + cross-entropy (nats)"
    kind = "binary cross-entropy" if run.options.get("bce_loss") else "cross-entropy"
    return f"training loss: {kind} (nats)"


def law(run: RunFolder) -> float | None:
    """Return the share to expect if successive signals were independent; None for a condition without such a law."""
    if not run.motivated or not has_streak_law(run.options.get("motivation_condition", "loss")):
        return None
    return expected_share(int(run.options.get("motivation_k", 2)))


def percent(share: float) -> str:
    """
    >>> percent(0.15303), percent(0.00139), percent(0.0)
    ('15.3 %', '0.14 %', '0.0 %')
    """
    value = 100 * share
    return f"{value:.1f} %" if value >= 1 or not value else f"{value:.2g} %"


def updates_text(count: int) -> str:
    """
    >>> updates_text(1), updates_text(1200)
    ('1 update', '1,200 updates')
    """
    return f"{count:,} update{'s' * (count != 1)}"


# ---- a run's updates


@dataclass(frozen=True)
class Trajectory:
    """The updates of a run in the order of training. All arrays are ``[N]``, N the number of updates.

    Attributes:
        epochs: of each update, counted from 0.
        updates: its number in its epoch, counted from 0.
        losses: training loss of the model that the update trained; may be not finite.
        motivated: True where the update trained the motivated model.
    """

    epochs: Ints
    updates: Ints
    losses: Floats
    motivated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def share(self) -> float:
        """Return motivated updates over all updates."""
        return float(self.motivated.mean())

    def of_epoch(self, epoch: int) -> Trajectory:
        """Return that epoch alone; empty if it has no updates."""
        chosen = self.epochs == epoch
        return Trajectory(self.epochs[chosen], self.updates[chosen], self.losses[chosen], self.motivated[chosen])

    def epoch_lengths(self) -> tuple[Ints, Ints]:
        """Return the epochs, and how many updates each has.

        The last may be in progress: it is taken to become as long as the one before it.
        """
        numbers, which = np.unique(self.epochs, return_inverse=True)
        lengths = np.zeros(len(numbers), np.int64)
        np.maximum.at(lengths, which, self.updates + 1)
        if len(lengths) > 1:
            lengths[-1] = max(lengths[-2:])
        return numbers, lengths

    def edges(self, in_epochs: bool) -> tuple[Floats, Floats]:
        """Return where each update begins and ends on the x axis.

        Args:
            in_epochs: in epochs since the run's start, so that update u of U in epoch e is e + u/U to e + (u + 1)/U;
                otherwise in updates of an epoch, and update u is u - 1/2 to u + 1/2.
        """
        position = self.updates.astype(np.float64)
        if not in_epochs:
            return position - 0.5, position + 0.5
        numbers, lengths = self.epoch_lengths()
        length = lengths[np.searchsorted(numbers, self.epochs)].astype(np.float64)
        return self.epochs + position / length, self.epochs + (position + 1) / length


def trajectory(run: RunFolder) -> Trajectory:
    """Read the updates of a run; a last line that is not yet written to its end is left out.

    Raises:
        RunError: there is no ``updates.csv``, or a damaged one.
    """
    rows = run.updates
    if not _is_whole(rows[-1]):
        rows = rows[:-1]
    for number, row in enumerate(rows):
        if not _is_whole(row):
            raise RunError(f"{run.path / 'updates.csv'} is damaged: line {number + 2} is no update")
    if not rows:
        raise RunError(f"{run.path} has no updates.csv with a line per update")
    return Trajectory(
        np.array([row["epoch"] for row in rows], np.int64),
        np.array([row["update"] for row in rows], np.int64),
        np.array([row["loss"] for row in rows], np.float64),
        np.array([row["active"] == Role.MOTIVATED.value for row in rows], np.bool_),
    )


def _is_whole(row: dict[str, Any]) -> bool:
    kinds: dict[str, Any] = {"epoch": int, "update": int, "loss": (int, float), "lr": (int, float)}
    roles = [role.value for role in Role]
    return row.get("active") in roles and all(isinstance(row.get(name), kind) for name, kind in kinds.items())


# ---- a run's epochs


def epoch_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return the lines of ``summary.csv``, each with its epoch; none before the first evaluation.

    Raises:
        RunError: the file is damaged.
    """
    for number, row in enumerate(run.epochs):
        if not isinstance(row.get("epoch"), int):
            raise RunError(f"{run.path / 'summary.csv'} is damaged: line {number + 2} names no epoch")
    return run.epochs


def evaluated(run: RunFolder, column: str) -> tuple[Floats, Floats]:
    """Return the epochs in ``summary.csv`` and their values in a column, both ``[E]``; NaN where a value is missing."""
    rows = epoch_rows(run)
    values = [row.get(column) for row in rows]
    numbers = [value if isinstance(value, (int, float)) else np.nan for value in values]
    return np.array([row["epoch"] for row in rows], np.float64), np.array(numbers, np.float64)


def share_per_epoch(run: RunFolder, path: Trajectory | None) -> tuple[Floats, Floats]:
    """Return epochs and the share of motivated updates in each, both ``[E]``.

    Args:
        run: without a trajectory its ``summary.csv`` is read, which has the evaluated epochs.
        path: the run's updates, from all epochs. An epoch in progress is left out.
    """
    if path is None:
        epochs, base = evaluated(run, "base_updates")
        motivated = evaluated(run, "motivated_updates")[1]
        return epochs, motivated / np.maximum(base + motivated, 1)
    numbers, which = np.unique(path.epochs, return_inverse=True)
    counts = np.bincount(which)
    shares = np.bincount(which, path.motivated) / counts
    done = {row["epoch"] for row in epoch_rows(run)}
    in_progress = len(counts) > 1 and counts[-1] < counts[-2] and int(numbers[-1]) not in done
    kept = slice(None, -1 if in_progress else None)
    return numbers[kept].astype(np.float64), shares[kept]


# ---- how to draw them


def stretches(motivated: Sequence[bool] | NDArray[np.bool_]) -> Ints:
    """Return stretches of motivated updates as half-open intervals ``[S, 2]``: first update, first after it.

    >>> stretches([False, True, True, False, True]).tolist()
    [[1, 3], [4, 5]]
    """
    padded = np.concatenate([[False], np.asarray(motivated, np.bool_), [False]]).astype(np.int8)
    return np.flatnonzero(np.diff(padded)).reshape(-1, 2)


def columns(length: int, most: int) -> Ints:
    """Return the bounds ``[C + 1]`` of at most ``most`` columns of equally many updates each, the last of fewer.

    >>> columns(7, 3).tolist()
    [0, 3, 6, 7]
    """
    return np.append(np.arange(0, length, -(-length // most)), length)


def running_mean(values: Sequence[float] | Floats, width: int) -> Floats:
    """Return the mean over ``width`` values around each, ``[N] -> [N]``; near the ends over as many as there are.

    Values that are not finite are left out; NaN where no other is near.

    >>> running_mean([1.0, 2.0, 6.0, float("nan")], 3).tolist()
    [1.5, 3.0, 4.0, 6.0]
    """
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    window = np.ones(min(width, len(array)))
    # a convolution and no cumulative sum: one huge loss would take the digits of all that follow
    counts = np.convolve(finite, window, "same")
    sums = np.convolve(np.where(finite, array, 0.0), window, "same")
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def default_smoothing(updates: int) -> int:
    """Return the width of a running mean that leaves about 60 independent points: 1, 2 or 5 times a power of ten.

    >>> [default_smoothing(n) for n in (20, 660, 78_200)]
    [1, 10, 1000]
    """
    width = max(updates / 60, 1.0)
    power = 10 ** math.floor(math.log10(width))
    return int(max(step for step in (1, 2, 5) if step * power <= width) * power)


def suits_log_scale(losses: Floats) -> bool:
    """Return True if a linear axis would hide most of a run: its losses are positive and fall by over a decade."""
    finite = losses[np.isfinite(losses)]
    if not len(finite) or finite.min() <= 0:
        return False
    low, high = np.quantile(finite, [0.05, 0.95])
    return bool(high > 30 * low)


def axis_limits(values: Floats, log: bool = False) -> tuple[float, float]:
    """Return limits of a y axis that shows the values, without the few that lie far from all others.

    Args:
        values: ``[N]``; those that are not finite are ignored.
        log: the axis is logarithmic, and the values positive.
    """
    scale = np.log10 if log else np.asarray
    shown = scale(values[np.isfinite(values)])
    if not len(shown):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = np.quantile(shown, 0.01, method="higher"), np.quantile(shown, 0.99, method="lower")
    if high > low:
        reach = FAR * (high - low)
        shown = shown[(shown >= low - reach) & (shown <= high + reach)]
    bottom, top = float(shown.min()), float(shown.max())
    margin = 0.05 * (top - bottom) or 0.05 * abs(top) or 0.05
    from_zero = not log and 0 <= bottom < top / 3
    limits = 0.0 if from_zero else bottom - margin, top + margin
    return (10 ** limits[0], 10 ** limits[1]) if log else limits


def accuracy_limits(values: Floats) -> tuple[float, float]:
    """Return limits of a y axis that leaves the first, low accuracies below it where later ones lie close together."""
    top, quartile = values.max(), np.quantile(values, 0.25)
    bottom = max(values.min(), quartile - 2 * (top - quartile))
    margin = 0.06 * (top - bottom) or 1.0
    return float(bottom - margin), float(top + margin)
