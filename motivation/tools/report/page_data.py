"""The numbers behind the charts of the page: losses thinned out, figures per epoch, means over runs; plain for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motivation.method.records import Role
from motivation.tools.plot import data
from motivation.tools.report.groups import Group, all_options, differing
from motivation.training.run_files import RunError
from motivation.training.run_folder import UPDATE, RunFolder, Updates

MOST_POINTS, MOST_POINTS_ON_PAGE = 20_000, 300_000
"""Points of a run's loss, and of all runs' together; a point takes 6 to 25 bytes of the page."""

MOST_EPOCHS = 2_000
"""Epochs of a run that are shown; of more every second, third, ... is."""

DIGITS = 5
"""Significant digits of a number."""


def numbers(values: Iterable[float | None] | NDArray[Any]) -> list[float | int | None]:
    """Return values for JSON: short, and None where they are not finite.

    >>> numbers([0.1234567, float("nan"), None, 3.0])
    [0.12346, None, None, 3]
    """
    return [_number(value) for value in values]


def _number(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short


def metric_of(run: RunFolder) -> str:
    """Return the accuracy to show of a run: ``top5`` where that ranks the epochs, else ``top1``."""
    return "top5" if run.options.get("eval_metric") == "top5" else "top1"


def run_data(run: RunFolder, points: int, falls: Iterable[int] = ()) -> dict[str, Any]:
    """Return what the charts of one run show.

    Args:
        run: its ``updates.csv`` is not kept, because that of a long run fills a gigabyte of memory.
        points: most points of its loss.
        falls: mark the updates after so many falls of the loss in a row, which the condition ``loss`` motivates; each
            number by itself.

    Raises:
        RunError: ``summary.csv`` or ``result.json`` is damaged.
    """
    run = replace(run)
    metric, fault, expected = metric_of(run), "", None
    shown: dict[str, Any] = {
        "title": data.title(run),
        "base": run.base,
        "motivated": None if _is_alone(run) else run.motivated,
        "convention": run.convention,
    }
    shown |= {"flops": {role.value: flops for role, flops in run.flops.items()}, "metric": f"top-{metric[-1]}"}
    updates = np.array([], UPDATE).view(np.recarray)
    if run.epochs or (run.path / "updates.csv").is_file():
        try:
            updates, expected = run.updates, data.expected_share(run)
        except RunError as error:
            fault = str(error)
    if not len(updates):
        fault = fault or "It has no updates.csv with a line per update."
    losses = _losses(updates, points, falls) | {"name": data.loss_name(run)} if len(updates) else None
    return shown | {
        **_epochs(run, metric),
        "k": run.k if run.motivated and run.condition == "loss" else None,
        "share": dict(zip(("x", "y"), map(_thin, data.share_per_epoch(run, updates)), strict=True)),
        "expected": _number(expected),
        "loss": losses,
        "fault": fault,
    }


def _thin(values: NDArray[Any]) -> list[float | int | None]:
    return numbers(values[:: -(-len(values) // MOST_EPOCHS) or 1])


def _epochs(run: RunFolder, metric: str) -> dict[str, Any]:
    """Return the figures of the epochs, and limits of the axes of accuracy and loss."""
    columns = {
        "x": "epoch",
        "base": f"eval_{metric}",
        "motivated": f"motivated_eval_{metric}",
        "train_loss": "train_loss",
        "base_loss": "eval_loss",
        "motivated_loss": "motivated_eval_loss",
        "cost": "average_flops",
    }
    values = {name: data.evaluated(run, column)[1] for name, column in columns.items()}
    if _is_alone(run):
        del values["motivated"], values["motivated_loss"]
    losses = np.concatenate([own for name, own in values.items() if name.endswith("loss")])
    log = data.suits_log_scale(losses)
    accuracies = np.concatenate([values[name] for name in ("base", "motivated") if name in values])
    return {
        "epochs": {name: _thin(own) for name, own in values.items()},
        "limits": {"accuracy": _accuracy_limits(accuracies), "loss": numbers(data.axis_limits(losses, log))},
        "log": log,
    }


def _accuracy_limits(accuracies: NDArray[np.float64]) -> list[float | int | None] | None:
    known = accuracies[np.isfinite(accuracies)]
    return numbers(data.accuracy_limits(known)) if len(known) else None


def _losses(updates: Updates, points: int, falls: Iterable[int]) -> dict[str, Any]:
    """Return the losses, one by one or as lowest, mean and highest of ``width`` updates each."""
    losses, finite = updates.loss, np.isfinite(updates.loss)
    bounds = data.columns(len(losses), points)
    starts, width = bounds[:-1], int(bounds[1] - bounds[0])
    epochs = np.flatnonzero(np.diff(updates.epoch, prepend=-1))[:points]
    found: dict[str, Any] = {
        "count": len(losses),
        "width": width,
        "epochs": np.stack([updates.epoch[epochs], epochs], axis=1).tolist(),
        "log": data.suits_log_scale(losses),
        "bad": np.flatnonzero(~np.logical_and.reduceat(finite, starts)).tolist(),
    }
    found["falls"] = {}
    for k in falls:
        after = data.after_falls(updates, k)
        rises = np.diff(losses, prepend=np.nan)[after]
        rises = rises[np.isfinite(rises)]
        places = np.flatnonzero(after).tolist() if width == 1 else []
        found["falls"][k] = {"rise": _number(rises.mean()) if len(rises) else None, "after": places}
    if width == 1:
        return found | {"mean": numbers(losses), "motivated": data.stretches(updates.motivated).ravel().tolist()}

    def each(function: Callable[..., NDArray[Any]], other: float) -> NDArray[np.float64]:
        return function(np.where(finite, losses, other), starts, dtype=np.float64)

    counts = np.add.reduceat(finite, starts, dtype=np.float64)
    return found | {
        "low": numbers(each(np.minimum.reduceat, np.inf)),
        "mean": numbers(np.where(counts > 0, each(np.add.reduceat, 0.0) / np.maximum(counts, 1), np.nan)),
        "high": numbers(each(np.maximum.reduceat, -np.inf)),
        "share": numbers(np.add.reduceat(updates.motivated, starts, dtype=np.float64) / np.diff(bounds)),
    }


def mean_curves(groups: Sequence[Group], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the top-1 of each configuration's models over the epochs, mean over the runs that have the epoch."""
    curves = []
    for number, (group, name) in enumerate(zip(groups, names, strict=True)):
        for role in Role if group.motivated else [Role.BASE]:
            by_epoch: dict[int, list[float]] = {}
            for run in group.runs:
                for row in run.evaluated(role):
                    by_epoch.setdefault(row["epoch"], []).append(row["top1"])
            if by_epoch:
                epochs = np.array(sorted(by_epoch))
                means = np.array([fmean(by_epoch[epoch]) for epoch in epochs])
                model = f", {role.value} model" if group.motivated else ""
                curves.append({"name": name + model, "group": number, "role": role.value, "runs": len(group.runs)})
                curves[-1] |= {"x": _thin(epochs), "y": _thin(means)}
    return curves


