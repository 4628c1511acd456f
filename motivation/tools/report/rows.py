"""The rows of the report: Arch-X-C, Arch-X-Y-B, Arch-X-Y-M and Arch-Y-C, with accuracy per FLOPs (paper, section 4).

Accuracies are percentages, FLOPs those of one image's forward pass at the training size.
"""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.models import untrained_models
from motivation.method.records import Role
from motivation.options.parse import make_parser
from motivation.tools.report.groups import (
    Group,
    Settings,
    all_options,
    classical_twin,
    differing,
    frozen,
    model_options,
)
from motivation.training.flops import forward_flops
from motivation.training.run_folder import RunFolder

DEFAULT_CONDITION = "loss"
"""The paper's condition; any other is shown in the label."""

UNITS = {"10^-2 % per MFLOP": 1e8, "% per GFLOP": 1e9, "10^-2 % per GFLOP": 1e11}
"""Units of accuracy per FLOPs: how many of each are one percentage point per FLOP."""


@dataclass(eq=False)
class Row:
    """A row of the report.

    Attributes:
        label: as in the paper, of timm names.
        kind: ``C``, ``B`` or ``M``.
        group: the runs.
        runs: how many of them have an accuracy.
        accuracy: mean of the last epoch's top-1.
        accuracy_sd: sample standard deviation; None of one run.
        best: mean of the highest top-1 of any epoch: selected on the validation data.
        share: mean share of motivated updates; None in a classical row.
        flops: forward FLOPs, averaged over updates and runs.
        acc_per_flops: percentage points per FLOP against Arch-X-C; None where a row is missing.
        acc_f_ratio: over that of Arch-Y-C.
        against: the row of Arch-X-C in that comparison.
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


def make_report(groups: Sequence[Group], flops: ForwardFlops) -> Report:
    """Return all rows in the paper's order: a model's classical row, then its pairs, by growing FLOPs."""
    names = {id(group): _distinguishing_name(group, groups) for group in groups}
    classical = {
        id(group): _row(f"{group.base}-C{names[id(group)]}", "C", group, None, flops.of(group.settings))
        for group in groups
        if group.motivated is None
    }
    bases: dict[int, list[Row]] = {key: [] for key in classical}
    report = Report([], [])
    for group in groups:
        if group.motivated is None:
            continue
        share = mean([run_share(run) for run in group.runs])
        average = mean([run_average_flops(run) for run in group.runs])
        b, m = (
            _row(f"{group.base}-{group.motivated}-{kind}{names[id(group)]}", kind, group, share, average)
            for kind in ("B", "M")
        )
        report.rows += [b, m]
        x, y = (_classical_row(b, role, groups, classical, report) for role in Role)
        if x is not None:
            b.against, b.acc_per_flops = x, acc_per_flops(b, x)
        if x is not None and y is not None:
            b.acc_f_ratio = acc_f_ratio(b.acc_per_flops, acc_per_flops(y, x))
            if x not in bases[id(y.group)]:
                bases[id(y.group)].append(x)
    for key, row in classical.items():
        report.rows += _against_each(row, bases[key])
    report.rows.sort(key=lambda row: _place(row, flops))
    return report


def _row(label: str, kind: str, group: Group, share: float | None, flops: float | None) -> Row:
    histories = [top1_of_epochs(run, motivated=kind == "M") for run in group.runs]
    last = [history[-1] for history in histories if history]
    return Row(
        label,
        kind,
        group,
        runs=len(last),
        accuracy=mean(last),
        accuracy_sd=sample_sd(last),
        best=mean([max(history) for history in histories if history]),
        share=share,
        flops=flops,
    )


def _distinguishing_name(group: Group, groups: Iterable[Group]) -> str:
    """Return what tells a group from those with the same models and condition, in brackets; often nothing."""

    def models(one: Group) -> tuple[Any, ...]:
        return one.base, one.motivated, one.condition

    shown = [f"condition={group.condition}"] if group.condition not in (None, DEFAULT_CONDITION) else []
    alike = [one.settings for one in groups if models(one) == models(group)]
    shown += [f"{name}={group.settings.get(name)}" for name in differing(alike)]
    return f" [{', '.join(shown)}]" if shown else ""


def _classical_row(
    row: Row, role: Role, groups: Iterable[Group], classical: dict[int, Row], report: Report
) -> Row | None:
    """Return the row to compare a motivated row with, if there is one; a footnote names options that differ."""
    twin = classical_twin(row.group, role, groups)
    if twin is None:
        return None
    group, names = twin
    found = classical[id(group)]
    if names:
        wanted = model_options(row.group.settings, role)
        words = [f"{name} ({group.settings.get(name)}, here {wanted.get(name)})" for name in names]
        report.footnotes.append(f"{row.label} is compared with {found.label}, which differs in {', '.join(words)}")
        row.notes.append(len(report.footnotes))
    return found


def _against_each(row: Row, bases: Sequence[Row]) -> list[Row]:
    """Return a classical row with its accuracy per FLOPs, once for each base that it is compared with."""
    rows = [replace(row, acc_per_flops=acc_per_flops(row, base), against=base) for base in bases]
    if len(rows) > 1:
        for other, base in zip(rows, bases, strict=True):
            other.label += f" over {base.label}"
    return rows or [row]


def _place(row: Row, flops: ForwardFlops) -> tuple[Any, ...]:
    def size(settings: Settings) -> float:
        return math.inf if (found := flops.of(settings)) is None else found

    group, larger = row.group, (-1.0, "")
    if group.motivated:
        larger = (size(model_options(group.settings, Role.MOTIVATED)), group.motivated)
    configuration = row.label.replace(f"-{row.kind}", "", 1)  # a pair's two models stand together
    return group.settings["dataset"], size(group.settings), group.base, larger, configuration, row.kind


# ---- figures


def acc_per_flops(row: Row, base: Row) -> float | None:
    """Return the percentage points gained per FLOP added, ``(A - A_C) / (F - F_C)``; None where one is missing.

    Args:
        row: Arch-X-Y-B or Arch-Y-C.
        base: Arch-X-C.
    """
    if row.accuracy is None or row.flops is None or base.accuracy is None or base.flops is None:
        return None
    return None if row.flops == base.flops else (row.accuracy - base.accuracy) / (row.flops - base.flops)


def acc_f_ratio(of_base: float | None, of_larger: float | None) -> float | None:
    """Return ACC/F_Ratio, `acc_per_flops` of Arch-X-Y-B over that of Arch-Y-C; None where one is missing."""
    return None if of_base is None or not of_larger else of_base / of_larger


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none.

    >>> mean([1.0, None, 3.0])
    2.0
    """
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def sample_sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1); None of fewer than two values, NaN if one is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else None


