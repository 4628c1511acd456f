"""Read the folder of a run: options, epochs, updates, result.

Runs of timm's script can be read too; they have options and epochs only.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from motivation.errors import InputError
from motivation.options.config_files import read_yaml
from motivation.options.flags import FLAGS

RESULT_FILE = "result.json"

NOT_MEASURED = frozenset(flag.dest for flag in FLAGS.values() if not flag.measured) | {"config"}
"""Options in which runs of one configuration may differ: where and how fast a run is, and what it writes."""


class RunError(InputError):
    """A folder that is not a run's, or lacks what is asked for."""


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

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """Return the rows of ``summary.csv`` with numbers converted; empty before the first epoch.

        Columns: ``epoch``, ``train_loss``, ``eval_loss``, ``eval_top1``, ``eval_top5``, ``lr``; of a motivated run also
        ``motivated_eval_*``, ``base_updates``, ``motivated_updates``, ``switches``, ``average_flops``, ``seconds``.
        A value that was not measured is missing or None.
        """
        return _rows(self.path / "summary.csv")

    @cached_property
    def updates(self) -> list[dict[str, Any]]:
        """Return the rows of ``updates.csv``: ``epoch``, ``update``, ``active``, ``loss``, ``streak``, ``lr``.

        Raises:
            RunError: the file is missing or empty.
        """
        rows = _rows(self.path / "updates.csv")
        if not rows:
            raise RunError(f"{self.path} has no updates.csv with a line per update")
        return rows

    @cached_property
    def motivated_updates(self) -> list[int]:
        """Return the number of motivated updates of each epoch, from epoch 0 on.

        Raises:
            RunError: the file is missing, empty or damaged, or lacks an epoch.
        """
        rows: dict[int, list[bool]] = {}
        for row in self.updates:
            epoch, active = row.get("epoch"), row.get("active")
            if not isinstance(epoch, int) or active not in ("base", "motivated"):
                raise RunError(f"{self.path}/updates.csv is damaged: a line does not say its epoch and model")
            rows.setdefault(epoch, []).append(active == "motivated")
        if sorted(rows) != list(range(len(rows))):
            raise RunError(f"{self.path}/updates.csv lacks epochs: it has {len(rows)} up to epoch {max(rows)}")
        return [sum(rows[epoch]) for epoch in range(len(rows))]

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """Return the contents of ``result.json``; None if the run has not ended."""
        path = self.path / RESULT_FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        if not isinstance(found, dict) or "completed" not in found:
            raise RunError(f"{path} is damaged: it does not say whether the run was completed")
        return found

    @property
    def completed(self) -> bool:
        """Return True if all epochs were trained, as far as the folder tells."""
        return bool(self.result and self.result["completed"])


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
    if not isinstance(options, dict) or not isinstance(options.get("model"), str):
        raise RunError(f"{file} does not name a model")
    return RunFolder(folder, options)


def find_runs(paths: list[str | Path]) -> list[RunFolder]:
    """Open runs; a folder that is not a run's stands for all runs below it, sorted by name.

    Raises:
        RunError: a folder is missing, or has no run in it.
    """
    found: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        folders = [path]
        if path.is_dir() and not (path / "args.yaml").is_file():
            folders = sorted(file.parent for file in path.rglob("args.yaml"))
            if not folders:
                raise RunError(f"{path} is no run and has none in it (a run has an args.yaml)")
        for folder in folders:
            found.setdefault(folder.resolve(), read_run(folder))
    return list(found.values())


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        with open(path, newline="") as file:
            return [{name: _number(text) for name, text in row.items() if name} for row in csv.DictReader(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def _number(text: str | None) -> Any:
    """
    >>> _number("3"), _number("0.5"), _number("base"), _number("")
    (3, 0.5, 'base', None)
    """
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
