"""Draws the two pictures of a run: the loss of each update, and accuracy, share and cost of each epoch.

The first is the paper's Figure 2 (supplementary section 7), with the motivated stretches shaded. The colours are Okabe
and Ito's, which colour-blind readers tell apart; lines also differ in mark or dash.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator

from motivation.errors import printable
from motivation.method.records import Role
from motivation.tools.plot import data
from motivation.tools.plot.data import Floats, percent, updates_text
from motivation.training.flops import readable
from motivation.training.run_folder import RunFolder, Updates

BASE = "#0072b2"
MOTIVATED = "#e69f00"
COST = "#009e73"
SHADE = "#f7cf80"
FAINT = "#707070"
GRID = "#dddddd"
BOUNDARY = "#999999"
SHADES = LinearSegmentedColormap.from_list("share", ["#ffffff", SHADE])

MOST_EXACT = 1500
"""Updates in a panel up to which each stretch is drawn; in more, one update is too narrow to be seen or printed."""
MOST_MARKED_UPDATES, MOST_MARKED_EPOCHS, MOST_BOUNDARIES = 150, 60, 60
SHADE_COLUMNS = 400

TITLE_WIDTH, LEGEND_WIDTH, HANDLE_WIDTH = 76, 112, 9
"""Characters that fit over the axes; each entry of a legend takes the last beside its label."""


# ---- losses


@dataclass(frozen=True)
class Panel:
    """One run in the picture of the losses.

    Attributes:
        title: its name.
        run: its folder.
        updates: those to draw.
    """

    title: str
    run: RunFolder
    updates: Updates


def loss_figure(panels: Sequence[Panel], epoch: int | None = None, smooth: int | None = None) -> Figure:
    """Draw one panel for each run, one under the other, on identical axes.

    Args:
        panels: at least one; none of them without updates (of that epoch).
        epoch: draw that epoch alone, update by update; None for the whole run.
        smooth: updates in the running mean; by default as many as suit the length of a run, none in an epoch.
    """
    if epoch is not None:
        panels = [
            Panel(f"{one.title}, epoch {epoch}", one.run, one.updates[one.updates.epoch == epoch]) for one in panels
        ]
    numbers = np.unique(np.concatenate([panel.updates.epoch for panel in panels]))
    in_epochs = len(numbers) > 1
    losses = np.concatenate([panel.updates.loss for panel in panels])
    log = epoch is None and data.suits_log_scale(losses)
    limits = data.axis_limits(losses, log)
    longest = max(len(panel.updates) for panel in panels)
    width = smooth or (data.default_smoothing(longest) if epoch is None else 1)
    figure = Figure(figsize=(8, 3.5 * len(panels) + 0.3), layout="constrained")
    all_axes: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    all_edges = [data.edges(panel.updates, in_epochs) for panel in panels]
    ks = {panel.run.k or 0 for panel in panels if panel.run.motivated and panel.run.condition == "loss"}
    for axes, panel, edges in zip(all_axes, panels, all_edges, strict=True):
        handles = _draw_panel(axes, panel, *edges, width, limits)
        if width == 1 and len(ks) == 1 and not panel.updates.motivated.any():
            middle = (edges[0] + edges[1]) / 2
            handles += _draw_where_a_switch_would_be(axes, panel.updates, middle, *ks)
        _legend_above(axes, handles, panel.title)
        axes.set_ylabel(data.loss_name(panel.run) + (", log scale" if log else ""), fontsize=9)
    if log:
        all_axes[0].set_yscale("log")
    all_axes[0].set_xlim(min(left[0] for left, _ in all_edges), max(right[-1] for _, right in all_edges))
    all_axes[0].set_ylim(*limits)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    if in_epochs:
        _label_epochs(all_axes, panels)
    else:
        all_axes[-1].set_xlabel(f"update of epoch {numbers[0]}")
    return figure


def _draw_panel(
    axes: Axes, panel: Panel, left: Floats, right: Floats, width: int, limits: tuple[float, float]
) -> list[Line2D | Patch]:
    """Draw a run's losses; return the entries of the legend."""
    updates, middle = panel.updates, (left + right) / 2
    _draw_grid(axes, "y")
    handles: list[Line2D | Patch] = []
    if width > 1:
        handles += axes.plot(middle, updates.loss, color=FAINT, lw=0.7, alpha=0.7, label="loss of each update")
        label = f"running mean over {updates_text(width)}"
        handles += axes.plot(middle, data.running_mean(updates.loss, width), color=BASE, lw=1.8, label=label)
    else:
        handles += _draw_points(axes, updates, middle)
    if panel.run.motivated:
        handles.append(_shade(axes, updates, left, right))
    return handles + _mark_outside(axes, middle, updates.loss, limits, "update")


