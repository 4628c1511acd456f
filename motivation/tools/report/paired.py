"""Paired differences of accuracy between configurations, with 95 % intervals by Student's t (docs/reproduction.md).

Runs of two configurations are paired by seed and fold: they saw the same splits, and all their options but those in
which the configurations differ are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from motivation.method.records import Role
from motivation.tools.report.groups import all_options, differing, model_options
from motivation.tools.report.labels import fitted_lines, fitted_table, is_wide, short_names
from motivation.tools.report.rows import Row
from motivation.tools.tables import MISSING, csv_text, markdown_table, mean, number, plus_minus, sample_sd
from motivation.training.run_files import RunError
from motivation.training.run_folder import RunFolder

LEVEL = 0.95
"""Confidence level of the intervals."""

Pairing = tuple[int, int | None]
"""Seed and fold of a run."""


@dataclass(frozen=True)
class Difference:
    """A row compared with another over runs that are paired.

    Attributes:
        row, against: the two rows.
        values: the difference of the last epoch's top-1 for each pair of runs, in points.
        pairs: seed and fold of these pairs.
        unpaired: how many runs of both rows have no partner.
        options: the options in which the two differ.
        cost: training FLOPs of the row as a multiple of those of the other; NaN where they are not known.
    """

    row: Row
    against: Row
    values: list[float]
    pairs: list[Pairing]
    unpaired: int
    options: list[str]
    cost: float

    @property
    def mean(self) -> float:
        """Return the mean difference; NaN without pairs."""
        return mean(self.values)

    @property
    def half_width(self) -> float:
        """Return half the width of the confidence interval of the mean; NaN of fewer than two pairs."""
        return half_width(self.values)


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the confidence interval of a mean, by Student's t with n - 1 degrees of freedom.

    NaN of fewer than two values.
    """
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return math.nan
    return float(t.ppf((1 + LEVEL) / 2, count - 1)) * sample_sd(values) / math.sqrt(count)


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Return all comparisons that the rows allow.

    First each motivated model against its classical twin (X-Y-B and X-C, X-Y-M and Y-C) and classical rows of a model
    against the first of them that is such a twin, then the motivated rows of a pair against each other.
    """
    bases = {row.group: row for row in rows if row.kind == "B"}
    twins: list[Row] = []
    found: list[tuple[Row, Row]] = []
    for row in rows:
        base = bases.get(row.group)
        if base is not None and (twin := base.against if row.kind == "B" else base.larger):
            twins.append(twin)
            found.append((row, twin))
    classical = {row.group: row for row in rows if row.kind == "C"}  # one with several bases has several rows
    for row in classical.values():
        alike = (twin for twin in twins if _model(twin) == _model(row))
        twin = next(alike, None)
        if twin is not None and all(twin.group is not row.group for twin in twins):
            found.append((row, twin))
    for one, other in combinations([row for row in rows if row.kind != "C"], 2):
        if (one.kind, _model(one)) == (other.kind, _model(other)):
            found.append((one, other))
    return [_difference(row, against) for row, against in found]


def _model(row: Row) -> tuple[Any, ...]:
    return row.group.settings["dataset"], row.group.base, row.group.motivated


def _difference(row: Row, against: Row) -> Difference:
    one, other = _accuracies(row), _accuracies(against)
    pairs = [pairing for pairing in one if pairing in other]
    return Difference(
        row=row,
        against=against,
        values=[one[pairing] - other[pairing] for pairing in pairs],
        pairs=pairs,
        unpaired=len(one) + len(other) - 2 * len(pairs),
        options=differing([_settings(row, against), against.group.settings]),
        cost=_training_cost(row) / _training_cost(against),
    )


def _settings(row: Row, against: Row) -> dict[str, Any]:
    """Return a row's options; beside a classical row those of its model alone."""
    if row.kind == "C" or against.kind != "C":
        return row.group.settings
    return model_options(row.group.settings, Role.MOTIVATED if row.kind == "M" else Role.BASE)


def _accuracies(row: Row) -> dict[Pairing, float]:
    """Return the last epoch's top-1 of each run, in the order of the seeds; of two runs with one seed the first."""
    role = Role.MOTIVATED if row.kind == "M" else Role.BASE
    found: dict[Pairing, float] = {}
    for run in row.group.runs:
        if epochs := run.evaluated(role):
            found.setdefault((run.seed, run.options.get("fold")), epochs[-1]["top1"])
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or 0)))


def _training_cost(row: Row) -> float:
    """Return the forward FLOPs of all images of a training, mean over the runs; NaN where they are not known."""
    return row.flops * mean(images_trained(run) for run in row.group.runs) or math.nan


def images_trained(run: RunFolder) -> float:
    """Return how many images a run has trained on per process; 0 where it has not logged its updates."""
    updates = sum(((run.result or {}).get("updates") or {}).values()) or len(run.updates)
    options = all_options(run)
    return updates * options["batch_size"] * (options["grad_accum_steps"] or 1)


