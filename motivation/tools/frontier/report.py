"""The report of a frontier: tables in Markdown, and three pictures of accuracy over cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motivation.method.conditions import streak_share
from motivation.method.records import Role
from motivation.tools.frontier.dynamics import read_dynamics
from motivation.tools.frontier.estimate import (
    Comparison,
    Floats,
    Ladder,
    best_split,
    compare,
    holm,
    over_budgets,
)
from motivation.tools.frontier.plan import Plan
from motivation.tools.plot.figures import FAINT
from motivation.tools.report.paired import half_width
from motivation.tools.tables import MISSING, markdown_table, number, plus_minus
from motivation.training.epoch_log import duration
from motivation.training.flops import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "frontier"
PICTURES = {"base": "the base model", "larger": "the larger model", "both": "both models: mean of their accuracies"}
"""The pictures by the end of their file's name, and their titles."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f00", "#5b3a8c")
"""Colours of the motivated ways. Colour-blind readers can tell the first six apart (Okabe and Ito)."""
MARKS = "os^Dv<>P"
LEVEL = 0.05
"""Corrected p-values below it are called differences."""


class Report:
    """A frontier's tables and pictures.

    Args:
        plan: of the runs.
        ladders: of the plan's ways.
    """

    def __init__(self, plan: Plan, ladders: Sequence[Ladder]):
        self.plan, self.ladders = plan, ladders
        self.base, self.larger, *self.motivated = ladders
        self.unit = self._cost_of_full_schedule()
        self.comparisons = compare(ladders)
        self.tests = over_budgets(self.comparisons)
        self.corrected = holm([one.p_value for one in self.tests])
        self.dynamics = read_dynamics(plan)

    def _cost_of_full_schedule(self) -> float:
        """Return the cost of the base alone for the configuration's epochs; by proportion where it was not run."""
        known = ~np.isnan(self.base.costs)
        if not known.any():
            return math.nan
        return float((self.base.costs[known] / np.array(self.base.budgets)[known])[-1])

    def markdown(self) -> str:
        """Return the report."""
        pictures = "\n\n".join(f"![{title}]({FILE}_{name}.png)" for name, title in PICTURES.items())
        return "\n\n".join([
            f"# Accuracy for the cost of training\n\n{self.plan.headline}.",
            markdown_table(self.rows()),
            "top-1 of the last epoch, mean over n seeds ± half of its 95 % confidence interval. cost: forward FLOPs of "
            "all images trained on, as a multiple of the base alone for the full schedule. training FLOPs: three times "
            "as many, as a backward pass costs about two forward passes. time: of one run, as it was made here.",
            "## At equal cost",
            markdown_table(self.differences()),
            "Differences in points, paired by seed, ± half of the 95 % confidence interval (Student's t); the rival's "
            "accuracy is interpolated between its budgets. base: against the base alone. larger: against the larger "
            "model alone. both: the mean of the two, against the best split of the cost into a run of the base alone "
            "and one of the larger model alone; in brackets the base's part of it.",
            "## Over all budgets",
            markdown_table(self.tested(), left=3),
            self.verdict(),
            "## The loss around a switch",
            markdown_table(self.around_switches()),
            "At the largest budget, mean over the seeds ± half of the 95 % confidence interval. after falls: the part "
            "of the updates that follow k falls of the loss in a row, and what it would be if losses were "
            "independent, 1/(k+1)!. rise: of the loss at these updates, over the one before. gap: mean loss of "
            "motivated updates minus that of base updates of the same epoch. The base alone does not switch: its rise "
            "is what k falls of a noisy loss are followed by anyway.",
            pictures,
        ]) + "\n"  # fmt: skip

    def rows(self) -> list[list[str]]:
        """Return a row for each way and budget of which a run is done."""
        table = [["way", "epochs", "n", "base top-1", "larger top-1", "cost", "training FLOPs", "time"]]
        for ladder in self.ladders:
            for column, budget in enumerate(ladder.budgets):
                accuracies = [ladder.top1[role][:, column] for role in ladder.way.roles]
                seconds, cost = ladder.seconds[column], ladder.costs[column]
                if math.isnan(cost):
                    continue
                table.append([
                    ladder.way.name,
                    str(self.plan.epochs(budget)),
                    str(int((~np.isnan(accuracies[0])).sum())),
                    *(_interval(ladder.top1[role][:, column]) if role in ladder.top1 else "" for role in Role),
                    number(cost / self.unit),
                    readable(3 * cost),
                    MISSING if math.isnan(seconds) else duration(seconds),
                ])  # fmt: skip
        return table

    def differences(self) -> list[list[str]]:
        """Return the differences at equal cost, a row for each motivated way and budget."""
        table = [["way", "epochs", "cost", "base", "larger", "both"]]
        for ladder in self.motivated:
            for budget, cost in zip(ladder.budgets, ladder.costs, strict=True):
                if math.isnan(cost):
                    continue
                cells = {
                    one.subject: _signed(one) + ("" if math.isnan(one.base_part) else f" ({one.base_part:.0%})")
                    for one in self.comparisons
                    if (one.way, one.budget) == (ladder.way, budget) and one.against != ladder.way.plain
                }
                row = [ladder.way.name, str(self.plan.epochs(budget)), number(cost / self.unit)]
                table.append(row + [cells.get(subject, MISSING) for subject in PICTURES])
        return table

    def tested(self) -> list[list[str]]:
        """Return the differences over all budgets with their p-values."""
        table = [["way", "model", "against", "difference", "n", "p", "p by Holm"]]
        for one, p in zip(self.tests, self.corrected, strict=True):
            table.append([
                one.way.name,
                one.subject,
                one.against,
                _signed(one),
                str(len(one.values)),
                _p_text(one.p_value),
                _p_text(p),
            ])  # fmt: skip
        return table

    def around_switches(self) -> list[list[str]]:
        """Return how the loss moves after k falls, a row for the base alone and for each motivated way."""
        table = [["way", "k", "after falls", "if independent", "rise", "gap"]]
        for (way, k), figures in self.dynamics.items():
            table.append([
                way.name,
                str(k),
                _interval(np.array([one.share for one in figures]), 4),
                number(streak_share(k), 4),
                _interval(np.array([one.rise for one in figures]), 4),
                _interval(np.array([one.gap for one in figures]), 4),
            ])  # fmt: skip
        return table

    def verdict(self) -> str:
        """Say how many comparisons were made and which of them are differences."""
        certain = [
            f"{one.way.name}: {one.subject} {one.mean:+.2f} against {one.against}"
            for one, p in zip(self.tests, self.corrected, strict=True)
            if p < LEVEL
        ]
        count = f"{len(self.tests)} comparisons, each the mean over the budgets at which it can be made"
        found = f"below {LEVEL} after Holm's correction: {'; '.join(certain)}" if certain else (
            f"none is below {LEVEL} after Holm's correction"
        )  # fmt: skip
        return f"{count}; {found}."

    def draw(self, folder: Path) -> None:
        """Draw the three pictures."""
        from matplotlib.figure import Figure

        for name, title in PICTURES.items():
            figure = Figure(figsize=(7.6, 4.8), layout="constrained")
            axes = figure.subplots()
            axes.set_title(f"{title}\n{self.plan.headline}", fontsize=10)
            self._draw_rival(axes, name)
            for number_, ladder in enumerate(self.motivated):
                style = {"color": COLOURS[number_ % len(COLOURS)], "marker": MARKS[number_ % len(MARKS)]}
                _draw_band(axes, ladder.costs / self.unit, _accuracy(ladder, name), ladder.way.name, style)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g} x")
            axes.set_xlabel("cost of training, in full schedules of the base alone")
            axes.set_ylabel("validation top-1, %")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e5e5e5", linewidth=0.8)
            axes.legend(fontsize=8, frameon=False)
            figure.savefig(folder / f"{FILE}_{name}.png", dpi=140)

    def _draw_rival(self, axes: Axes, name: str) -> None:
        style = {"color": FAINT, "linestyle": "--"}
        if name != "both":
            ladder = self.base if name == "base" else self.larger
            _draw_band(
                axes, ladder.costs / self.unit, _accuracy(ladder, name), ladder.way.name, {**style, "marker": "."}
            )
            return
        lowest, highest = np.add(self.base.ends, self.larger.ends)
        if math.isnan(lowest):
            return
        costs = np.geomspace(lowest, highest, 40)
        splits = {cost: split for cost in costs if (split := best_split(self.base, self.larger, cost))}
        values = np.stack([split.values for split in splits.values()], axis=1)
        _draw_band(axes, np.array(list(splits)) / self.unit, values, "best split into two runs", style)