def _draw_where_a_switch_would_be(axes: Axes, updates: Updates, middle: Floats, k: int) -> list[Line2D]:
    """Mark the updates after k falls in a run that does not switch: their losses tend to rise there, too."""
    chosen = data.after_falls(updates, k)
    if len(updates) > MOST_MARKED_UPDATES or not chosen.any():
        return []
    label = f"after {k} falls in a row, where the run above would switch"
    return axes.plot(middle[chosen], updates.loss[chosen], "D", mfc="none", mec="black", mew=1.2, ms=9, label=label)


def _draw_points(axes: Axes, updates: Updates, middle: Floats) -> list[Line2D]:
    """Draw the loss of each update as a line; where there is room with a point, of another form where motivated."""
    thickness = 1.2 if len(updates) <= MOST_EXACT else 0.5
    line = axes.plot(middle, updates.loss, color=BASE, lw=thickness, label="loss of each update")
    if len(updates) > MOST_MARKED_UPDATES:
        return line
    base = np.where(updates.motivated, np.nan, updates.loss)
    motivated = np.where(updates.motivated, updates.loss, np.nan)
    size = 5 if len(updates) <= MOST_MARKED_UPDATES / 2 else 3.5
    line[0].set_label("_line")
    handles = axes.plot(middle, base, "o", color=BASE, ms=size, label="loss, the base trains")
    if updates.motivated.any():
        label = "loss, the motivated model trains"
        handles += axes.plot(middle, motivated, "D", mfc=MOTIVATED, mec="black", mew=0.8, ms=size + 0.5, label=label)
    return handles


def _shade(axes: Axes, updates: Updates, left: Floats, right: Floats) -> Patch:
    """Shade the motivated updates over the whole height; of very many, columns by the share in them."""
    count = int(updates.motivated.sum())
    label = f"motivated: {count:,} of {updates_text(len(updates))} ({percent(updates.motivated.mean())})"
    across = axes.get_xaxis_transform()  # x in the data's units, y from 0 to 1
    if len(updates) <= MOST_EXACT:
        bars = [(left[start], right[stop - 1] - left[start]) for start, stop in data.stretches(updates.motivated)]
        axes.broken_barh(bars, (0, 1), transform=across, facecolor=SHADE, linewidth=0, zorder=0, gid="motivated")
        return Patch(facecolor=SHADE, label=label)
    bounds = data.columns(len(updates), SHADE_COLUMNS)
    shares = np.add.reduceat(updates.motivated, bounds[:-1], dtype=np.float64) / np.diff(bounds)
    edges = np.append(left[bounds[:-1]], right[-1])
    darkest = np.quantile(shares, 0.98) or shares.max() or 1.0  # a few full columns would leave the others white
    axes.pcolormesh(
        edges, [0, 1], shares[None], cmap=SHADES, vmin=0, vmax=darkest, transform=across, zorder=0, gid="motivated"
    )
    if count:
        label += f",\ndarkest: {percent(darkest)} or more of {updates_text(int(bounds[1]))}"
    return Patch(facecolor=SHADE, label=label)


