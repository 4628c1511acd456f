"""Read the folder of a run: options, epochs, updates, result.

Runs of timm's script can be read too; they have options and epochs only. All that is read is checked against a schema:
a folder may be damaged, or a stranger's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from motivation.errors import print_text
from motivation.method.condition_registry import takes
from motivation.method.records import Role
from motivation.options.config_files import read_yaml
from motivation.options.flags import FLAGS
from motivation.training.flops import convention_of
from motivation.training.records import rank_key
from motivation.training.run_files import (
    METRICS_SCHEMA,
    RESULT_SCHEMA,
    SUMMARY_SCHEMA,
    UPDATE_SCHEMA,
    RunError,
    checked_options,
    iter_rows,
    read_json,
    schema_fault,
)

RESULT_FILE = "result.json"
LABELS_FILE = "label_names.json"
"""Names of the classes in the order of the model's outputs, where the data set has names."""

Updates = np.recarray
"""Updates in the order of training, ``[N]``, with the columns of `UPDATE`."""

UPDATE = np.dtype([("epoch", np.int64), ("update", np.int64), ("loss", np.float64), ("motivated", np.bool_)])
"""An update: its epoch, its number in the epoch, its training loss, and True if it trained the motivated model."""

NOT_MEASURED = frozenset(flag.dest for flag in FLAGS.values() if not flag.measured) | {"config"}
"""Options in which runs of one configuration may differ: where and how fast a run is, and what it writes."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: of the folder.
        options: contents of ``args.yaml``.
    """

    path: Path
    options: dict[str, Any] = field(repr=False)

    @property
    def base(self) -> str:
        """Return the timm name of the base model."""
        return str(self.options["model"])

    @property
    def motivated(self) -> str | None:
        """Return the timm name of the motivated model, None for a plain run."""
        return self.options.get("motivated_model") or None

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return int(self.options.get("seed", 42))

    @property
    def condition(self) -> str:
        """Return the name of the motivation condition."""
        return str(self.options.get("motivation_condition", "loss"))

    @property
    def k(self) -> int | None:
        """Return the length of the streak; None for a condition without one."""
        return int(self.options.get("motivation_k", 2)) if takes(self.condition, "k") else None

    @property
    def condition_text(self) -> str:
        """Return condition and k in words."""
        return f"condition {self.condition}" + ("" if self.k is None else f", k = {self.k}")

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """Return the rows of ``summary.csv`` with numbers converted; empty before the first epoch.

        Columns: ``epoch``, ``train_loss``, ``eval_loss``, ``eval_top1``, ``eval_top5``, ``lr``; of a motivated run also
        ``motivated_eval_*``, ``base_updates``, ``motivated_updates``, ``switches``, ``average_flops``, ``seconds``.
        A value that was not measured is missing or None.

        Raises:
            RunError: the file is damaged.
        """
        return list(iter_rows(self.path / "summary.csv", SUMMARY_SCHEMA, ("epoch",), "is no epoch"))

    @cached_property
    def updates(self) -> Updates:
        """Return the updates in ``updates.csv``, in the order of training.

        Empty where the file is missing, as in a run of timm's.

        Raises:
            RunError: the file is damaged.
        """
        rows = iter_rows(self.path / "updates.csv", UPDATE_SCHEMA, tuple(UPDATE_SCHEMA), "is no update")
        found = ((row["epoch"], row["update"], row["loss"], row["active"] == Role.MOTIVATED.value) for row in rows)
        return np.fromiter(found, UPDATE).view(np.recarray)

    @cached_property
    def motivated_updates(self) -> list[int]:
        """Return the number of motivated updates of each epoch, from epoch 0 on.

        Raises:
            RunError: ``updates.csv`` is missing, empty or damaged, or lacks an epoch.
        """
        self.require_updates()
        epochs, which = np.unique(self.updates.epoch, return_inverse=True)
        if len(epochs) != epochs[-1] + 1:
            raise RunError(f"{self.path}/updates.csv lacks epochs: it has {len(epochs)} up to epoch {epochs[-1]}")
        return [int(count) for count in np.bincount(which, self.updates.motivated)]

    def require_updates(self) -> None:
        """Raise a `RunError` if the run has no ``updates.csv`` with a line per update."""
        if not len(self.updates):
            raise RunError(f"{self.path} has no updates.csv with a line per update")

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """Return the contents of ``result.json``; None if the run has not ended."""
        path = self.path / RESULT_FILE
        if not path.is_file():
            return None
        found = read_json(path)
        if fault := schema_fault(found, RESULT_SCHEMA):
            raise RunError(f"{path} is damaged: {fault}")
        if found.get("completed") is None:
            raise RunError(f"{path} is damaged: it does not say whether the run was completed")
        return dict(found)

    @property
    def label_names(self) -> list[str] | None:
        """Return the names of the classes; None where the data set has none, or the run is an older one."""
        path = self.path / LABELS_FILE
        if not path.is_file():
            return None
        names = read_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RunError(f"{path} is damaged: it is no list of names")
        return names

    @property
    def completed(self) -> bool:
        """Return True if all epochs were trained, as far as the folder tells."""
        return bool(self.result and self.result["completed"])

    @property
    def flops(self) -> dict[Role, float]:
        """Return the forward FLOPs of both models; empty of a plain run, or of one that has not ended."""
        found = (self.result or {}).get("flops") or {}
        return {role: float(found[role.value]) for role in Role if found.get(role.value) is not None}

    @property
    def convention(self) -> str:
        """Return the name of the convention of the run's FLOPs; that of today where the run does not say."""
        return convention_of(self.result or {})

    @property
    def share(self) -> float | None:
        """Return the share of motivated updates, of a run in progress up to its last evaluation; None if plain."""
        if self.result and self.result.get("share") is not None:
            return float(self.result["share"])
        motivated = sum(row.get("motivated_updates") or 0 for row in self.epochs)
        updates = motivated + sum(row.get("base_updates") or 0 for row in self.epochs)
        return motivated / updates if updates else None

    @property
    def average_flops(self) -> float | None:
        """Return F_avg over all updates, of a run in progress up to its last evaluation; None if plain."""
        if self.result and self.result.get("average_flops"):
            return float(self.result["average_flops"])
        costs = [
            ((row.get("base_updates") or 0) + (row.get("motivated_updates") or 0), row["average_flops"])
            for row in self.epochs
            if row.get("average_flops") is not None
        ]
        updates = sum(count for count, _ in costs)
        return sum(count * flops for count, flops in costs) / updates if updates else None

    def evaluated(self, role: Role) -> list[dict[str, Any]]:
        """Return epoch, ``loss``, ``top1`` and ``top5`` on the validation data, of each epoch with a top-1."""
        prefix = "eval_" if role is Role.BASE else "motivated_eval_"
        found = [
            {"epoch": row.get("epoch"), **{name: row.get(prefix + name) for name in ("loss", "top1", "top5")}}
            for row in self.epochs
        ]
        return [metrics for metrics in found if isinstance(metrics["top1"], (int, float))]

    def best_epoch(self, role: Role) -> dict[str, Any] | None:
        """Return the metrics of the epoch that was best by ``--eval-metric``; None if there is none.

        A run that has ended says which one it was: a run that was resumed in another folder may have it from the first.
        """
        best = (self.result or {}).get("best" if role is Role.BASE else "best_motivated")
        if best and best.get(role.value):
            return {"epoch": best.get("epoch"), **{name: best[role.value].get(name) for name in METRICS_SCHEMA}}
        name = self.options.get("eval_metric", "top1")
        ranked = [metrics for metrics in self.evaluated(role) if metrics.get(name) is not None]
        return min(ranked, key=lambda metrics: rank_key(metrics[name], decreasing=name == "loss"), default=None)


