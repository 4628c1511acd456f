"""Reads the runs of a finished cross-validation: the figures per k, and which k they choose (paper, section 4)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from motivation.tools.cross_validate.plan import Plan, RunSpec
from motivation.tools.report.metrics import sample_sd
from motivation.training.flops import readable
from motivation.training.run_folder import read_run


@dataclass(frozen=True)
class Figures:
    """One finished run: the metrics of its last epoch, on the fold that it was not trained on, and its cost.

    Attributes:
        base: ``loss``, ``top1``, ``top5`` of the base model.
        motivated: the same of the motivated model; None if it was not evaluated.
        share: motivated updates over all updates.
        expected_share: of the run's condition, None if there is no law for it.
        average_flops: of a forward pass in training (paper, supplementary section 6).
        base_flops: of a forward pass of the base.
    """

    run: RunSpec
    base: dict[str, float]
    motivated: dict[str, float] | None
    share: float
    expected_share: float | None
    average_flops: float
    base_flops: float

    @property
    def cost(self) -> float:
        """Average cost of an update, in updates of the base."""
        return self.average_flops / self.base_flops


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (with n - 1; None of a single value)."""

    mean: float
    deviation: float | None
    count: int

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 of a single value."""
        return (self.deviation or 0.0) / math.sqrt(self.count)

    def text(self, digits: int) -> str:
        """
        >>> spread([1.0, 3.0]).text(2)
        '2.00 ± 1.41'
        """
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{deviation}"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(fmean(values), sample_sd(values), len(values))


@dataclass(frozen=True)
class Row:
    """All runs of one k; None is the base alone."""

    k: int | None
    figures: tuple[Figures, ...]

    def of(self, value: Callable[[Figures], float]) -> Spread:
        """A figure over folds and seeds."""
        return spread([value(one) for one in self.figures])

    @property
    def motivated_top1(self) -> Spread | None:
        """None where the motivated model was not evaluated, or never trained."""
        values = [one.motivated["top1"] for one in self.figures if one.motivated]
        return spread(values) if self.k is not None and len(values) == len(self.figures) else None

    @property
    def expected_share(self) -> float | None:
        """By the condition's law, where it has one."""
        return self.figures[0].expected_share

    @property
    def label(self) -> str:
        """For tables."""
        return "base alone" if self.k is None else str(self.k)


@dataclass(frozen=True)
class Choice:
    """The chosen k, and in ``remarks`` how sure that is."""

    k: int
    remarks: tuple[str, ...]


def read_figures(plan: Plan, run: RunSpec) -> Figures:
    """The figures of a run that is done."""
    result: dict[str, Any] = read_run(plan.place(run)).result or {}
    last = result["last"]
    return Figures(
        run, last["base"], last["motivated"], result["share"], result["expected_share"], result["average_flops"],
        result["flops"]["base"],
    )  # fmt: skip


def rows_of(figures: Sequence[Figures]) -> list[Row]:
    """One per k, rising, the base alone first."""
    ks = sorted({one.run.k for one in figures}, key=lambda k: -1 if k is None else k)
    return [Row(k, tuple(one for one in figures if one.run.k == k)) for k in ks]


def score(metric: str) -> Callable[[Figures], float]:
    """What is compared: the base's metric of the last epoch, the higher the better."""
    sign = -1.0 if metric == "loss" else 1.0

    def value(one: Figures) -> float:
        found = one.base[metric]
        return sign * found if math.isfinite(found) else -math.inf  # a run that diverged is the worst there is

    return value


def paired_lead(ahead: Row, behind: Row, metric: str) -> Spread:
    """By how much one k is better than another, over the pairs of runs with the same fold and seed."""
    value = score(metric)
    others = {(one.run.fold, one.run.seed): value(one) for one in behind.figures}
    return spread([value(one) - others[one.run.fold, one.run.seed] for one in ahead.figures])


