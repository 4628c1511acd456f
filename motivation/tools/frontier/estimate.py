"""Figures of a frontier: accuracy over cost for each way of training, and ways compared at equal cost.

The cost of a run is the forward FLOPs of all images that it has trained on. Runs are paired by seed, so that intervals
are those of differences between runs of one seed (Student's t). Between two rungs of a ladder accuracy is interpolated
linearly in the logarithm of the cost; outside of a ladder there is no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motivation.method.records import Role
from motivation.tools.frontier.plan import Cell, Plan, Way
from motivation.tools.report.groups import all_options
from motivation.tools.report.paired import half_width, images_trained
from motivation.tools.report.rows import ForwardFlops
from motivation.tools.sweep import SECONDS_FILE, State
from motivation.training.run_files import RunError
from motivation.training.run_folder import RunFolder, read_run

Floats = NDArray[np.float64]

MARGIN = 1.02
"""A cost counts as that of a ladder's end if it is outside by no more than this factor."""
SPLITS = 200
"""Number of ways to split a budget into two runs that are tried."""


@dataclass(frozen=True)
class Ladder:
    """The runs of one way. A run that is not done is NaN.

    Attributes:
        way: of training.
        budgets: fractions of the full schedule, ``[B]``.
        costs: forward FLOPs of the images trained on, mean over the seeds, ``[B]``.
        seconds: of wall time, mean over the seeds, ``[B]``.
        top1: the last epoch's of each model, ``[S, B]``.
    """

    way: Way
    budgets: tuple[float, ...]
    costs: Floats
    seconds: Floats
    top1: dict[Role, Floats]

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest cost that is known; NaN where none is."""
        costs = self.costs[~np.isnan(self.costs)]
        return (float(costs[0]), float(costs[-1])) if len(costs) else (math.nan, math.nan)

    def at(self, role: Role, cost: float) -> Floats:
        """Return the accuracy of each seed at a cost, ``[S]``; NaN outside of the ladder."""
        known = ~np.isnan(self.costs)
        costs = self.costs[known]
        if not self.ends[0] / MARGIN <= cost <= self.ends[1] * MARGIN:
            return np.full(len(self.top1[role]), math.nan)
        place = math.log(min(max(cost, costs[0]), costs[-1]))
        return np.array([np.interp(place, np.log(costs), row) for row in self.top1[role][:, known]])


@dataclass(frozen=True)
class Split:
    """A budget split into a run of the base alone and one of the larger model alone.

    Attributes:
        base_part: the base's part of the cost.
        values: the mean of the two accuracies, of each seed.
    """

    base_part: float
    values: Floats


@dataclass(frozen=True)
class Comparison:
    """A way of training compared with another at equal cost.

    Attributes:
        way, budget: what is compared; a budget of None means the mean over all budgets.
        subject: "base", "larger" or "both", the mean of the two.
        against: with what.
        of_seeds: the difference in points, ``[S]``; NaN where it is not known.
        base_part: of "both", the base's part of the rival's cost, from 0 to 1.
    """

    way: Way
    budget: float | None
    subject: str
    against: str
    of_seeds: Floats
    base_part: float = math.nan

    @property
    def values(self) -> Floats:
        """Return the differences that are known."""
        return self.of_seeds[~np.isnan(self.of_seeds)]

    @property
    def mean(self) -> float:
        """Return the mean difference; NaN without seeds."""
        return float(self.values.mean()) if len(self.values) else math.nan

    @property
    def half_width(self) -> float:
        """Return half the width of the 95 % confidence interval; NaN of fewer than two seeds."""
        return half_width(self.values.tolist())

    @property
    def p_value(self) -> float:
        """Return p of Student's two-sided t-test of no difference; NaN of fewer than two seeds."""
        from scipy.stats import ttest_1samp

        return float(ttest_1samp(self.values, 0.0).pvalue) if len(self.values) > 1 else math.nan


def read_ladders(plan: Plan) -> list[Ladder]:
    """Read all runs of a plan that are done."""
    found: dict[Cell, RunFolder] = {}
    for cell in plan.cells():
        if plan.run(cell).state is State.DONE:
            found[cell] = read_run(plan.folder / cell.name)
    flops = ForwardFlops(found.values())
    return [_read_ladder(plan, way, found, flops) for way in plan.ways]