def read_run(path: str | Path) -> RunFolder:
    """Open a run's folder.

    Raises:
        RunError: it is not the folder of a run.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    file = folder / "args.yaml"
    if not file.is_file():
        raise RunError(f"{folder} is no run: it has no args.yaml")
    try:
        options = read_yaml(file)
    except ValueError as error:
        raise RunError(f"{folder} is a damaged run: {error}") from error
    if not isinstance(options, dict) or not options.get("model"):
        raise RunError(f"{file} does not name a model")
    if options.get("limit_batches"):
        raise RunError(f"{folder} is no run: --limit-batches was killed there and has left it; delete it")
    return RunFolder(folder, checked_options(options, file))


def find_runs(paths: list[str | Path]) -> list[RunFolder]:
    """Open runs; a folder that is not a run's stands for all runs below it, sorted by name.

    What is no run, or a damaged one, is left out beside others, and said on standard error.

    Raises:
        RunError: a folder is missing, or there is no run.
    """
    found: dict[Path, RunFolder] = {}
    faults: list[str] = []
    for path in map(Path, paths):
        folders = [path]
        if path.is_dir() and not (path / "args.yaml").is_file():
            folders = sorted(file.parent for file in path.rglob("args.yaml"))
            if not folders:
                faults.append(f"{path} is no run and has none in it (a run has an args.yaml)")
        for folder in folders:
            try:
                found.setdefault(folder.resolve(), read_run(folder))
            except RunError as error:
                if not folder.is_dir():
                    raise
                faults.append(str(error))
    if not found:
        raise RunError(*faults)
    for fault in faults:
        print_text(f"left out: {fault}", sys.stderr)
    return list(found.values())