# ---- figures of runs


def top1_of_epochs(run: RunFolder, motivated: bool = False) -> list[float]:
    """Return the top-1 of each evaluated epoch."""
    column = "motivated_eval_top1" if motivated else "eval_top1"
    return [row[column] for row in run.epochs if isinstance(row.get(column), (int, float))]


def run_share(run: RunFolder) -> float | None:
    """Return a run's share of motivated updates, from its result or else ``summary.csv``; None if neither has it."""
    result = run.result or {}
    if result.get("share") is not None:
        return float(result["share"])
    motivated = sum(row.get("motivated_updates") or 0 for row in run.epochs)
    updates = motivated + sum(row.get("base_updates") or 0 for row in run.epochs)
    return motivated / updates if updates else None


def run_average_flops(run: RunFolder) -> float | None:
    """Return a run's F_avg over all updates, from its result or else ``summary.csv``; None if neither has it."""
    result = run.result or {}
    if result.get("average_flops"):
        return float(result["average_flops"])
    total, updates = 0.0, 0
    for row in run.epochs:
        count = (row.get("base_updates") or 0) + (row.get("motivated_updates") or 0)
        if count and row.get("average_flops") is not None:
            total, updates = total + count * row["average_flops"], updates + count
    return total / updates if updates else None


class ForwardFlops:
    """Forward FLOPs of models at their training size.

    A plain run has none in its ``result.json``: they are taken from a motivated run with the same model, or counted.

    Args:
        runs: the models of their results are not counted again.
    """

    ARCHITECTURE = ("model", "model_kwargs", "input_size", "in_chans", "img_size", "num_classes", "gp")
    """The options that decide a model's forward FLOPs."""

    def __init__(self, runs: Iterable[RunFolder]):
        self._known: dict[Any, float | None] = {}
        self.faults: list[str] = []
        for run in runs:
            flops = (run.result or {}).get("flops") or {}
            for role in Role:
                if role.value in flops and run.motivated:
                    self._known[self._key(model_options(all_options(run), role))] = float(flops[role.value])

    def of(self, settings: Settings) -> float | None:
        """Return the FLOPs of ``settings["model"]``; None where it cannot be made, with the reason in ``faults``."""
        key = self._key(settings)
        if key not in self._known:
            self._known[key] = self._count(settings)
        return self._known[key]

    def _key(self, settings: Settings) -> Any:
        return frozen([settings.get(name) for name in self.ARCHITECTURE])

    def _count(self, settings: Settings) -> float | None:
        changed = {"motivated_model": None, "grad_checkpointing": False}
        args = Namespace(**{**vars(make_parser().parse_args([])), **settings, **changed})
        try:
            models, input_size = untrained_models(args)
            return forward_flops(models[Role.BASE], input_size)
        except Exception as error:  # noqa: BLE001  (a model's constructor raises what it likes)
            reason = " ".join(str(error).split())
            self.faults.append(f"the FLOPs of {settings['model']} cannot be counted: {reason}")
            return None
