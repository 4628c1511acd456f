"""The rows of the report: Arch-X-C, Arch-X-Y-B, Arch-X-Y-M and Arch-Y-C, with accuracy per FLOPs (paper, section 4).

Accuracies are percentages, FLOPs those of one image's forward pass at the training size. A figure that is missing is
NaN.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import motivation.models  # noqa: F401  (registers the CIFAR ResNets)
from motivation.build.models import lies_outside, untrained_models
from motivation.method.records import Role
from motivation.options.faults import one_line
from motivation.options.parse import make_parser
from motivation.tools.report.groups import (
    Group,
    Settings,
    all_options,
    as_key,
    classical_twin,
    model_options,
)
from motivation.tools.report.labels import words_of
from motivation.tools.tables import mean, sample_sd
from motivation.training.flops import CONVENTION, forward_flops
from motivation.training.run_folder import RunFolder

UNITS = {"10^-2 % per MFLOP": 1e8, "% per GFLOP": 1e9, "10^-2 % per GFLOP": 1e11}
"""Units of accuracy per FLOPs: how many of each are one percentage point per FLOP."""


@dataclass(eq=False)
class Row:
    """A row of the report.

    Attributes:
        label: as in the paper, of timm names.
        kind: ``C``, ``B`` or ``M``.
        group: the runs.
        words: in the label, by the options that tell the row from others of the same models.
        flops: forward FLOPs, averaged over updates and runs.
        conventions: in which the runs have counted them.
        share: mean share of motivated updates; NaN in a classical row.
        against: Arch-X-C, with which Arch-X-Y-B or Arch-Y-C is compared.
        larger: Arch-Y-C, compared with the same row.
        notes: its footnotes.
        accuracies: the last epoch's top-1 of each run that has one.
        runs: how many these are.
        accuracy: their mean.
        accuracy_sd: its sample standard deviation.
        best: mean of the top-1 of each run's best epoch: selected on the validation data.
    """

    label: str
    kind: str
    group: Group
    words: Mapping[str, str]
    flops: float
    conventions: tuple[str, ...] = (CONVENTION,)
    share: float = math.nan
    against: Row | None = None
    larger: Row | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        role = Role.MOTIVATED if self.kind == "M" else Role.BASE
        self.accuracies = [epochs[-1]["top1"] for run in self.group.runs if (epochs := run.evaluated(role))]
        best = [epoch["top1"] for run in self.group.runs if (epoch := run.best_epoch(role))]
        self.runs, self.accuracy, self.accuracy_sd = (
            len(self.accuracies),
            mean(self.accuracies),
            sample_sd(self.accuracies),
        )
        self.best = mean(best)

    @property
    def acc_per_flops(self) -> float:
        """Return the percentage points gained per FLOP added over Arch-X-C."""
        return acc_per_flops(self, self.against) if self.against else math.nan

    @property
    def acc_f_ratio(self) -> float:
        """Return ACC/F_Ratio: `acc_per_flops` of Arch-X-Y-B over that of Arch-Y-C."""
        if self.against is None or self.larger is None:
            return math.nan
        return acc_f_ratio(self.acc_per_flops, acc_per_flops(self.larger, self.against))


def make_rows(groups: Sequence[Group], flops: ForwardFlops) -> list[Row]:
    """Return all rows in the paper's order: a model's classical row, then its pairs, by growing FLOPs."""
    words = words_of(groups)
    names = {group: f" [{', '.join(own.values())}]" if own else "" for group, own in words.items()}
    classical = {
        group: Row(f"{group.base}-C{names[group]}", "C", group, words[group], *flops.with_convention(group.settings))
        for group in groups
        if group.motivated is None
    }
    bases: dict[Row, list[Row]] = {row: [] for row in classical.values()}
    rows = []
    for group in groups:
        if group.motivated is None:
            continue
        conventions = tuple(sorted({run.convention for run in group.runs}))
        cost = mean(run.average_flops for run in group.runs), conventions, mean(run.share for run in group.runs)
        pair = f"{group.base}-{group.motivated}"
        b, m = (Row(f"{pair}-{kind}{names[group]}", kind, group, words[group], *cost) for kind in ("B", "M"))
        rows += [b, m]
        b.against, b.larger = _classical_rows(b, classical)
        if b.against and b.larger and b.against not in bases[b.larger]:
            bases[b.larger].append(b.against)
    for row, compared in bases.items():
        rows += _against_each(row, compared)
    if len({row.conventions for row in rows}) > 1:
        for row in rows:
            row.notes.append(f"F_avg counted in {' and '.join(row.conventions)}, other rows otherwise")
    return sorted(rows, key=lambda row: _place(row, flops))


def _classical_rows(row: Row, classical: Mapping[Group, Row]) -> tuple[Row | None, Row | None]:
    """Return the rows to compare a motivated row with, as far as they are there; notes name options that differ."""
    twins = [classical_twin(row.group, role, classical) for role in Role]
    unlike: dict[str, list[str]] = {}
    for role, twin in zip(Role, twins, strict=True):
        if twin is not None and twin[1]:
            group, names = twin
            wanted = model_options(row.group.settings, role)
            words = [f"{name} ({group.settings.get(name)}, here {wanted.get(name)})" for name in names]
            unlike.setdefault(", ".join(words), []).append(classical[group].label)
    for differences, labels in unlike.items():
        row.notes.append(
            f"compared with {' and '.join(labels)}, which differ{'s' * (len(labels) == 1)} in {differences}"
        )
    base, larger = (None if twin is None else classical[twin[0]] for twin in twins)
    return base, larger


def _against_each(row: Row, bases: Sequence[Row]) -> list[Row]:
    """Return a classical row once for each base that it is compared with."""
    over = [f" over {base.label}" if len(bases) > 1 else "" for base in bases]
    rows = [replace(row, label=row.label + name, against=base) for name, base in zip(over, bases, strict=True)]
    return rows or [row]


def _place(row: Row, flops: ForwardFlops) -> tuple[Any, ...]:
    def size(settings: Settings) -> float:
        return math.inf if math.isnan(found := flops.of(settings)) else found

    group, larger = row.group, (-1.0, "")
    if group.motivated:
        larger = (size(model_options(group.settings, Role.MOTIVATED)), group.motivated)
    configuration = row.label.replace(f"-{row.kind}", "", 1)  # a pair's two models stand together
    return group.settings["dataset"], size(group.settings), group.base, larger, configuration, row.kind


def acc_per_flops(row: Row, base: Row) -> float:
    """Return the percentage points gained per FLOP added, ``(A - A_C) / (F - F_C)``; NaN where one is missing.

    Args:
        row: Arch-X-Y-B or Arch-Y-C.
        base: Arch-X-C.
    """
    return math.nan if row.flops == base.flops else (row.accuracy - base.accuracy) / (row.flops - base.flops)


def acc_f_ratio(of_base: float, of_larger: float) -> float:
    """Return ACC/F_Ratio, `acc_per_flops` of Arch-X-Y-B over that of Arch-Y-C; NaN where one is missing."""
    return of_base / of_larger if of_larger else math.nan


class ForwardFlops:
    """Forward FLOPs of models at their training size.

    A plain run has none in its ``result.json``: they are taken from a motivated run with the same model, or counted.

    Args:
        runs: the models of their results are not counted again.
    """

    ARCHITECTURE = ("model", "model_kwargs", "input_size", "in_chans", "img_size", "num_classes", "gp")
    """The options that decide a model's forward FLOPs."""

    def __init__(self, runs: Iterable[RunFolder]):
        self.faults: list[str] = []
        self._known = {
            self._key(model_options(all_options(run), role)): (flops, (run.convention,))
            for run in sorted(runs, key=lambda run: run.convention == CONVENTION)  # the last one stays: today's
            for role, flops in run.flops.items()
        }

    def of(self, settings: Settings) -> float:
        """Return the FLOPs of ``settings["model"]``; NaN where it cannot be made, with the reason in ``faults``."""
        return self.with_convention(settings)[0]

    def with_convention(self, settings: Settings) -> tuple[float, tuple[str, ...]]:
        """Return the same and the convention in which they were counted."""
        key = self._key(settings)
        if key not in self._known:
            self._known[key] = self._count(settings), (CONVENTION,)
        return self._known[key]

    def _key(self, settings: Settings) -> str:
        return as_key([settings.get(name) for name in self.ARCHITECTURE])

    def _count(self, settings: Settings) -> float:
        if lies_outside(settings["model"]):
            self.faults.append(f"the FLOPs of {settings['model']} are not counted: it lies outside of the run")
            return math.nan
        changed = {"motivated_model": None, "grad_checkpointing": False}
        args = Namespace(**{**vars(make_parser().parse_args([])), **settings, **changed})
        try:
            models, input_size = untrained_models(args)
            return forward_flops(models[Role.BASE], input_size)
        except Exception as error:  # noqa: BLE001  (a model's constructor raises what it likes)
            self.faults.append(f"the FLOPs of {settings['model']} cannot be counted: {one_line(error)}")
            return math.nan
