"""The report of a finished cross-validation: the figures of each k, which k they choose, and a picture of them.

Source: paper, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from motivation.method.records import Role
from motivation.tools.cross_validate.plan import Cell, Plan
from motivation.tools.plot.figures import BASE, FAINT, MOTIVATED
from motivation.tools.tables import markdown_table, number, plus_minus, sample_sd
from motivation.training.flops import readable
from motivation.training.run_files import RunError
from motivation.training.run_folder import RESULT_FILE, read_run

FILE = "cross_validation"

Floats = NDArray[np.float64]
Rows = dict[int | None, dict[str, Floats]]
"""The figures of each k, by name, and without k those of the base alone. A figure has a value for each run with that k,
in the order of seeds and folds; NaN where it was not measured."""


class Metric(NamedTuple):
    """A metric of the base by which k is chosen: its figure, how it is printed, and what is better."""

    figure: str
    label: str
    digits: int
    best: str
    sign: int


METRICS = {
    "top1": Metric("base_top1", "top-1", 2, "highest", 1),
    "loss": Metric("base_loss", "loss", 4, "lowest", -1),
}


def read_rows(plan: Plan) -> Rows:
    """Read all runs of a plan, which are done."""
    runs: dict[int | None, list[dict[str, float]]] = {}
    for cell in plan.cells():
        runs.setdefault(cell.k, []).append(_read_figures(plan, cell))
    return {k: {name: np.array([run[name] for run in of_k]) for name in of_k[0]} for k, of_k in runs.items()}


def _read_figures(plan: Plan, cell: Cell) -> dict[str, float]:
    """Read a run.

    The metrics are those of the last epoch, on the fold that was held out. FLOPs are those of a forward pass, averaged
    over the updates, also relative to the base's (paper, supplementary section 6).
    """
    run = read_run(plan.folder / cell.name)
    result: Any = run.result or {}
    last = result.get("last") or {}
    base, motivated = last.get("base"), last.get("motivated") or {}
    average, flops = run.average_flops, run.flops.get(Role.BASE)
    if base is None or average is None or flops is None:
        raise RunError(f"{run.path}/{RESULT_FILE} lacks accuracy or cost; delete the folder to make the run again")
    figures = {
        "base_top1": base.get("top1"),
        "base_loss": base.get("loss"),
        "share": run.share,
        "average_flops": average,
        "flops_ratio": average / flops,
        "motivated_top1": motivated.get("top1") if cell.k is not None else None,
        "expected_share": result.get("expected_share"),
    }
    return {name: math.nan if value is None else value for name, value in figures.items()}


def standard_error(values: Floats) -> float:
    """Return the standard error of the mean; 0 of a single value, NaN where a value is not finite."""
    return sample_sd(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def mean_text(values: Floats, digits: int) -> str:
    """Return mean and sample standard deviation for a table.

    >>> mean_text(np.array([1.0, 3.0]), 2), mean_text(np.array([1.0]), 1), mean_text(np.array([math.nan]), 1)
    ('2.00 ± 1.41', '1.0', '-')
    """
    return plus_minus(float(values.mean()), sample_sd(values), digits)


def choose(rows: Rows, metric: Metric) -> tuple[int, list[str]]:
    """Choose the k whose base is best on average, of equal ones the cheapest, and remark how sure that is.

    The others that cannot be told apart from it are named (*ours*): those no further behind than one standard error of
    the difference, paired over folds and seeds. A run that diverged is the worst there is.
    """
    scores = {k: np.nan_to_num(metric.sign * row[metric.figure], nan=-math.inf) for k, row in rows.items()}
    costs = {k: row["flops_ratio"].mean() for k, row in rows.items()}
    ks = sorted((k for k in rows if k is not None), key=lambda k: (-round(scores[k].mean(), 9), costs[k], -k))
    chosen = ks[0]
    with np.errstate(invalid="ignore"):  # both diverged
        paired = {k: scores[chosen] - scores[k] for k in rows}
    close = [k for k in ks[1:] if paired[k].mean() <= standard_error(paired[k])]

    def lead_over(k: int | None) -> str:
        lead, error = paired[k].mean(), standard_error(paired[k])
        side = "better" if lead > 0 else "worse"
        size = f"{abs(lead):.{metric.digits}f} {side}" if lead else "equal"
        return f"{size}, error {error:.{metric.digits}f}"

    best = rows[chosen][metric.figure].mean()
    remarks = [
        f"Chosen: k = {chosen}, with the {metric.best} mean {metric.label} of the base, {best:.{metric.digits}f}."
    ]
    if close:
        listing = "; ".join(f"k = {k} (chosen is {lead_over(k)})" for k in close)
        remarks.append(
            f"Within one standard error of the difference, so hardly told apart from it by {len(scores[chosen])} pairs "
            f"of runs: {listing}. The cheapest of these and the chosen one is k = "
            f"{min([chosen, *close], key=costs.__getitem__)}."
        )
    elif len(ks) > 1:
        remarks.append("Every other k is more than one standard error of the paired difference behind.")
    if None in rows:
        remarks.append(f"Against the base alone, k = {chosen} is {lead_over(None)}.")
    if not rows[chosen]["share"].any():
        remarks.append(f"No update was motivated at k = {chosen}: its runs trained the base alone.")
    remarks.append(
        "The folds share training images, so these errors are somewhat too small; and the figure of a chosen k is "
        "flattered by having been chosen: judge it on data that took no part."
    )
    return chosen, remarks


def table(rows: Rows, metric: Metric) -> str:
    """Return the table per k."""
    columns = {"base loss": ("base_loss", 4)} if metric.figure == "base_loss" else {}
    columns |= {"base top-1": ("base_top1", 2), "motivated top-1": ("motivated_top1", 2), "share": ("share", 4)}
    lines = [["k", "runs", *columns, "expected", "F_avg", "x base"]]
    for k, row in rows.items():
        lines.append([
            "base alone" if k is None else str(k),
            str(len(row["share"])),
            *(mean_text(row[figure], digits) for figure, digits in columns.values()),
            number(row["expected_share"].mean(), 4),
            readable(row["average_flops"].mean()),
            number(row["flops_ratio"].mean(), 3),
        ])  # fmt: skip
    return markdown_table(lines, left=0)


def markdown(plan: Plan, rows: Rows, remarks: Sequence[str], metric: Metric) -> str:
    """Return the report."""
    return "\n\n".join([
        f"# k by cross-validation\n\n{plan.headline}.",
        table(rows, metric),
        "Mean ± standard deviation over the runs, last epoch, on the fold that was held out. Expected: the share "
        "by the condition's law. F_avg: FLOPs of a forward pass, average over all updates.",
        *remarks,
        f"![k]({FILE}.png)\n",
    ])  # fmt: skip


def draw(rows: Rows, chosen: int, metric: Metric, title: str, file: Path) -> None:
    """Draw the base's metric and the share by k, to a file whose ending chooses the format."""
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
    laws = np.array([row["expected_share"].mean() for row in with_k.values()])
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
        columns = 2 if axes is left else 1
        axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns)
    figure.savefig(file, dpi=140)
