"""The rows of the report: Arch-X-C, Arch-X-Y-B, Arch-X-Y-M and Arch-Y-C (paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from motivation.method.records import Role
from motivation.tools.report.costs import ForwardFlops, run_average_flops, run_share
from motivation.tools.report.grouping import Group, Settings, classical_twin, differing, model_options
from motivation.tools.report.metrics import acc_f_ratio, acc_per_flops, mean, sample_sd
from motivation.training.run_folder import RunFolder

DEFAULT_CONDITION = "loss"
"""The paper's; any other is shown in the label."""


@dataclass(eq=False)
class Row:
    """A row of the report.

    Attributes:
        label: as in the paper, of timm names.
        kind: ``C``, ``B`` or ``M``.
        group: whose runs it is of.
        runs: how many of them have an accuracy.
        accuracy: mean of the last epoch's top-1, in percent.
        accuracy_sd: sample standard deviation; None of one run.
        best: mean of the highest top-1 of any epoch: selected on the validation data.
        share: mean share of motivated updates; None in a classical row.
        flops: forward FLOPs of one image, averaged over updates and runs.
        acc_per_flops: percentage points per FLOP against Arch-X-C; None where a row is missing.
        acc_f_ratio: over that of Arch-Y-C.
        against: the row of Arch-X-C of that comparison.
        notes: numbers of its footnotes, from 1.
    """

    label: str
    kind: str
    group: Group
    runs: int
    accuracy: float | None
    accuracy_sd: float | None
    best: float | None
    share: float | None
    flops: float | None
    acc_per_flops: float | None = None
    acc_f_ratio: float | None = None
    against: Row | None = None
    notes: list[int] = field(default_factory=list)


@dataclass
class Report:
    """Rows and their footnotes."""

    rows: list[Row]
    footnotes: list[str]


def last_and_best(run: RunFolder, motivated: bool = False) -> tuple[float | None, float | None]:
    """Top-1 of a run's last evaluated epoch and the highest of all, in percent.

    Args:
        run: a run.
        motivated: of the motivated model instead of the base.
    """
    column = "motivated_eval_top1" if motivated else "eval_top1"
    history = [row[column] for row in run.epochs if isinstance(row.get(column), (int, float))]
    return (history[-1], max(history)) if history else (None, None)


def make_report(groups: Sequence[Group], costs: ForwardFlops) -> Report:
    """All rows of these groups, in the paper's order: a model's classical row, then its pairs, by growing FLOPs."""
    report = Report([], [])
    names = _names(groups)
    classical = {
        id(group): _classical_row(group, name, costs)
        for group, name in zip(groups, names, strict=True)
        if group.motivated is None
    }
    compared: dict[int, list[Row]] = {key: [] for key in classical}
    for group, name in zip(groups, names, strict=True):
        if group.motivated is None:
            continue
        pair = _pair_rows(group, name)
        report.rows += pair
        x, y = (_twin_row(group, role, groups, classical, pair[0], report) for role in Role)
        _compare(pair[0], x, y)
        if x is not None and y is not None and x not in compared[id(y.group)]:
            compared[id(y.group)].append(x)
    for key, row in classical.items():
        report.rows += _against_each(row, compared[key])
    report.rows.sort(key=lambda row: _place(row, costs))
    return report


def _compare(b: Row, x: Row | None, y: Row | None) -> None:
    """Fill in what Arch-X-Y-B has gained over Arch-X-C, and relative to Arch-Y-C."""
    if x is None:
        return
    b.against = x
    b.acc_per_flops = acc_per_flops(b.accuracy, b.flops, x.accuracy, x.flops)
    if y is not None:
        b.acc_f_ratio = acc_f_ratio(b.acc_per_flops, acc_per_flops(y.accuracy, y.flops, x.accuracy, x.flops))


def _place(row: Row, costs: ForwardFlops) -> tuple[Any, ...]:
    def size(settings: Settings) -> float:
        flops = costs.of(settings)
        return math.inf if flops is None else flops

    group, larger = row.group, (-1.0, "")
    if group.motivated:
        larger = (size(model_options(group.settings, Role.MOTIVATED)), group.motivated)
    configuration = row.label.replace(f"-{row.kind}", "", 1)  # a pair's two models stand together
    return group.settings["dataset"], size(group.settings), group.base, larger, configuration, row.kind


def _names(groups: Sequence[Group]) -> list[str]:
    """What tells a group from the others with the same models and condition; often nothing."""
    names = []
    for group in groups:
        like = [
            g for g in groups if (g.base, g.motivated, g.condition) == (group.base, group.motivated, group.condition)
        ]
        shown = [f"condition={group.condition}"] if group.condition not in (None, DEFAULT_CONDITION) else []
        shown += [f"{name}={group.settings.get(name)}" for name in differing(g.settings for g in like)]
        names.append(f" [{', '.join(shown)}]" if shown else "")
    return names


def _classical_row(group: Group, name: str, costs: ForwardFlops) -> Row:
    return _row(f"{group.base}-C{name}", "C", group, None, costs.of(group.settings))


def _pair_rows(group: Group, name: str) -> list[Row]:
    share, flops = mean([run_share(r) for r in group.runs]), mean([run_average_flops(r) for r in group.runs])
    return [_row(f"{group.base}-{group.motivated}-{kind}{name}", kind, group, share, flops) for kind in ("B", "M")]


def _row(label: str, kind: str, group: Group, share: float | None, flops: float | None) -> Row:
    figures = [last_and_best(run, kind == "M") for run in group.runs]
    last = [one for one, _ in figures]
    return Row(
        label,
        kind,
        group,
        runs=sum(one is not None for one in last),
        accuracy=mean(last),
        accuracy_sd=sample_sd(last),
        best=mean([best for _, best in figures]),
        share=share,
        flops=flops,
    )


def _twin_row(
    group: Group, role: Role, groups: Iterable[Group], classical: dict[int, Row], row: Row, report: Report
) -> Row | None:
    twin, faults = classical_twin(group, role, groups)
    if twin is None:
        return None
    found = classical[id(twin)]
    if faults:
        wanted = model_options(group.settings, role)
        words = [f"{name} ({twin.settings.get(name)}, here {wanted.get(name)})" for name in faults]
        report.footnotes.append(f"{row.label} is compared with {found.label}, which differs in {', '.join(words)}")
        row.notes.append(len(report.footnotes))
    return found


def _against_each(row: Row, bases: Sequence[Row]) -> list[Row]:
    """A classical row with its accuracy per FLOPs; once for each base that it is compared with."""
    rows = []
    for base in bases:
        label = f"{row.label} over {base.label}" if len(bases) > 1 else row.label
        gained = acc_per_flops(row.accuracy, row.flops, base.accuracy, base.flops)
        rows.append(replace(row, label=label, acc_per_flops=gained, against=base))
    return rows or [row]
