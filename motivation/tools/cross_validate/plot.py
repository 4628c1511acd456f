"""The picture of a cross-validation: the base's metric and the share, by k (paper, section 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from motivation.tools.cross_validate.report import Metric, Rows, standard_error
from motivation.tools.plot.figures import BASE, FAINT, MOTIVATED


def draw(rows: Rows, chosen: int, metric: Metric, title: str, file: Path) -> None:
    """Draw to a file, whose ending chooses the format.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    with_k = {k: row for k, row in rows.items() if k is not None}
    places = np.arange(len(with_k))

    if None in rows:
        alone = rows[None][metric.figure]
        mean, error = alone.mean(), standard_error(alone)
        left.axhspan(mean - error, mean + error, color=FAINT, alpha=0.2, linewidth=0)
        left.axhline(mean, color=FAINT, linestyle="--", linewidth=1.2, label="base alone, mean and its error")
    values = np.stack([row[metric.figure] for row in with_k.values()])
    points = places[:, None] + np.linspace(0.12, 0.28, values.shape[1])
    left.plot(points.ravel(), values.ravel(), ".", color=BASE, alpha=0.35, markersize=6, label="single runs")
    errors = [standard_error(row) for row in values]
    label = "mean and standard error"
    left.errorbar(places, values.mean(1), errors, fmt="o", color=BASE, capsize=4, markersize=6, label=label)
    best = list(with_k).index(chosen)
    left.plot(best, values[best].mean(), "o", color="none", markeredgecolor="black", markersize=12, label="chosen")
    left.set_ylabel(f"base model: validation {metric.label}" + (", %" if metric.label == "top-1" else ""))

    shares = np.stack([row["share"] for row in with_k.values()])
    deviations = shares.std(1, ddof=1) if shares.shape[1] > 1 else None
    label = "measured, mean and deviation"
    right.errorbar(places, shares.mean(1), deviations, fmt="o", color=BASE, capsize=4, label=label)
    laws = np.array([row["expected_share"][0] for row in with_k.values()])
    if not np.isnan(laws).any():
        label = "expected of independent signals"
        right.plot(places, laws, "_", color=MOTIVATED, markersize=22, markeredgewidth=2, label=label)
    right.set_ylabel("share of motivated updates")
    if shares.mean(1).min() > 0:
        right.set_yscale("log", nonpositive="clip")  # the law falls faster than any power
    else:
        right.set_ylim(bottom=0)

    for axes in (left, right):
        axes.set_xlabel("k, length of the streak")
        axes.set_xticks(places, [str(k) for k in with_k])
        axes.set_xlim(-0.6, len(with_k) - 0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(file, dpi=140)
