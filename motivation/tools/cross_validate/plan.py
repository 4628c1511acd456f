"""The runs of a cross-validation (paper, section 4): one for each k, fold and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motivation.errors import InputError
from motivation.tools.sweep import PlannedRun
from motivation.training.run_folder import NOT_MEASURED, RunError, read_run

PER_RUN = ("motivation_k", "folds", "fold", "seed", "output", "experiment", "resume")
"""Options that each run is given; the user cannot."""
BASELINE = "baseline"


@dataclass(frozen=True)
class Cell:
    """What makes one run; without ``k`` it trains the base alone.

    >>> Cell(2, 0, 42).name, Cell(None, 1, 7).name
    ('k2-fold0-seed42', 'baseline-fold1-seed7')
    """

    k: int | None
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{BASELINE if self.k is None else f'k{self.k}'}-fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A cross-validation.

    Attributes:
        folder: of all its runs.
        arguments: of `train_motivated.py`, for all runs.
        options: what these mean, as far as it changes what is measured, as ``args.yaml`` would hold it.
        ks: rising.
        folds: number of parts of the training split, at least 2.
        seeds: each seed has folds of its own.
        baseline: whether the base is trained alone on each fold too.
    """

    folder: Path
    arguments: tuple[str, ...]
    options: dict[str, Any] = field(repr=False)
    ks: tuple[int, ...]
    folds: int
    seeds: tuple[int, ...]
    baseline: bool = False

    def cells(self) -> list[Cell]:
        """List all runs; every k meets a fold before the next fold comes, so an early look compares like with like."""
        ks: list[int | None] = [None, *self.ks] if self.baseline else [*self.ks]
        return [Cell(k, fold, seed) for seed in self.seeds for fold in range(self.folds) for k in ks]

    def run(self, cell: Cell) -> PlannedRun:
        """Return a run; what makes it comes after the user's arguments and so wins over a YAML file's."""
        flags = ["--folds", self.folds, "--fold", cell.fold, "--seed", cell.seed]
        flags += ["--motivation-condition", "never"] if cell.k is None else ["--motivation-k", cell.k]
        return PlannedRun(self.folder / cell.name, (*self.arguments, *map(str, flags)))

    def refuse_other_runs(self) -> None:
        """Look at the options of all runs in the folder.

        Raises:
            InputError: they differ from the plan's in what is measured, or in the number of folds.
        """
        for file in sorted(self.folder.glob("*/args.yaml")):
            try:
                found = read_run(file.parent).options
            except RunError:
                continue  # killed while it wrote them
            here = dict(self.options)
            if file.parent.name.startswith(BASELINE):
                here["motivation_condition"] = "never"
            there = measured_options(found) | {"folds": found.get("folds")}
            if different := _differences(there, here | {"folds": self.folds}):
                raise InputError(
                    f"{file.parent} was made with other options ({'; '.join(different[:3])}): delete it, or give "
                    "another --output"
                )


def measured_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that all runs share and that change what is measured."""
    return {name: value for name, value in options.items() if name not in NOT_MEASURED.union(PER_RUN)}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """
    >>> _differences({"lr": 0.1, "opt": "sgd"}, {"lr": 0.2, "opt": "sgd"})
    ['lr 0.1 there, 0.2 here']
    """
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return [f"{name} {there.get(name)!r} there, {here.get(name)!r} here" for name in names]
