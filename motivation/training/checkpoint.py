"""Checkpoint files: written whole, named as timm names them, and found again.

timm's keys are ``epoch``, ``arch``, ``state_dict``, ``optimizer``, ``version``, ``args``, ``metric``, and where they
apply ``state_dict_ema``, ``task_state``, ``amp_scaler``. Ours is ``motivation`` (`motivation.training.state`).
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import clean_state_dict

from motivation.data.loaders import is_of_dead_worker
from motivation.method.records import Role
from motivation.training.finite import nonfinite_names
from motivation.training.records import rank_key

_logger = logging.getLogger("train")

TIMM_VERSION = 2
"""Value of timm's key ``version``: from 2 on, ``epoch`` is the last epoch that was trained, not the next one."""
OUR_KEY = "motivation"
"""The program's own entry, see `motivation.training.state`."""
_EXTENSION = ".pth.tar"
_NUMBERED = re.compile(rf"checkpoint-\d+{re.escape(_EXTENSION)}")
_RESUMABLE = re.compile(rf"(last|recovery-\d+-\d+|checkpoint-\d+){re.escape(_EXTENSION)}")
LAST = f"last{_EXTENSION}"
BEST = f"model_best{_EXTENSION}"
Entry = tuple[str, float | None]
"""Name and metric of a file."""


class CheckpointError(RuntimeError):
    """A checkpoint, or another file of the run, cannot be written."""


@contextmanager
def blaming_file(path: Path) -> Iterator[None]:
    """Turn errors of the file system (a full disk, a missing folder) into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be written: {_reason(error)}") from error


_scalar, _array = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDSU"},
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""Classes and functions that a file may name: options, NumPy's numbers and arrays (as NumPy 1 and 2 call them)."""


def read_checkpoint(path: str | Path, mmap: bool = False) -> dict[str, Any]:
    """Load a training checkpoint to the CPU; only tensors, plain values, and NumPy's numbers and arrays are accepted.

    NumPy's numbers become Python's.

    Args:
        mmap: leave the tensors in the file until they are used; then its checksums are not looked at.

    Raises:
        ValueError: there is no such file, it is no checkpoint, it is damaged, or it carries code.
    """
    if not os.path.isfile(path):
        raise ValueError(f"no checkpoint at {path}")
    try:
        is_archive = zipfile.is_zipfile(path)  # files of torch before 1.6 have no checksums
        if is_archive and not mmap and (damaged := _first_damaged(path)):
            raise ValueError(f"its part {damaged} has another checksum")
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        which = f" (it names {named[1]})" if named else ""
        raise ValueError(f"{path} is no checkpoint, or one that carries code, which is never run{which}") from error
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        why = " ".join(str(error).split()).partition(". ")[0]  # torch goes on with advice
        raise ValueError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {why})") from error
    if not isinstance(contents, dict):
        raise ValueError(f"{path} holds a {type(contents).__name__}, not a checkpoint")
    return _without_numpy_numbers(contents)