def choose(rows: Sequence[Row], metric: str) -> Choice:
    """The k whose base is best on average; of equal ones the cheapest.

    Which others cannot be told apart from it is said (*ours*): those no further away than one standard error of the
    difference, paired over folds and seeds.
    """
    candidates = [row for row in rows if row.k is not None]
    best_first = sorted(
        candidates,
        key=lambda row: (-round(row.of(score(metric)).mean, 9), row.of(lambda one: one.cost).mean, -(row.k or 0)),
    )
    chosen = best_first[0]
    assert chosen.k is not None
    name = "loss" if metric == "loss" else "top-1"
    digits = 4 if metric == "loss" else 2
    best = chosen.of(lambda one: one.base[metric]).mean
    how = "lowest" if metric == "loss" else "highest"
    remarks = [f"Chosen: k = {chosen.k}, with the {how} mean {name} of the base, {best:.{digits}f}."]

    def of_lead(lead: Spread) -> str:
        if not lead.mean:
            return f"equal, error {lead.error:.{digits}f}"
        return f"{abs(lead.mean):.{digits}f} {'better' if lead.mean > 0 else 'worse'}, error {lead.error:.{digits}f}"

    close = [(row, lead) for row in best_first[1:] if (lead := paired_lead(chosen, row, metric)).mean <= lead.error]
    if close:
        listing = "; ".join(f"k = {row.k} (chosen is {of_lead(lead)})" for row, lead in close)
        remarks.append(
            f"Within one standard error of the difference, so hardly told apart from it by {len(chosen.figures)} pairs "
            f"of runs: {listing}. The cheapest of these and the chosen one is k = "
            f"{min([chosen, *(row for row, _ in close)], key=lambda row: row.of(lambda one: one.cost).mean).k}."
        )
    elif len(candidates) > 1:
        remarks.append("Every other k is more than one standard error of the paired difference behind.")
    for row in rows:
        if row.k is None:
            lead = paired_lead(chosen, row, metric)
            remarks.append(f"Against the base alone, k = {chosen.k} is {of_lead(lead)}.")
    if not chosen.of(lambda one: one.share).mean:
        remarks.append(f"No update was motivated at k = {chosen.k}: its runs trained the base alone.")
    remarks.append(
        "The folds share training images, so these errors are somewhat too small; and the figure of a chosen k is "
        "flattered by having been chosen: judge it on data that took no part."
    )
    return Choice(chosen.k, tuple(remarks))


def table(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """Header and rows of the table per k, as text."""
    head = ["k", "runs", "base top-1", "motivated top-1", "share", "expected", "F_avg", "x base"]
    if metric == "loss":
        head.insert(2, "base loss")
    lines = [head]
    for row in rows:
        law, motivated = row.expected_share, row.motivated_top1
        line = [
            row.label,
            str(len(row.figures)),
            row.of(lambda one: one.base["top1"]).text(2),
            motivated.text(2) if motivated else "-",
            row.of(lambda one: one.share).text(4),
            "-" if law is None else f"{law:.4f}",
            readable(row.of(lambda one: one.average_flops).mean),
            f"{row.of(lambda one: one.cost).mean:.3f}",
        ]
        if metric == "loss":
            line.insert(2, row.of(lambda one: one.base["loss"]).text(4))
        lines.append(line)
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(texts)


def single_runs(figures: Sequence[Figures], metric: str) -> list[list[str]]:
    """The base's metric of each run: a line per fold and seed, a column per k."""
    rows = rows_of(figures)
    lines = [["fold", "seed", *(row.label if row.k is None else f"k = {row.k}" for row in rows)]]
    for fold, seed in sorted({(one.run.fold, one.run.seed) for one in figures}, key=lambda pair: (pair[1], pair[0])):
        found = {one.run.k: one.base[metric] for one in figures if (one.run.fold, one.run.seed) == (fold, seed)}
        lines.append([str(fold), str(seed), *(f"{found[row.k]:.{4 if metric == 'loss' else 2}f}" for row in rows)])
    return lines


def headline(plan: Plan) -> str:
    """What was cross-validated."""
    options = plan.options
    seeds = ", ".join(map(str, plan.seeds))
    return (
        f"{options['model']} in {options['motivated_model']}, condition {options['motivation_condition']}: "
        f"{plan.folds} folds of the training split, {'seeds' if len(plan.seeds) > 1 else 'seed'} {seeds}"
    )


def markdown(plan: Plan, figures: Sequence[Figures], choice: Choice, metric: str) -> str:
    """The report."""
    name = "loss" if metric == "loss" else "top-1"
    return "\n\n".join(
        [
            f"# k by cross-validation\n\n{headline(plan)}.",
            aligned(table(rows_of(figures), metric)),
            "Mean ± standard deviation over the runs, last epoch, on the fold that was held out. Expected: the share "
            "by the condition's law. F_avg: FLOPs of a forward pass, average over all updates.",
            *choice.remarks,
            "![k](cross_validation.png)",
            f"## The base's {name} in single runs\n\n{aligned(single_runs(figures, metric))}\n",
        ]
    )


def csv_text(figures: Sequence[Figures]) -> str:
    """A line per k: means and standard deviations of all figures, in full precision."""
    values: dict[str, Callable[[Figures], float]] = {
        "base_top1": lambda one: one.base["top1"],
        "base_loss": lambda one: one.base["loss"],
        "share": lambda one: one.share,
        "average_flops": lambda one: one.average_flops,
        "flops_ratio": lambda one: one.cost,
    }
    lines: list[dict[str, Any]] = []
    for row in rows_of(figures):
        line: dict[str, Any] = {"k": "baseline" if row.k is None else row.k, "runs": len(row.figures)}
        spreads = {name: row.of(value) for name, value in values.items()} | {"motivated_top1": row.motivated_top1}
        for name, found in spreads.items():
            line[f"{name}_mean"] = found.mean if found else None
            line[f"{name}_std"] = found.deviation if found else None
        lines.append(line | {"expected_share": row.expected_share})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
