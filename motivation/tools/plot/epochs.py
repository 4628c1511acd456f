"""Draws what became of each epoch: accuracy of both models, share of motivated updates, average forward FLOPs.

The accuracies are those of the paper's tables, the cost is that of its supplementary section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from motivation.method.records import Role
from motivation.tools.plot.series import Floats, Trajectory, axis_limits, evaluated, share_per_epoch, suits_log_scale
from motivation.tools.plot.style import BASE, COST, GRID, MOTIVATED, legend_above, mark_outside
from motivation.tools.plot.words import law, percent, title
from motivation.training.flops import CONVENTION, readable
from motivation.training.run_folder import RunFolder

_BASE_STYLE: dict[str, Any] = {"color": BASE, "marker": "o", "ls": "-"}
_MOTIVATED_STYLE: dict[str, Any] = {"color": MOTIVATED, "marker": "s", "ls": "-", "mec": "black", "mew": 0.5}
_BESIDE_STYLE: dict[str, Any] = {"color": "#333333", "marker": "^", "ls": "--"}
_COST_STYLE: dict[str, Any] = {"color": COST, "marker": "o", "ls": "-"}
_MOST_MARKED = 60


def epochs_figure(run: RunFolder, beside: RunFolder | None = None, path: Trajectory | None = None) -> Figure:
    """The picture of a motivated run's epochs; of a plain run accuracy and loss.

    Args:
        run: with at least one line in ``summary.csv``.
        beside: its base's accuracy (and loss) is drawn too.
        path: the run's updates, if it has them, for the share and cost of the epochs that were not evaluated.
    """
    drawers: list[Callable[[Axes], list[Line2D]]] = [lambda axes: _draw_accuracy(axes, run, beside)]
    if run.motivated:
        drawers += [lambda axes: _draw_share(axes, run, path), lambda axes: _draw_cost(axes, run, path)]
    else:
        drawers.append(lambda axes: _draw_loss(axes, run, beside))
    figure = Figure(figsize=(8, 2.6 * len(drawers) + 0.4), layout="constrained")
    all_axes = figure.subplots(len(drawers), 1, sharex=True)
    for axes, draw in zip(all_axes, drawers, strict=True):
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        handles = draw(axes)
        legend_above(axes, handles, title(run) if axes is all_axes[0] else None)
    all_axes[-1].set_xlabel("epoch")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    return figure


def _line(axes: Axes, epochs: Floats, values: Floats, label: str, style: dict[str, Any]) -> list[Line2D]:
    """A line through the values there are, with a mark on each where marks have room or epochs are missing."""
    kept = np.isfinite(values)
    gaps = bool(kept.any()) and kept.sum() < np.ptp(epochs) + 1
    size = 3.5 if len(epochs) <= _MOST_MARKED or gaps else 0
    return axes.plot(epochs[kept], values[kept], lw=1.4, ms=size, label=label, **style)


def _draw_accuracy(axes: Axes, run: RunFolder, beside: RunFolder | None) -> list[Line2D]:
    series = [(run, "eval_top1", f"{run.base}, base" if run.motivated else f"{run.base} alone", _BASE_STYLE)]
    if run.motivated:
        series.append((run, "motivated_eval_top1", f"{run.motivated}, motivated", _MOTIVATED_STYLE))
    if beside:
        series.append((beside, "eval_top1", f"beside: {title(beside)}", _BESIDE_STYLE))
    handles: list[Line2D] = []
    drawn = []
    for owner, column, name, style in series:
        epochs, values = evaluated(owner, column)
        kept = np.isfinite(values)
        if kept.any():
            handles += _line(axes, epochs, values, f"{name} (last {values[kept][-1]:.2f} %)", style)
            drawn.append((epochs[kept], values[kept]))
    axes.set_ylabel("validation\ntop-1 accuracy (%)", fontsize=9)
    if drawn:
        epochs, values = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        limits = accuracy_limits(values)
        axes.set_ylim(*limits)
        handles += mark_outside(axes, epochs, values, limits, "value")
    return handles


def accuracy_limits(values: Floats) -> tuple[float, float]:
    """Limits of the y axis that leave the first, low accuracies below it where the later ones lie close together."""
    top, quartile = values.max(), np.quantile(values, 0.25)
    bottom = max(values.min(), quartile - 2 * (top - quartile))
    margin = 0.06 * (top - bottom) or 1.0
    return float(bottom - margin), float(top + margin)


def _draw_share(axes: Axes, run: RunFolder, path: Trajectory | None) -> list[Line2D]:
    epochs, shares = share_per_epoch(run, path)
    handles = _line(axes, epochs, 100 * shares, "share of the epoch", _MOTIVATED_STYLE)
    expected = law(run)
    if expected is not None:
        label = f"1/(k+1)! = {percent(expected)}, if losses were independent"
        handles.append(axes.axhline(100 * expected, color="black", ls="--", lw=1.1, label=label))
    axes.set_ylim(0, 110 * max([1e-5, *shares, expected or 0]))
    axes.set_ylabel("share of motivated\nupdates (%)", fontsize=9)
    return handles


def _draw_cost(axes: Axes, run: RunFolder, path: Trajectory | None) -> list[Line2D]:
    """Cost per epoch: of all epochs where the models' costs are known, otherwise of those in ``summary.csv``."""
    result = run.result if isinstance(run.result, dict) else {}
    flops: dict[str, float] = result.get("flops") or {}
    if flops:
        epochs, shares = share_per_epoch(run, path)
        costs = flops["base"] + shares * (flops["motivated"] - flops["base"])
    else:
        epochs, costs = evaluated(run, "average_flops")
    largest = max([1.0, *costs[np.isfinite(costs)], *flops.values()])
    unit, scale = next((pair for pair in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if largest >= pair[1]), ("", 1.0))
    handles = _line(axes, epochs, costs / scale, "F_avg, the epoch's average", _COST_STYLE)
    for role, name, dash in ((Role.BASE, run.base, ":"), (Role.MOTIVATED, run.motivated, "-.")):
        if flops:
            cost = flops[role.value]
            label = f"{name}: {readable(cost)} {CONVENTION}"
            handles.append(axes.axhline(cost / scale, color="black", ls=dash, lw=1.1, label=label))
    axes.margins(y=0.1)
    axes.set_ylabel(f"forward pass of\none image ({unit}{CONVENTION})", fontsize=9)
    return handles


def _draw_loss(axes: Axes, run: RunFolder, beside: RunFolder | None) -> list[Line2D]:
    series = [(run, "train_loss", "training", _BASE_STYLE), (run, "eval_loss", "validation", _MOTIVATED_STYLE)]
    if beside:
        series.append((beside, "eval_loss", f"validation, beside: {title(beside)}", _BESIDE_STYLE))
    drawn = [(*evaluated(owner, column), label, style) for owner, column, label, style in series]
    values = np.concatenate([losses for _, losses, _, _ in drawn])
    log = suits_log_scale(values)
    axes.set_yscale("log" if log else "linear")
    limits = axis_limits(values, log)
    axes.set_ylim(*limits)
    handles = [line for one in drawn for line in _line(axes, *one)]
    axes.set_ylabel("loss (nats)" + (", log scale" if log else ""), fontsize=9)
    epochs = np.concatenate([numbers for numbers, _, _, _ in drawn])
    return handles + mark_outside(axes, epochs, values, limits, "value")