def curve_limits(curves: Sequence[dict[str, Any]]) -> list[float | int | None] | None:
    """Return limits of an axis for these curves, with the end of each; None if there are none."""
    known = [[value for value in curve["y"] if value is not None] for curve in curves]
    accuracies = np.array([value for values in known for value in values], np.float64)
    if not len(accuracies):
        return None
    bottom, top = data.accuracy_limits(accuracies)
    lowest_end = min(values[-1] for values in known if values)
    return numbers([min(bottom, lowest_end - 0.06 * (top - lowest_end)), top])


def _is_alone(run: RunFolder) -> bool:
    return not run.motivated or run.condition == "never"


def default_beside(run: RunFolder, runs: Sequence[RunFolder]) -> int | None:
    """Return the number of the run of the base alone with the same seed, fold and data; None if there is none.

    Of several, that with the fewest other options.
    """

    def facts(one: RunFolder) -> tuple[Any, ...]:
        return one.base, one.options.get("dataset"), one.seed, one.options.get("fold")

    def unlike(number: int) -> int:
        return len(differing([all_options(run), all_options(runs[number])]))

    alone = [
        n for n, other in enumerate(runs) if not _is_alone(run) and _is_alone(other) and facts(other) == facts(run)
    ]
    return min(alone, key=unlike, default=None)
