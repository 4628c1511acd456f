"""The numbers behind the pictures: losses by update, motivated stretches, running means, limits of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from motivation.method.condition_registry import has_streak_law, make_condition
from motivation.method.conditions import next_streak
from motivation.training.run_folder import RunFolder, Updates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AFTER_FALLS = (
    "Losses jump up where the motivated model trains, and much of that is no harm done by motivation: a switch follows "
    "k falls of a noisy loss, and after these the next loss is likely to be higher whoever makes it (regression to the "
    "mean)."
)
"""The caption of a chart of losses: why they jump up at switches."""

FAR = 3
"""Values further outside the middle 98 % than this many times their width do not stretch an axis."""


# ---- a run's names


def title(run: RunFolder) -> str:
    """Return models, condition, k and seed."""
    if not run.motivated:
        return f"{run.base} alone, seed {run.seed}"
    return f"{run.base} in {run.motivated}, {run.condition_text}, seed {run.seed}"


def loss_name(run: RunFolder) -> str:
    """Return the name of the training loss with its unit, by the run's options."""
    if run.options.get("kd_model_name"):
        return "training loss with distillation"
    if run.options.get("jsd_loss"):
        return "training loss: JSD + cross-entropy (nats)"
    kind = "binary cross-entropy" if run.options.get("bce_loss") else "cross-entropy"
    return f"training loss: {kind} (nats)"


def expected_share(run: RunFolder) -> float | None:
    """Return the share to expect if successive signals were independent, the same that the run itself has printed.

    None for a condition without such a law, and before the first epoch.
    """
    if not (run.motivated and run.k and has_streak_law(run.condition)):
        return None
    length = _updates_per_epoch(run)
    expected = make_condition("loss", run.k).expected_updates(1, length)
    return expected / length if length and expected is not None else None


def _updates_per_epoch(run: RunFolder) -> int:
    """Return how many updates an epoch has, 0 if there is none yet; without ``updates.csv`` as most rows say."""
    if len(run.updates):
        return int(run.updates.update.max()) + 1
    epochs, base = evaluated(run, "base_updates")
    updates = (base + evaluated(run, "motivated_updates")[1]) / np.diff(epochs, prepend=-1)
    return round(np.median(updates)) if len(updates) else 0


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


def after_falls(updates: Updates, k: int) -> NDArray[np.bool_]:
    """Return which updates follow k falls of the loss in a row, ``[N]``: those that the condition ``loss`` motivates.

    Streak and previous loss are forgotten at an epoch's start.
    """
    follows, streak, previous, epoch = [], 0, None, None
    for number, loss in zip(updates.epoch.tolist(), updates.loss.tolist(), strict=True):
        if number != epoch:
            streak, previous, epoch = 0, None, number
        follows.append(streak >= k)
        streak, previous = next_streak(streak, previous, loss), loss
    return np.array(follows, np.bool_)


def epoch_lengths(updates: Updates) -> tuple[Ints, Ints]:
    """Return the epochs, and how many updates each has.

    The last may be in progress: it is taken to become as long as the one before it.
    """
    numbers, which = np.unique(updates.epoch, return_inverse=True)
    lengths = np.zeros(len(numbers), np.int64)
    np.maximum.at(lengths, which, updates.update + 1)
    lengths[-1] = max(lengths[-2:])
    return numbers, lengths


def edges(updates: Updates, in_epochs: bool) -> tuple[Floats, Floats]:
    """Return where each update begins and ends on the x axis.

    Args:
        updates: at least one.
        in_epochs: in epochs since the run's start, so that update u of U in epoch e is e + u/U to e + (u + 1)/U;
            otherwise in updates of an epoch, and update u is u - 1/2 to u + 1/2.
    """
    position = updates.update.astype(np.float64)
    if not in_epochs:
        return position - 0.5, position + 0.5
    numbers, lengths = epoch_lengths(updates)
    length = lengths[np.searchsorted(numbers, updates.epoch)]
    return updates.epoch + position / length, updates.epoch + (position + 1) / length


# ---- a run's epochs


def evaluated(run: RunFolder, column: str) -> tuple[Floats, Floats]:
    """Return the epochs in ``summary.csv`` and their values in a column, both ``[E]``; NaN where a value is missing."""
    values = [row.get(column) for row in run.epochs]
    numbers = [value if isinstance(value, (int, float)) else np.nan for value in values]
    return np.array([row["epoch"] for row in run.epochs], np.float64), np.array(numbers, np.float64)


def share_per_epoch(run: RunFolder, updates: Updates) -> tuple[Floats, Floats]:
    """Return epochs and the share of motivated updates in each, both ``[E]``.

    Args:
        run: without updates its ``summary.csv`` is read, which has the evaluated epochs.
        updates: of the run, from all epochs. An epoch in progress is left out.
    """
    if not len(updates):
        epochs, base = evaluated(run, "base_updates")
        motivated = evaluated(run, "motivated_updates")[1]
        return epochs, motivated / np.maximum(base + motivated, 1)
    numbers, which, counts = np.unique(updates.epoch, return_inverse=True, return_counts=True)
    shares = np.bincount(which, updates.motivated) / counts
    done = {row["epoch"] for row in run.epochs}
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