def _read_ladder(plan: Plan, way: Way, found: dict[Cell, RunFolder], flops: ForwardFlops) -> Ladder:
    budgets = plan.budgets_of(way)
    shape = len(plan.seeds), len(budgets)
    top1 = {role: np.full(shape, math.nan) for role in way.roles}
    costs, seconds = np.full(shape, math.nan), np.full(shape, math.nan)
    for row, seed in enumerate(plan.seeds):
        for column, budget in enumerate(budgets):
            run = found.get(Cell(way, budget, seed))
            if run is None:
                continue
            average = flops.of(all_options(run)) if way.role else run.average_flops
            costs[row, column] = (average or math.nan) * images_trained(run)
            seconds[row, column] = _seconds(run)
            for role in way.roles:
                # a run of the larger model alone has it as its base
                evaluated = run.evaluated(Role.BASE if way.role else role)
                if not evaluated:
                    raise RunError(f"{run.path}/summary.csv has no accuracy; delete the folder to make the run again")
                top1[role][row, column] = evaluated[-1]["top1"]
    return Ladder(way, budgets, mean_of_known(costs), mean_of_known(seconds), top1)


def _seconds(run: RunFolder) -> float:
    try:
        return math.fsum(map(float, (run.path / SECONDS_FILE).read_text().split()))
    except (OSError, ValueError):
        return math.nan


def mean_of_known(values: Floats) -> Floats:
    """Return the mean over the first axis of the values that are known; NaN where none is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(0) / known.sum(0)


def best_split(base: Ladder, larger: Ladder, cost: float) -> Split | None:
    """Split a budget so that the mean of both accuracies is highest, on average over the seeds.

    It is chosen by the same runs that it is judged by, which flatters it a little.

    Returns:
        None where no split lies on both ladders.
    """
    least, most = max(base.ends[0], cost - larger.ends[1]), min(base.ends[1], cost - larger.ends[0])
    parts = np.linspace(least, most, SPLITS).tolist() if least <= most else []
    tried = [Split(part, (base.at(Role.BASE, part) + larger.at(Role.MOTIVATED, cost - part)) / 2) for part in parts]
    known = [split for split in tried if not np.isnan(split.values).all()]
    return max(known, key=lambda split: float(np.nanmean(split.values)), default=None)


def compare(ladders: Sequence[Ladder]) -> list[Comparison]:
    """Compare each motivated way, budget by budget, with what its cost buys otherwise.

    The base with the base alone, the larger model with the larger alone, both with the best split of the cost into two
    runs; and the models of a variant with those of the plain method.
    """
    base, larger, *motivated = ladders
    plain = {ladder.way.name: ladder for ladder in motivated}
    found = []
    for ladder in motivated:
        for column, (budget, cost) in enumerate(zip(ladder.budgets, ladder.costs, strict=True)):
            own = {role: ladder.top1[role][:, column] for role in Role}
            split = best_split(base, larger, cost)
            cases = [
                ("base", base.way.name, own[Role.BASE] - base.at(Role.BASE, cost)),
                ("larger", larger.way.name, own[Role.MOTIVATED] - larger.at(Role.MOTIVATED, cost)),
            ]
            if split is not None:
                both = (own[Role.BASE] + own[Role.MOTIVATED]) / 2 - split.values
                found.append(Comparison(ladder.way, budget, "both", "two runs", both, split.base_part / cost))
            if ladder.way.plain:
                of_plain = plain[ladder.way.plain]
                for role, subject in ((Role.BASE, "base"), (Role.MOTIVATED, "larger")):
                    cases.append((subject, ladder.way.plain, own[role] - of_plain.at(role, cost)))
            found += [Comparison(ladder.way, budget, *case) for case in cases]
    return found


def over_budgets(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return one comparison for each way, subject and rival: the mean over the budgets at which it can be made."""
    cases: dict[tuple[Way, str, str], list[Floats]] = {}
    for one in comparisons:
        if len(one.values):
            cases.setdefault((one.way, one.subject, one.against), []).append(one.of_seeds)
    return [
        Comparison(way, None, subject, against, np.mean(values, axis=0))
        for (way, subject, against), values in cases.items()
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); NaN stays, and is not counted.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected = list(p_values)
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[place] = largest
    return corrected
