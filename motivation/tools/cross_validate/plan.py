"""The runs of a cross-validation: their names, commands and states, and what the folder remembers (paper, section 4).

One run is `train_motivated.py` with one k, one fold held out and one seed, in a folder of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from motivation.options.file_checks import RESUME_NEWEST
from motivation.training.run_folder import NOT_MEASURED, RunError, RunFolder, read_run

PER_RUN = ("motivation_k", "folds", "fold", "seed", "output", "experiment", "resume")
"""Options that each run is given; the user cannot."""

PLAN_FILE = "plan.json"
LOG_FILE = "log.txt"


class PlanError(ValueError):
    """A cross-validation that cannot be made as it was asked for."""


class State(Enum):
    """How far a run is."""

    DONE = "done"
    RESUME = "resume"
    NEW = "new"


@dataclass(frozen=True)
class RunSpec:
    """One run; without ``k`` it trains the base alone."""

    k: int | None
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """Of the run's folder.

        >>> RunSpec(2, 0, 42).name, RunSpec(None, 1, 7).name
        ('k2-fold0-seed42', 'baseline-fold1-seed7')
        """
        return f"{'baseline' if self.k is None else f'k{self.k}'}-fold{self.fold}-seed{self.seed}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{'base alone' if self.k is None else f'k={self.k}'} fold {self.fold} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A cross-validation.

    Attributes:
        folder: of all its runs.
        arguments: those of `train_motivated.py` that all runs have.
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

    def runs(self) -> list[RunSpec]:
        """All runs; every k meets a fold before the next fold comes, so that an early look compares like with like."""
        ks: list[int | None] = [None, *self.ks] if self.baseline else [*self.ks]
        return [RunSpec(k, fold, seed) for seed in self.seeds for fold in range(self.folds) for k in ks]

    def place(self, run: RunSpec) -> Path:
        """The run's folder."""
        return self.folder / run.name


def training_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that all runs share and that change what is measured."""
    return {name: value for name, value in options.items() if name not in NOT_MEASURED.union(PER_RUN)}


def run_arguments(plan: Plan, run: RunSpec, state: State, device: str | None = None) -> list[str]:
    """The arguments of `train_motivated.py` for one run; ours come last, so they win over a YAML file's."""
    flags = ["--folds", plan.folds, "--fold", run.fold, "--seed", run.seed]
    flags += ["--output", plan.folder, "--experiment", run.name]
    flags += ["--motivation-condition", "never"] if run.k is None else ["--motivation-k", run.k]
    if device is not None:
        flags += ["--device", device]
    if state is State.RESUME:
        flags += ["--resume", RESUME_NEWEST]
    return [*plan.arguments, *map(str, flags)]


def run_state(plan: Plan, run: RunSpec) -> State:
    """Whether the run is done, can go on, or is to be started.

    A run that was killed while it wrote ``args.yaml``, or after its last checkpoint, goes on from its checkpoint, which
    holds the figures of all epochs.

    Raises:
        PlanError: its folder holds a run with other options than the plan's.
    """
    folder = plan.place(run)
    unfinished = State.RESUME if any(folder.glob("*.pth.tar")) else State.NEW
    try:
        found = read_run(folder)
    except RunError:
        return unfinished
    _refuse_other_options(plan, run, found)
    try:
        result = found.result
    except RunError:
        return unfinished
    return State.DONE if result and result["completed"] else unfinished


def _refuse_other_options(plan: Plan, run: RunSpec, found: RunFolder) -> None:
    ours = dict(plan.options) | {"folds": plan.folds, "fold": run.fold, "seed": run.seed, "motivation_k": run.k}
    theirs = training_options(found.options) | {
        name: found.options.get(name) for name in ("folds", "fold", "seed", "motivation_k")
    }
    if run.k is None:
        ours["motivation_k"], ours["motivation_condition"] = theirs["motivation_k"], "never"
    if differences := list(_differences(theirs, ours)):
        raise PlanError(
            f"{found.path} was made with other options ({'; '.join(differences[:3])}): delete it, or give another "
            "--output"
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """
    >>> list(_differences({"lr": 0.1, "opt": "sgd"}, {"lr": 0.2, "opt": "sgd"}))
    ['lr 0.1 there, 0.2 here']
    """
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            yield f"{name} {there.get(name)!r} there, {here.get(name)!r} here"


def recall(plan: Plan) -> dict[str, Any]:
    """What ``plan.json`` holds once this plan has joined it; nothing is written.

    Raises:
        PlanError: the folder has a plan with other training options or another number of folds.
    """
    file = plan.folder / PLAN_FILE
    there: dict[str, Any] = {}
    if file.is_file():
        try:
            there = json.loads(file.read_text())
            different = list(_differences(there["options"], plan.options))
            if there["folds"] != plan.folds:
                different.insert(0, f"{there['folds']} folds there, {plan.folds} here")
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"{file} is damaged; delete it, or give another --output") from error
        if different:
            raise PlanError(
                f"{plan.folder} holds another cross-validation ({'; '.join(different[:3])}): give another --output"
            )
    return {
        "format": 1,
        "arguments": list(plan.arguments),
        "folds": plan.folds,
        "ks": sorted({*there.get("ks", []), *plan.ks}),
        "seeds": sorted({*there.get("seeds", []), *plan.seeds}),
        "baseline": bool(plan.baseline or there.get("baseline")),
        "options": plan.options,
    }


def remember(plan: Plan) -> None:
    """Make the folder and write ``plan.json`` there, whole or not at all.

    Raises:
        PlanError: see `recall`, or the folder cannot be written.
    """
    contents = recall(plan)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        scratch = plan.folder / f".{PLAN_FILE}.{os.getpid()}"
        scratch.write_text(json.dumps(contents, indent=1) + "\n")
        os.replace(scratch, plan.folder / PLAN_FILE)
    except OSError as error:
        raise PlanError(f"--output: {plan.folder} cannot be written: {error.strerror}") from error


def survey(plan: Plan, runs: Sequence[RunSpec]) -> dict[RunSpec, State]:
    """The state of each run.

    Raises:
        PlanError: see `run_state`.
    """
    return {run: run_state(plan, run) for run in runs}