def _label_epochs(all_axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    lengths = {int(length) for panel in panels for length in data.epoch_lengths(panel.updates)[1]}
    lowest = all_axes[-1]
    lowest.set_xlabel("epoch" + (f" (of {updates_text(lengths.pop())})" if len(lengths) == 1 else ""))
    begin, end = lowest.get_xlim()
    for axes in all_axes:
        if end - begin <= MOST_BOUNDARIES:
            axes.xaxis.set_minor_locator(MultipleLocator(1))
        # dotted: in greyscale a full line looks like the shading of one update
        axes.grid(axis="x", which="both", color=BOUNDARY, linewidth=0.7, linestyle=":")


# ---- epochs

BASE_STYLE: dict[str, Any] = {"color": BASE, "marker": "o", "ls": "-"}
MOTIVATED_STYLE: dict[str, Any] = {"color": MOTIVATED, "marker": "s", "ls": "-", "mec": "black", "mew": 0.5}
BESIDE_STYLE: dict[str, Any] = {"color": "#333333", "marker": "^", "ls": "--"}
COST_STYLE: dict[str, Any] = {"color": COST, "marker": "o", "ls": "-"}


def epochs_figure(run: RunFolder, updates: Updates, beside: RunFolder | None = None) -> Figure:
    """Draw accuracy, share and cost of a motivated run's epochs; of a plain run accuracy and loss.

    Args:
        run: with at least one line in ``summary.csv``.
        updates: of the run, if it has them, for the share and cost of the epochs that were not evaluated.
        beside: its base's accuracy (and loss) is drawn too.
    """
    drawers: list[Callable[[Axes], list[Line2D]]] = [partial(_draw_accuracy, run=run, beside=beside)]
    if run.motivated:
        drawers += [partial(_draw_share, run=run, updates=updates), partial(_draw_cost, run=run)]
    else:
        drawers.append(partial(_draw_loss, run=run, beside=beside))
    figure = Figure(figsize=(8, 2.6 * len(drawers) + 0.4), layout="constrained")
    all_axes = figure.subplots(len(drawers), 1, sharex=True)
    for axes, draw in zip(all_axes, drawers, strict=True):
        _draw_grid(axes, "both")
        _legend_above(axes, draw(axes), data.title(run) if axes is all_axes[0] else None)
    all_axes[-1].set_xlabel("epoch")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    return figure


def _line(axes: Axes, epochs: Floats, values: Floats, label: str, style: dict[str, Any]) -> list[Line2D]:
    """Draw a line through the values there are, with marks where marks have room or epochs are missing."""
    kept = np.isfinite(values)
    gaps = bool(kept.any()) and kept.sum() < np.ptp(epochs) + 1
    size = 3.5 if len(epochs) <= MOST_MARKED_EPOCHS or gaps else 0
    return axes.plot(epochs[kept], values[kept], lw=1.4, ms=size, label=label, **style)


def _draw_accuracy(axes: Axes, run: RunFolder, beside: RunFolder | None) -> list[Line2D]:
    metric = "top5" if run.options.get("eval_metric") == "top5" else "top1"  # that which ranks the epochs
    series = [(run, f"eval_{metric}", f"{run.base}, base" if run.motivated else f"{run.base} alone", BASE_STYLE)]
    if run.motivated:
        series.append((run, f"motivated_eval_{metric}", f"{run.motivated}, motivated", MOTIVATED_STYLE))
    if beside:
        series.append((beside, f"eval_{metric}", f"beside: {data.title(beside)}", BESIDE_STYLE))
    axes.set_ylabel(f"validation\ntop-{metric[-1]} accuracy (%)", fontsize=9)
    handles: list[Line2D] = []
    drawn = []
    for owner, column, name, style in series:
        epochs, values = data.evaluated(owner, column)
        kept = np.isfinite(values)
        if kept.any():
            handles += _line(axes, epochs, values, f"{name} (last {values[kept][-1]:.2f} %)", style)
            drawn.append((epochs[kept], values[kept]))
    if drawn:
        epochs, values = np.concatenate(drawn, axis=1)
        limits = data.accuracy_limits(values)
        axes.set_ylim(*limits)
        handles += _mark_outside(axes, epochs, values, limits, "epoch")
    return handles


def _draw_share(axes: Axes, run: RunFolder, updates: Updates) -> list[Line2D]:
    epochs, shares = data.share_per_epoch(run, updates)
    handles = _line(axes, epochs, 100 * shares, "share of the epoch", MOTIVATED_STYLE)
    expected = data.expected_share(run)
    if expected is not None:
        label = f"{percent(expected)} expected, if losses were independent"
        handles.append(axes.axhline(100 * expected, color="black", ls="--", lw=1.1, label=label))
    top = 110 * max([1e-5, *shares, expected or 0])
    axes.set_ylim(-0.04 * top, top)  # a mark at 0 is seen whole
    axes.set_ylabel("share of motivated\nupdates (%)", fontsize=9)
    return handles


def _draw_cost(axes: Axes, run: RunFolder) -> list[Line2D]:
    """Draw the cost of the epochs in ``summary.csv``: a resumed run may have trained them at several image sizes."""
    epochs, costs = data.evaluated(run, "average_flops")
    largest = max([1.0, *costs[np.isfinite(costs)], *run.flops.values()])
    unit, scale = next((pair for pair in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if largest >= pair[1]), ("", 1.0))
    handles = _line(axes, epochs, costs / scale, "F_avg, average since the point before", COST_STYLE)
    for (role, flops), dash in zip(run.flops.items(), (":", "-."), strict=False):
        label = f"{run.base if role is Role.BASE else run.motivated}: {readable(flops)} {run.convention}"
        handles.append(axes.axhline(flops / scale, color="black", ls=dash, lw=1.1, label=label))
    axes.margins(y=0.1)
    axes.set_ylabel(f"forward pass of\none image ({f'{unit} {_plain(run.convention)}'.strip()})", fontsize=9)
    return handles


def _draw_loss(axes: Axes, run: RunFolder, beside: RunFolder | None) -> list[Line2D]:
    series = [(run, "train_loss", "training", BASE_STYLE), (run, "eval_loss", "validation", MOTIVATED_STYLE)]
    if beside:
        series.append((beside, "eval_loss", f"validation, beside: {data.title(beside)}", BESIDE_STYLE))
    drawn = [data.evaluated(owner, column) for owner, column, _, _ in series]
    epochs, values = np.concatenate(drawn, axis=1)
    log = data.suits_log_scale(values)
    limits = data.axis_limits(values, log)
    axes.set_yscale("log" if log else "linear")
    axes.set_ylim(*limits)
    axes.set_ylabel("loss (nats)" + (", log scale" if log else ""), fontsize=9)
    handles: list[Line2D] = []
    for points, (_, _, label, style) in zip(drawn, series, strict=True):
        handles += _line(axes, *points, label, style)
    return handles + _mark_outside(axes, epochs, values, limits, "epoch")


# ---- grids, legends and marks


def _draw_grid(axes: Axes, axis: Literal["y", "both"]) -> None:
    axes.grid(axis=axis, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend_above(axes: Axes, handles: Sequence[Line2D | Patch], title: str | None = None) -> None:
    """Put title and legend over the axes, because no corner inside is free of data in every run."""
    for handle in handles:
        handle.set_label(_plain(handle.get_label()))
    axes.legend(
        handles=list(handles),
        title=title and textwrap.fill(_plain(title), TITLE_WIDTH),
        title_fontproperties={"size": 10.5, "weight": "bold"},
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=legend_columns([str(handle.get_label()) for handle in handles]),
        frameon=False,
        fontsize=8.5,
        borderaxespad=0.1,
        columnspacing=1.4,
    )


def _plain(text: object) -> str:
    """Return a text in which matplotlib sees no formula: names of models and folders may have dollar signs."""
    return printable(text).replace("$", r"\$")


def legend_columns(labels: Sequence[str]) -> int:
    """Return the most columns in which these labels fit side by side.

    >>> legend_columns(["a", "b"]), legend_columns(["a" * 60, "b" * 60])
    (2, 1)
    """
    widths = [HANDLE_WIDTH + max(map(len, label.split("\n"))) for label in labels]
    for count in range(len(labels), 1, -1):
        parts = np.array_split(np.array(widths), count)  # matplotlib fills column by column
        if sum(int(part.max()) for part in parts) <= LEGEND_WIDTH:
            return count
    return 1


def _mark_outside(axes: Axes, x: Floats, values: Floats, limits: tuple[float, float], unit: str) -> list[Line2D]:
    """Mark values that the axis does not reach or that are not finite at its edge; return handles that count them.

    Args:
        axes: with those limits.
        x: ``[N]``, where the values are.
        values: ``[N]``.
        limits: of the y axis.
        unit: name of one value's owner, ``update`` or ``epoch``.
    """
    across = axes.get_xaxis_transform()  # x in the data's units, y from 0 to 1
    finite = np.isfinite(values)
    above, below = finite & (values > limits[1]), finite & (values < limits[0])
    handles: list[Line2D] = []
    for chosen, height, marker, text in (
        (above, 0.975, "^", f"above the axis (up to {np.max(values, where=above, initial=-np.inf):.3g})"),
        (below, 0.025, "v", f"below the axis (down to {np.min(values, where=below, initial=np.inf):.3g})"),
        (~finite, 0.975, "x", "not finite"),
    ):
        if count := len(np.unique(x[chosen])):  # several lines may be outside at one place
            label = f"{count:,} {unit}{'s' * (count != 1)} {text}"
            heights = np.full(count, height)
            handles += axes.plot(
                np.unique(x[chosen]), heights, marker, color="black", ms=5, transform=across, label=label
            )
    return handles