def seeds_text(pairs: Iterable[Pairing]) -> str:
    """
    >>> seeds_text([(0, None), (1, None), (2, None), (7, None)]), seeds_text([(42, 0), (42, 1)]), seeds_text([])
    ('0-2, 7', '42 (folds 0-1)', '-')
    """
    folds: dict[int, list[int]] = {}
    for seed, fold in pairs:
        folds.setdefault(seed, []).extend([] if fold is None else [fold])
    if any(folds.values()):
        return ", ".join(f"{seed} (folds {_ranges(of_seed)})" for seed, of_seed in folds.items())
    return _ranges(list(folds)) or MISSING


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number_ in numbers:
        if parts and number_ == parts[-1][-1] + 1:
            parts[-1].append(number_)
        else:
            parts.append([number_])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


class PairedTable:
    """Paired differences as text.

    Args:
        rows: of the report.

    Raises:
        RunError: no two rows can be compared.
    """

    def __init__(self, rows: Sequence[Row]):
        self.differences = differences(rows)
        if not self.differences:
            raise RunError("--paired: no two rows can be compared; give runs of a pair and of its models alone")

    def console(self) -> str:
        """Return an aligned table that fits a terminal: the rows that are compared with one stand below it."""
        names = short_names(row.group for one in self.differences for row in (one.row, one.against))
        header, *cells = self.cells()
        table, remarks = [header[:1] + header[2:]], self.remarks()
        by_other: dict[str, list[list[str]]] = {}
        for label, against, *figures in cells:
            by_other.setdefault(against, []).append([f"  {label}", *figures])
        for against, rows in by_other.items():
            table += [[f"against {against}", *[""] * (len(header) - 2)], *rows]
        if is_wide(table):
            table = [[names(label), *figures] for label, *figures in table]
            remarks = [*map(names, remarks), *names.remarks]
        return f"{fitted_table(table)}\n\n{fitted_lines(remarks)}\n"

    def markdown(self) -> str:
        """Return a Markdown table."""
        return f"{markdown_table(self.cells(), left=2)}\n\n" + "\n\n".join(self.remarks()) + "\n"

    def csv(self) -> str:
        """Return the differences for programs: numbers in full precision, an empty cell where one is missing."""
        return csv_text([
            {
                "model": one.row.label,
                "against": one.against.label,
                "top1_mean": one.row.accuracy,
                "top1_sd": one.row.accuracy_sd,
                "difference": one.mean,
                "half_width_95": one.half_width,
                "n": len(one.values),
                "seeds": seeds_text(one.pairs),
                "unpaired": one.unpaired,
                "options_that_differ": " ".join(one.options),
                "share": one.row.share,
                "training_cost": one.cost,
            }
            for one in self.differences
        ])  # fmt: skip

    def cells(self) -> list[list[str]]:
        """Return a header, and the cells of each difference."""
        cells = [["model", "against", "top-1 (%)", "difference", "n", "seeds", "share", "training cost"]]
        for one in self.differences:
            cells.append([
                one.row.label,
                one.against.label,
                plus_minus(one.row.accuracy, one.row.accuracy_sd),
                plus_minus(one.mean, one.half_width, sign="+") if one.values else MISSING,
                str(len(one.values)),
                seeds_text(one.pairs),
                number(one.row.share, 4),
                number(one.cost),
            ])  # fmt: skip
        return cells

    def remarks(self) -> list[str]:
        """Return what stands under the table."""
        remarks = [
            "top-1 of the last epoch, mean ± sample standard deviation over all runs of the row",
            "difference: of top-1 in points, mean over pairs of runs of the same seed and fold ± half the width of its "
            "95 % confidence interval (Student's t, n - 1 degrees of freedom)",
            "training cost: forward FLOPs of all images trained on, as a multiple of the other's",
        ]
        if any(one.unpaired for one in self.differences):
            remarks.append("runs without a partner of the same seed and fold are left out of n (--csv counts them)")
        unlike: dict[str, list[str]] = {}
        for one in self.differences:
            if hidden := ", ".join(_unsaid(one)):
                unlike.setdefault(hidden, []).append(f"{one.row.label} and {one.against.label}")
        for names, pairs in unlike.items():
            more = f", and in {len(pairs) - 1} more comparisons" if len(pairs) > 1 else ""
            remarks.append(f"besides what the labels say, {names} differ between {pairs[0]}{more} (--csv names all)")
        return remarks


def _unsaid(one: Difference) -> list[str]:
    """Return the options that both rows have and in which they differ, without their labels saying so."""
    rows = (one.row, one.against)
    return [
        name
        for name in one.options
        if all(name in row.group.settings for row in rows) and not any(name in row.words for row in rows)
    ]