def _first_damaged(path: str | Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _without_numpy_numbers(value: Any) -> Any:
    """Return nested values with NumPy's numbers as Python's, which is what is checked and compared elsewhere."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy_numbers, value))
    if isinstance(value, argparse.Namespace):
        return argparse.Namespace(**_without_numpy_numbers(vars(value)))
    if isinstance(value, dict):  # in place: an OrderedDict of weights has attributes
        for name, item in value.items():
            value[name] = _without_numpy_numbers(item)
    return value


def weights_in(contents: dict[str, Any], ema: bool = False) -> tuple[dict[str, Any], Any]:
    """Return the weights in a checkpoint of any version of timm, and the state of the task.

    Args:
        contents: of the file.
        ema: take the EMA of the weights if there is one.
    """
    keys = [("state_dict", "task_state"), ("model", "")]
    if ema:
        keys = [("state_dict_ema", "task_state_ema"), ("model_ema", ""), *keys]
    for weights, task_state in keys:
        if contents.get(weights) is not None:
            return clean_state_dict(contents[weights]), contents.get(task_state)
    return clean_state_dict(contents), None


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a run's folder that can be resumed if they are whole."""
    return [path for path in sorted(folder.glob(f"*{_EXTENSION}")) if _RESUMABLE.fullmatch(path.name)]


@dataclass(frozen=True, order=True)
class Age:
    """The place of a checkpoint among those of a run; a later one is greater. Clocks say nothing: folders are copied.

    Attributes:
        generation: grows whenever the run goes back to an older file or begins again; 0 in files that have none.
        epoch, update: after which it was written; an epoch's end is behind its last update.
        is_last: True for the file ``last``, which may be the same as another.
    """

    generation: int
    epoch: int
    update: float
    is_last: bool


def age_of(path: Path) -> Age:
    """Return the age of a checkpoint; its tensors are not read.

    Raises:
        ValueError: it cannot be read, or says something that cannot be.
    """
    contents = read_checkpoint(path, mmap=True)
    try:
        entry = contents.get(OUR_KEY) or {}
        position = (entry.get("pair") or entry).get("position", (0, 0, 0, True))
        update = float("inf") if position[3] else int(position[1])
        return Age(int(entry.get("generation", 0)), int(contents.get("epoch", -1)), update, path.name == LAST)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its position or its epoch is none") from error


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the latest checkpoint of a run's folder from which training can go on, and its contents; warn of others
    that would be later."""
    ages: dict[Path, Age] = {}
    for path in checkpoints_in(folder):
        with _warning_of_unusable():
            ages[path] = age_of(path)
    for path in sorted(ages, key=ages.__getitem__, reverse=True):
        with _warning_of_unusable():
            contents = read_checkpoint(path)
            refuse_nonfinite(contents, str(path))
            return path, contents
    return None


def refuse_nonfinite(contents: Mapping[str, Any], name: str) -> None:
    """Refuse a checkpoint from which no training could go on.

    Raises:
        ValueError: weights, EMA or optimizer state of one of the models are not finite.
    """
    trained = {key: value for key, value in contents.items() if key != OUR_KEY}
    with suppress(AttributeError, LookupError, TypeError):  # a plain run, another program's file, or a damaged one
        trained["motivated"] = contents[OUR_KEY]["pair"]["motivated"]
    if names := nonfinite_names(trained):
        raise ValueError(f"{name} has numbers that are not finite, in {names[0]}")


@contextmanager
def _warning_of_unusable() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        _logger.warning(f"Passed over: {error}")


def next_generation(folder: Path) -> int:
    """Return the generation of a run that begins in a folder: later than all checkpoints that are there already."""
    return 1 + max((age.generation for age in _ages(folder).values()), default=-1)


def _ages(folder: Path) -> dict[Path, Age]:
    ages = {}
    for path in checkpoints_in(folder):
        with suppress(ValueError):
            ages[path] = age_of(path)
    return ages


def make_latest(path: Path) -> int:
    """Make a checkpoint the latest of its folder, so that what was written after it is passed over from now on.

    Returns:
        Its generation.
    """
    others = _ages(path.parent)
    own = others.pop(path, age_of(path))
    later = [other.name for other, age in others.items() if replace(age, is_last=own.is_last) > own]
    if not later:
        return own.generation
    contents = read_checkpoint(path)
    contents[OUR_KEY]["generation"] = generation = 1 + max(age.generation for age in others.values())
    write_whole(contents, path)
    _logger.warning(f"The run goes back to {path.name}; {', '.join(later)} are of later updates and no longer count.")
    return generation


def is_whole(path: Path) -> bool:
    """Return True if a checkpoint can be read."""
    try:
        read_checkpoint(path)
    except ValueError:
        return False
    return True


def trained_epoch(path: Path) -> int | None:
    """Return the epoch of a checkpoint; None if it cannot be read."""
    try:
        return read_checkpoint(path, mmap=True).get("epoch")
    except ValueError:
        return None


def write_whole(contents: dict[str, Any], path: Path) -> None:
    """Write a file so that a reader finds the old one or the whole new one, also after a crash."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with open(scratch, "wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        with suppress(OSError):
            scratch.unlink()
        if is_of_dead_worker(error):
            raise
        older = f"; {path} is as it was before" if path.exists() else ""
        raise CheckpointError(f"{path} cannot be written: {_reason(error)}{older}") from error
    _sync_folder(path.parent)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.__context__ or error).splitlines()[0]


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a whole copy if the file system has no links."""
    if target.exists() and target.samefile(source):
        return  # a rename over itself would leave both names
    scratch = target.with_name(f".{target.name}.tmp")
    scratch.unlink(missing_ok=True)
    try:
        os.link(source, scratch)
    except (OSError, NotImplementedError):
        shutil.copy2(source, scratch)
    os.replace(scratch, target)


def remove_scratch(folder: Path) -> None:
    """Remove the half-written files that a crash has left; other folders below may be of runs that write now."""
    for place in (folder, folder / Role.MOTIVATED.value):
        for scratch in place.glob(".*.tmp"):
            scratch.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the names of a folder written to the disk; a file system that cannot is warned of once."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _warn_of_unsynced(folder, error.strerror)


@cache
def _warn_of_unsynced(folder: Path, why: str) -> None:
    _logger.warning(
        f"The names of files in {folder} cannot be forced to the disk ({why}): after a power failure the newest "
        "checkpoint may be missing."
    )


def _place_in_name(path: Path) -> list[int]:
    """Return epoch and update of a recovery file.

    >>> _place_in_name(Path("recovery-3-10.pth.tar"))
    [3, 10]
    """
    return [int(number) for number in re.findall(r"-(\d+)", path.name)]


class Saver:
    """Write the checkpoint files of one model in a folder, named as timm names them.

    There are ``last``; ``checkpoint-<epoch>`` for each of the best epochs; ``model_best`` for the best of all; and up
    to two recovery files ``recovery-<epoch>-<update>``, written inside an epoch.

    Args:
        folder: exists already.
        header: entries that all files have.
        decreasing: True if a lower metric is better.
        history: number of ``checkpoint`` files to keep, at least 1.

    Attributes:
        best_metric, best_epoch: of ``model_best``; None before the first metric.
        kept: ``(file name, metric)`` of the ``checkpoint`` files, the best first.
    """

    def __init__(self, folder: Path, header: dict[str, Any], decreasing: bool = False, history: int = 10):
        self.folder, self.header = Path(folder), header
        self.decreasing, self.history = decreasing, history
        self.best_metric: float | None = None
        self.best_epoch: int | None = None
        self.kept: list[Entry] = []
        self._dropped: list[str] = []
        self._recoveries: list[Path] = []

    def rank_epoch(self, epoch: int, metric: float | None) -> None:
        """Decide which files stay, once ``epoch`` is saved; no file is touched yet."""
        name = f"checkpoint-{epoch}{_EXTENSION}"
        ranked = self._ranked((name, metric), [entry for entry in self.kept if entry[0] != name])
        self.kept, self._dropped = ranked[: self.history], [old for old, _ in ranked[self.history :]]
        is_better = metric is not None and (
            self.best_metric is None or rank_key(metric, self.decreasing) < rank_key(self.best_metric, self.decreasing)
        )
        if is_better:
            self.best_metric, self.best_epoch = metric, epoch

    def write_last(self, contents: dict[str, Any], epoch: int, metric: float | None) -> None:
        """Write ``last``."""
        entries = {**self.header, "epoch": epoch, **({} if metric is None else {"metric": metric})}
        write_whole({**entries, **contents}, self.folder / LAST)

    def update_links(self, epoch: int) -> None:
        """Give ``last``, which is of this epoch, its other names, and remove the files that do not stay."""
        last, name = self.folder / LAST, f"checkpoint-{epoch}{_EXTENSION}"
        with blaming_file(self.folder):
            if name in [kept for kept, _ in self.kept]:
                link_or_copy(last, self.folder / name)
            if self.best_epoch == epoch:
                link_or_copy(last, self.folder / BEST)
            for old in self._dropped:
                (self.folder / old).unlink(missing_ok=True)
            self._dropped = []
            self._drop_old_recoveries()  # a crash may have left one too many
            _sync_folder(self.folder)
        listing = ", ".join(
            file.removesuffix(_EXTENSION) + ("" if value is None else f" ({value:.6g})") for file, value in self.kept
        )
        _logger.info(f"Checkpoints in {self.folder}, best first: {listing}")

    def write_recovery(self, contents: dict[str, Any], epoch: int, update: int) -> None:
        """Write a recovery file after an update; the two newest are kept."""
        path = self.folder / f"recovery-{epoch}-{update}{_EXTENSION}"
        write_whole({**self.header, "epoch": epoch, **contents}, path)
        self._recoveries = [*(other for other in self._recoveries if other != path), path]
        self._drop_old_recoveries()

    def _drop_old_recoveries(self) -> None:
        while len(self._recoveries) > 2:
            self._recoveries.pop(0).unlink(missing_ok=True)

    def _ranked(self, new: Entry, kept: list[Entry]) -> list[Entry]:
        """Sort files: the best first, equal ones by age; behind them those without a metric, the newest first."""
        with_metric = [(metric, name) for name, metric in [*kept, new] if metric is not None]
        with_metric.sort(key=lambda entry: rank_key(entry[0], self.decreasing))
        without = [entry for entry in [new, *kept] if entry[1] is None]
        return [*((name, metric) for metric, name in with_metric), *without]

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric and the history."""
        return {
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "kept": list(self.kept),
            "dropped": list(self._dropped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; `reconcile` compares it with the folder."""
        names = [*(name for name, _ in state["kept"]), *state["dropped"]]
        if others := [name for name in names if not _NUMBERED.fullmatch(name)]:  # such a file would be removed
            raise ValueError(f"{others[0]!r} is no name of a checkpoint")
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        self.kept, self._dropped = [(name, metric) for name, metric in state["kept"]], list(state["dropped"])

    def reconcile(self, epoch: int | None) -> None:
        """Bring a loaded state and the folder together: forget files that are not there, finish what a crash cut short.

        Args:
            epoch: of ``last``, if the state was loaded from the file of that epoch: then its other names and the
                removal of old files may still be missing. None if the state is of another file.
        """
        there = self.folder.glob(f"recovery-*{_EXTENSION}")
        self._recoveries = sorted(there, key=_place_in_name)
        if epoch is not None:
            self.update_links(epoch)
        self._dropped = []
        self.kept = [entry for entry in self.kept if (self.folder / entry[0]).exists()]

    def rank_again(self, metrics: Mapping[int, float | None], best: int | None, resumed_from: Path) -> None:
        """Rank anew the epochs that a resumed run has behind it: it may have gone back, or be ranked by another metric.

        ``model_best`` becomes the file of the best of them. If there is no such file, the next epoch is the best.

        Args:
            metrics: of these epochs.
            best: the best of them; None if they have no metric.
            resumed_from: folder with the files of the same model in the run that is resumed.
        """
        kept, self.kept = dict(self.kept), []
        for epoch, metric in metrics.items():
            if (name := f"checkpoint-{epoch}{_EXTENSION}") in kept:
                self.kept = self._ranked((name, metric), self.kept)
        self.best_metric = self.best_epoch = None
        if best is None:
            return
        name = f"checkpoint-{best}{_EXTENSION}"
        numbered = [folder / name for folder in (self.folder, resumed_from)]
        others = [folder / BEST for folder in (self.folder, resumed_from)]
        found = [path for path in numbered if path.exists()] or [path for path in others if trained_epoch(path) == best]
        if found:
            with blaming_file(self.folder):
                link_or_copy(found[0], self.folder / BEST)
            self.best_metric, self.best_epoch = metrics[best], best
