"""The picture of a cross-validation: the base's accuracy and the share, by k (paper, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motivation.tools.cross_validate.report import Figures, Row, rows_of
from motivation.tools.plot.style import BASE, FAINT, MOTIVATED


def draw(figures: Sequence[Figures], chosen: int, metric: str, title: str, file: Path) -> None:
    """Draw to a file; the ending chooses the format.

    Args:
        figures: of all runs; at least one has a k.
        chosen: the k to mark.
        metric: ``top1`` or ``loss`` of the base.
        title: one line.
        file: is replaced.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    rows = rows_of(figures)
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    with_k = [row for row in rows if row.k is not None]
    _draw_metric(left, with_k, [row for row in rows if row.k is None], chosen, metric)
    _draw_share(right, with_k)
    for axes in (left, right):
        axes.set_xlabel("k, length of the streak")
        axes.set_xticks(range(len(with_k)), [str(row.k) for row in with_k])
        axes.set_xlim(-0.6, len(with_k) - 0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.savefig(file, dpi=140)


def _draw_metric(axes: Any, rows: Sequence[Row], alone: Sequence[Row], chosen: int, metric: str) -> None:
    for row in alone:
        found = row.of(lambda one: one.base[metric])
        axes.axhspan(found.mean - found.error, found.mean + found.error, color=FAINT, alpha=0.2, linewidth=0)
        axes.axhline(found.mean, color=FAINT, linestyle="--", linewidth=1.2, label="base alone, mean and its error")
    for place, row in enumerate(rows):
        points = [one.base[metric] for one in row.figures]
        offsets = [0.12 + 0.16 * index / max(1, len(points) - 1) for index in range(len(points))]
        label = "single runs" if place == 0 else None
        axes.plot([place + x for x in offsets], points, ".", color=BASE, alpha=0.35, markersize=6, label=label)
    spreads = [row.of(lambda one: one.base[metric]) for row in rows]
    axes.errorbar(
        range(len(rows)), [found.mean for found in spreads], [found.error for found in spreads], fmt="o", color=BASE,
        capsize=4, markersize=6, label="mean and standard error",
    )  # fmt: skip
    for place, row in enumerate(rows):
        if row.k == chosen:
            axes.plot(place, spreads[place].mean, "o", color="none", markeredgecolor="black", markersize=12,
                      label="chosen")  # fmt: skip
    axes.set_ylabel("base model: " + ("validation loss" if metric == "loss" else "validation top-1, %"))
    axes.legend(fontsize=8, frameon=False, loc="best")


def _draw_share(axes: Any, rows: Sequence[Row]) -> None:
    laws = [row.expected_share for row in rows]
    spreads = [row.of(lambda one: one.share) for row in rows]
    axes.errorbar(
        range(len(rows)), [found.mean for found in spreads], [found.deviation or 0.0 for found in spreads], fmt="o",
        color=BASE, capsize=4, label="measured, mean and deviation",
    )  # fmt: skip
    if None not in laws:
        axes.plot(
            range(len(rows)),
            laws,
            "_",
            color=MOTIVATED,
            markersize=22,
            markeredgewidth=2,
            label="expected of independent signals",
        )
    axes.set_ylabel("share of motivated updates")
    if min(found.mean for found in spreads) > 0:
        axes.set_yscale("log", nonpositive="clip")  # the law falls faster than any power
    else:
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
