"""Draws the loss of each update, with the motivated stretches shaded (paper, supplementary section 7, Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator

from motivation.tools.plot.series import (
    Floats,
    Trajectory,
    axis_limits,
    columns,
    default_smoothing,
    running_mean,
    stretches,
    suits_log_scale,
)
from motivation.tools.plot.style import BASE, BOUNDARY, FAINT, GRID, MOTIVATED, SHADE, legend_above, mark_outside
from motivation.tools.plot.words import percent, updates

_SHADES = LinearSegmentedColormap.from_list("share", ["#ffffff", SHADE])

MOST_EXACT = 1500
"""Updates in a panel up to which each stretch is drawn; in more, one update is too narrow to be seen or printed."""
_MOST_MARKED = 150
_MOST_BOUNDARIES = 60
_SHADE_COLUMNS = 400
_LINE_COLUMNS = 1000


@dataclass(frozen=True)
class Panel:
    """One run in the picture.

    Attributes:
        title: what it is.
        loss_name: what its loss is, with the unit.
        path: its updates.
        pair: whether it has a motivated model.
    """

    title: str
    loss_name: str
    path: Trajectory
    pair: bool = True


def loss_figure(panels: Sequence[Panel], epoch: int | None = None, smooth: int | None = None) -> Figure:
    """One panel for each run, one under the other, on identical axes.

    Args:
        panels: at least one; none of them without updates (of that epoch).
        epoch: draw that epoch alone, update by update; None for the whole run.
        smooth: updates in the running mean; by default as many as suit the length of a run, none in an epoch.
    """
    if epoch is not None:
        panels = [
            replace(panel, title=f"{panel.title}, epoch {epoch}", path=panel.path.of_epoch(epoch)) for panel in panels
        ]
    numbers = {int(number) for panel in panels for number in np.unique(panel.path.epochs)}
    in_epochs = len(numbers) > 1
    losses = np.concatenate([panel.path.losses for panel in panels])
    log = epoch is None and suits_log_scale(losses)
    limits = axis_limits(losses, log)
    longest = max(len(panel.path) for panel in panels)
    width = smooth or (default_smoothing(longest) if epoch is None else 1)
    figure = Figure(figsize=(8, 3.5 * len(panels) + 0.3), layout="constrained")
    all_axes: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw(axes, panel, in_epochs, width, limits)
        axes.set_ylabel(panel.loss_name + (", log scale" if log else ""), fontsize=9)
    if log:
        all_axes[0].set_yscale("log")
    edges = [panel.path.edges(in_epochs) for panel in panels]
    all_axes[0].set_xlim(min(left[0] for left, _ in edges), max(right[-1] for _, right in edges))
    all_axes[0].set_ylim(*limits)
    _label_x(all_axes, panels, in_epochs, min(numbers))
    return figure


def _draw(axes: Axes, panel: Panel, in_epochs: bool, width: int, limits: tuple[float, float]) -> None:
    path = panel.path
    left, right = path.edges(in_epochs)
    middle = (left + right) / 2
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    handles: list[Line2D | Patch] = []
    if width > 1:
        handles += [
            _faint(axes, path, middle),
            *axes.plot(middle, running_mean(path.losses, width), color=BASE, lw=1.8),
        ]
        handles[-1].set_label(f"running mean over {updates(width)}")
    else:
        handles += _points(axes, path, middle)
    if panel.pair:
        handles.append(_shade(axes, path, left, right))
    handles += mark_outside(axes, middle, path.losses, limits, "update")
    legend_above(axes, handles, panel.title)


def _points(axes: Axes, path: Trajectory, middle: Floats) -> list[Line2D]:
    """The loss of each update as a line; where there is room with a point, of another form where motivated."""
    thickness = 1.2 if len(path) <= MOST_EXACT else 0.5
    line = axes.plot(middle, path.losses, color=BASE, lw=thickness, label="loss of each update")
    if len(path) > _MOST_MARKED:
        return line
    base = np.where(path.motivated, np.nan, path.losses)
    motivated = np.where(path.motivated, path.losses, np.nan)
    size = 5 if len(path) <= _MOST_MARKED / 2 else 3.5
    line[0].set_label("_line")
    handles = axes.plot(middle, base, "o", color=BASE, ms=size, label="loss, the base trains")
    if path.motivated.any():
        label = "loss, the motivated model trains"
        handles += axes.plot(middle, motivated, "D", mfc=MOTIVATED, mec="black", mew=0.8, ms=size + 0.5, label=label)
    return handles


def _faint(axes: Axes, path: Trajectory, middle: Floats) -> Line2D | Patch:
    """The loss of each update in the background; of many updates, the range that their line would fill."""
    if len(path) <= 2 * _LINE_COLUMNS:
        return axes.plot(middle, path.losses, color=FAINT, lw=0.7, alpha=0.7, label="loss of each update")[0]
    bounds = columns(len(path), _LINE_COLUMNS)
    losses = np.where(np.isfinite(path.losses), path.losses, np.nan)
    low, high = np.fmin.reduceat(losses, bounds[:-1]), np.fmax.reduceat(losses, bounds[:-1])
    centres = middle[(bounds[:-1] + bounds[1:] - 1) // 2]
    axes.fill_between(centres, low, high, color=FAINT, alpha=0.4, linewidth=0)
    return Patch(color=FAINT, alpha=0.4, label=f"lowest to highest of {updates(int(bounds[1]))}")


def _shade(axes: Axes, path: Trajectory, left: Floats, right: Floats) -> Patch:
    """Shade the motivated updates over the whole height; of very many, columns by the share in them."""
    count = int(path.motivated.sum())
    label = f"motivated: {count:,} of {updates(len(path))} ({percent(path.share)})"
    across = axes.get_xaxis_transform()  # x in the data's units, y from 0 to 1
    if len(path) <= MOST_EXACT:
        bars = [(left[start], right[stop - 1] - left[start]) for start, stop in stretches(path.motivated)]
        axes.broken_barh(bars, (0, 1), transform=across, facecolor=SHADE, linewidth=0, zorder=0, gid="motivated")
        return Patch(facecolor=SHADE, label=label)
    bounds = columns(len(path), _SHADE_COLUMNS)
    shares = np.add.reduceat(path.motivated, bounds[:-1], dtype=np.float64) / np.diff(bounds)
    edges = np.append(left[bounds[:-1]], right[-1])
    darkest = np.quantile(shares, 0.98) or shares.max() or 1.0  # a few full columns would leave the others white
    axes.pcolormesh(
        edges, [0, 1], shares[None], cmap=_SHADES, vmin=0, vmax=darkest, transform=across, zorder=0, gid="motivated"
    )
    if count:
        label += f",\ndarkest: {percent(darkest)} or more of {updates(int(bounds[1]))}"
    return Patch(facecolor=SHADE, label=label)


def _label_x(all_axes: Sequence[Axes], panels: Sequence[Panel], in_epochs: bool, first: int) -> None:
    lowest = all_axes[-1]
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    if not in_epochs:
        lowest.set_xlabel(f"update of epoch {first}")
        return
    lengths = {int(n) for panel in panels for n in panel.path.epoch_lengths()[1]}
    lowest.set_xlabel("epoch" + (f" (of {updates(lengths.pop())})" if len(lengths) == 1 else ""))
    begin, end = lowest.get_xlim()
    for axes in all_axes:
        if end - begin <= _MOST_BOUNDARIES:
            axes.xaxis.set_minor_locator(MultipleLocator(1))
        # dotted: in greyscale a full line looks like the shading of one update
        axes.grid(axis="x", which="both", color=BOUNDARY, linewidth=0.7, linestyle=":")
