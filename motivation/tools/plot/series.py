"""The numbers behind the pictures: losses by update, motivated stretches, running means, limits of axes.

What the paper's Figure 2 shows (supplementary section 7) as arrays; nothing here draws.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motivation.method.records import Role
from motivation.training.run_folder import RunError, RunFolder

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FAR = 3
"""Values further outside the middle 98 % than this many times their width do not stretch an axis."""


@dataclass(frozen=True)
class Trajectory:
    """The losses of a run's updates, in the order of training. All arrays are ``[N]``, N the number of updates.

    Attributes:
        epochs: of each update, counted from 0.
        updates: its number in its epoch, counted from 0.
        losses: training loss, of the model that the update trained; may be not finite.
        motivated: whether the update trained the motivated model.
    """

    epochs: NDArray[np.int64]
    updates: NDArray[np.int64]
    losses: Floats
    motivated: Bools

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def share(self) -> float:
        """Motivated updates over all updates."""
        return float(self.motivated.mean())

    def of_epoch(self, epoch: int) -> Trajectory:
        """That epoch alone; empty if it has no updates."""
        chosen = self.epochs == epoch
        return Trajectory(self.epochs[chosen], self.updates[chosen], self.losses[chosen], self.motivated[chosen])

    def epoch_lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epochs, and how many updates each has.

        The last may be in progress: it is taken to become as long as the one before it.
        """
        numbers, which = np.unique(self.epochs, return_inverse=True)
        lengths = np.zeros(len(numbers), np.int64)
        np.maximum.at(lengths, which, self.updates + 1)
        if len(lengths) > 1:
            lengths[-1] = max(lengths[-2:])
        return numbers, lengths

    def edges(self, in_epochs: bool) -> tuple[Floats, Floats]:
        """Where each update begins and ends on the x axis.

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
    """The updates of a run. A last line that is not yet written to its end is left out.

    Raises:
        RunError: no ``updates.csv``, or one that is damaged.
    """
    try:
        rows = run.updates
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{run.path / 'updates.csv'} is damaged: {error}") from error
    if not _complete(rows[-1]):
        rows = rows[:-1]
    for number, row in enumerate(rows):
        if not _complete(row):
            raise RunError(f"{run.path / 'updates.csv'} is damaged: line {number + 2} is no update")
    if not rows:
        raise RunError(f"{run.path} has no updates.csv with a line per update")
    return Trajectory(
        np.array([row["epoch"] for row in rows], np.int64),
        np.array([row["update"] for row in rows], np.int64),
        np.array([row["loss"] for row in rows], np.float64),
        np.array([row["active"] == Role.MOTIVATED.value for row in rows], np.bool_),
    )


def _complete(row: dict[str, Any]) -> bool:
    whole = all(isinstance(row.get(name), int) for name in ("epoch", "update"))
    numbers = all(isinstance(row.get(name), (int, float)) for name in ("loss", "lr"))
    return whole and numbers and row.get("active") in [role.value for role in Role]


def stretches(motivated: Sequence[bool] | Bools) -> NDArray[np.int64]:
    """Stretches of motivated updates as half-open intervals ``[S, 2]``: first update, and the first after it.

    >>> stretches([False, True, True, False, True]).tolist()
    [[1, 3], [4, 5]]
    """
    padded = np.concatenate([[False], np.asarray(motivated, np.bool_), [False]]).astype(np.int8)
    return np.flatnonzero(np.diff(padded)).reshape(-1, 2)


def running_mean(values: Sequence[float] | Floats, width: int) -> Floats:
    """Mean over ``width`` values around each, ``[N] -> [N]``; over as many as there are near the ends.

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
    """Updates in a running mean that leave about 60 independent points, as 1, 2 or 5 times a power of ten.

    >>> [default_smoothing(n) for n in (20, 660, 78_200)]
    [1, 10, 1000]
    """
    width = max(updates / 60, 1.0)
    power = 10 ** math.floor(math.log10(width))
    return int(max(step for step in (1, 2, 5) if step * power <= width) * power)


def columns(length: int, most: int) -> NDArray[np.int64]:
    """Bounds ``[C + 1]`` of at most ``most`` columns of equally many updates each, the last of fewer.

    >>> columns(7, 3).tolist()
    [0, 3, 6, 7]
    """
    return np.append(np.arange(0, length, -(-length // most)), length)


def suits_log_scale(losses: Floats) -> bool:
    """Whether a linear axis would hide most of a run: its losses are positive and fall through more than a decade."""
    finite = losses[np.isfinite(losses)]
    if not len(finite) or finite.min() <= 0:
        return False
    low, high = np.quantile(finite, [0.05, 0.95])
    return bool(high > 30 * low)


def axis_limits(values: Floats, log: bool = False) -> tuple[float, float]:
    """Limits of a y axis that shows the values, without the few that lie far from all others.

    Args:
        values: ``[N]``; those that are not finite have no say.
        log: the axis is logarithmic, and the values positive.
    """
    scale = np.log10 if log else np.asarray
    shown = scale(values[np.isfinite(values)])
    if not len(shown):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = np.quantile(shown, 0.01, method="higher"), np.quantile(shown, 0.99, method="lower")
    if high > low:
        reach = _FAR * (high - low)
        shown = shown[(shown >= low - reach) & (shown <= high + reach)]
    bottom, top = float(shown.min()), float(shown.max())
    margin = 0.05 * (top - bottom) or 0.05 * abs(top) or 0.05
    from_zero = not log and 0 <= bottom < top / 3
    limits = 0.0 if from_zero else bottom - margin, top + margin
    return (10 ** limits[0], 10 ** limits[1]) if log else limits


def epoch_rows(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of ``summary.csv``, each with its epoch; none before the first evaluation.

    Raises:
        RunError: the file is damaged.
    """
    file = run.path / "summary.csv"
    try:
        rows = run.epochs
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{file} is damaged: {error}") from error
    for number, row in enumerate(rows):
        if not isinstance(row.get("epoch"), int):
            raise RunError(f"{file} is damaged: line {number + 2} names no epoch")
    return rows


def evaluated(run: RunFolder, column: str) -> tuple[Floats, Floats]:
    """Epochs in ``summary.csv``, and their values in a column, both ``[E]``; NaN where a value is missing."""
    rows = epoch_rows(run)
    values = [row.get(column) for row in rows]
    numbers = [value if isinstance(value, (int, float)) else np.nan for value in values]
    return np.array([row["epoch"] for row in rows], np.float64), np.array(numbers, np.float64)


def share_per_epoch(run: RunFolder, path: Trajectory | None) -> tuple[Floats, Floats]:
    """Epochs, and the share of motivated updates in each, both ``[E]``.

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
