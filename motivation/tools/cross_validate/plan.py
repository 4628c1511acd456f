"""The runs of a cross-validation (paper, section 4): one for each k, fold and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motivation.tools.sweep import PlannedRun

PER_RUN = ("motivation_k", "folds", "fold", "seed", "output", "experiment", "resume")
"""Options that the command gives to each run, and the user may not."""
BASELINE = "baseline"


@dataclass(frozen=True)
class Cell:
    """The k, fold and seed of one run; without ``k`` it trains the base alone.

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
        folder: holds the folders of all runs.
        arguments: for `train_motivated.py`, the same for all runs.
        options: the options that these arguments mean.
        ks: in growing order.
        folds: number of parts of the training split, at least 2.
        seeds: each seed has folds of its own.
        baseline: train the base alone on each fold, too.
    """

    folder: Path
    arguments: tuple[str, ...]
    options: dict[str, Any] = field(repr=False)
    ks: tuple[int, ...]
    folds: int
    seeds: tuple[int, ...]
    baseline: bool = False

    @property
    def headline(self) -> str:
        """Models, condition, folds and seeds in one line."""
        options, seeds = self.options, ", ".join(map(str, self.seeds))
        return (
            f"{options['model']} in {options['motivated_model']}, condition {options['motivation_condition']}: "
            f"{self.folds} folds of the training split, {'seeds' if len(self.seeds) > 1 else 'seed'} {seeds}"
        )

    def cells(self) -> list[Cell]:
        """List all runs, with all ks of a fold before the next fold, so that an early look compares like with like."""
        ks: list[int | None] = [None, *self.ks] if self.baseline else [*self.ks]
        return [Cell(k, fold, seed) for seed in self.seeds for fold in range(self.folds) for k in ks]

    def run(self, cell: Cell) -> PlannedRun:
        """Return a run; its own arguments come after the user's, and so win over those of a YAML file."""
        flags = ["--folds", self.folds, "--fold", cell.fold, "--seed", cell.seed]
        flags += ["--motivation-condition", "never"] if cell.k is None else ["--motivation-k", cell.k]
        return PlannedRun(self.folder / cell.name, (*self.arguments, *map(str, flags)))