def _accuracy(ladder: Ladder, picture: str) -> Floats:
    """Return what a picture shows of a way, ``[S, B]``."""
    if picture == "both":
        return (ladder.top1[Role.BASE] + ladder.top1[Role.MOTIVATED]) / 2
    return ladder.top1[Role.BASE if picture == "base" else Role.MOTIVATED]


def _interval(values: Floats, digits: int = 2) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return MISSING
    return plus_minus(float(known.mean()), half_width(known.tolist()), digits)


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else number(p, 3)


def _signed(one: Comparison) -> str:
    return plus_minus(one.mean, one.half_width, sign="+") if len(one.values) else MISSING


def _draw_band(axes: Axes, costs: Floats, values: Floats, label: str, style: dict[str, Any]) -> None:
    """Draw the mean over the seeds with its 95 % interval.

    Args:
        costs: ``[B]``
        values: ``[S, B]``
    """
    columns = [column[~np.isnan(column)] for column in values.T]
    drawn = [place for place, column in enumerate(columns) if len(column)]
    if not drawn:
        return
    x = costs[drawn]
    means = np.array([columns[place].mean() for place in drawn])
    widths = np.array([half_width(columns[place].tolist()) for place in drawn])
    axes.plot(x, means, label=label, **{"linewidth": 1.6, "markersize": 5, **style})
    axes.fill_between(x, means - widths, means + widths, color=style["color"], alpha=0.14, linewidth=0)
