"""Read the runs of a finished cross-validation: the figures of each k, and which k they choose (paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from motivation.tools.cross_validate.plan import Cell, Plan
from motivation.tools.tables import markdown_table
from motivation.training.flops import readable
from motivation.training.run_folder import read_run

FILE = "cross_validation"

Figures = dict[str, NDArray[np.float64]]
"""One figure of all runs with the same k, in the order of seeds and folds; NaN where it was not measured."""
Rows = dict[int | None, Figures]
"""The figures of each k; without k those of the base alone."""


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


def read_figures(plan: Plan, cell: Cell) -> dict[str, float]:
    """Read a run that is done.

    The metrics are those of the last epoch, on the fold that was held out. FLOPs are those of a forward pass, averaged
    over the updates, also relative to the base's (paper, supplementary section 6).
    """
    result = read_run(plan.folder / cell.name).result or {}
    base, motivated = result["last"]["base"], result["last"]["motivated"]
    figures = {
        "base_top1": base["top1"],
        "base_loss": base["loss"],
        "share": result["share"],
        "average_flops": result["average_flops"],
        "flops_ratio": result["average_flops"] / result["flops"]["base"],
        "motivated_top1": motivated["top1"] if motivated and cell.k is not None else None,
        "expected_share": result["expected_share"],
    }
    return {name: math.nan if value is None else value for name, value in figures.items()}


def rows_of(cells: Sequence[Cell], figures: Sequence[dict[str, float]]) -> Rows:
    """Collect the figures of single runs by k."""
    rows: dict[int | None, list[dict[str, float]]] = {}
    for cell, found in zip(cells, figures, strict=True):
        rows.setdefault(cell.k, []).append(found)
    return {k: {name: np.array([run[name] for run in runs]) for name in runs[0]} for k, runs in rows.items()}


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean; 0 of a single value, NaN where a value is not finite."""
    with np.errstate(invalid="ignore"):
        return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def mean_text(values: NDArray[np.float64], digits: int) -> str:
    """Return mean and sample standard deviation for a table.

    >>> mean_text(np.array([1.0, 3.0]), 2), mean_text(np.array([1.0]), 1), mean_text(np.array([math.nan]), 1)
    ('2.00 ± 1.41', '1.0', '-')
    """
    if np.isnan(values.mean()):
        return "-"
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


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
    leads = {k: (float(lead.mean()), standard_error(lead)) for k, lead in paired.items()}

    def lead_over(k: int | None) -> str:
        mean, error = leads[k]
        side = "better" if mean > 0 else "worse"
        size = f"{abs(mean):.{metric.digits}f} {side}" if mean else "equal"
        return f"{size}, error {error:.{metric.digits}f}"

    best = rows[chosen][metric.figure].mean()
    remarks = [
        f"Chosen: k = {chosen}, with the {metric.best} mean {metric.label} of the base, {best:.{metric.digits}f}."
    ]
    close = [k for k in ks[1:] if leads[k][0] <= leads[k][1]]
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
            mean_text(row["expected_share"][:1], 4),
            readable(row["average_flops"].mean()),
            f"{row['flops_ratio'].mean():.3f}",
        ])  # fmt: skip
    return markdown_table(lines, left=0)


def _single_runs(plan: Plan, rows: Rows, metric: Metric) -> str:
    """Return the base's metric of each run: a line per fold and seed, a column per k."""
    lines = [["fold", "seed", *("base alone" if k is None else f"k = {k}" for k in rows)]]
    for place, (seed, fold) in enumerate((seed, fold) for seed in plan.seeds for fold in range(plan.folds)):
        values = [row[metric.figure][place] for row in rows.values()]
        lines.append([str(fold), str(seed), *(f"{value:.{metric.digits}f}" for value in values)])
    return markdown_table(lines, left=0)


def headline(plan: Plan) -> str:
    """Say what is cross-validated."""
    options = plan.options
    return (
        f"{options['model']} in {options['motivated_model']}, condition {options['motivation_condition']}: "
        f"{plan.folds} folds of the training split, {'seeds' if len(plan.seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, plan.seeds))}"
    )


def markdown(plan: Plan, rows: Rows, remarks: Sequence[str], metric: Metric) -> str:
    """Return the report."""
    return "\n\n".join([
        f"# k by cross-validation\n\n{headline(plan)}.",
        table(rows, metric),
        "Mean ± standard deviation over the runs, last epoch, on the fold that was held out. Expected: the share "
        "by the condition's law. F_avg: FLOPs of a forward pass, average over all updates.",
        *remarks,
        f"![k]({FILE}.png)",
        f"## The base's {metric.label} in single runs\n\n{_single_runs(plan, rows, metric)}\n",
    ])  # fmt: skip


def csv_lines(rows: Rows) -> list[dict[str, str | int | float | None]]:
    """Return a line per k: means and standard deviations of all figures, in full precision; None if not measured."""
    lines = []
    for k, row in rows.items():
        line: dict[str, float] = {}
        for name, values in row.items():
            if name == "expected_share":
                line[name] = values[0]
            else:
                line[f"{name}_mean"] = values.mean()
                line[f"{name}_std"] = values.std(ddof=1) if len(values) > 1 else math.nan
        known = {name: None if math.isnan(value) else float(value) for name, value in line.items()}
        lines.append({"k": "baseline" if k is None else k, "runs": len(row["share"]), **known})
    return lines
