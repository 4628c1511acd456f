"""Checkpoints in timm's format, with a key of our own for what timm does not save.

timm's keys: ``epoch``, ``arch``, ``state_dict``, ``optimizer``, ``version``, ``args``, ``metric``, and where they
apply ``state_dict_ema``, ``task_state``, ``amp_scaler``. Ours: ``motivation``.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from motivation.method.records import Role
from motivation.training.learner import Learner

_logger = logging.getLogger("train")

OUR_KEY = "motivation"
FORMAT = 2
"""Of what stands under our key."""
_EXTENSION = ".pth.tar"
LAST = f"last{_EXTENSION}"
_Entry = tuple[str, float | None]


class CheckpointError(RuntimeError):
    """A checkpoint, or another file of the run, cannot be written; the message is for the user."""


@contextmanager
def blaming_file(path: Path) -> Iterator[None]:
    """Turn what the file system raises inside (a full disk, a folder that is gone) into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be written: {_why(error)}") from error


def timm_contents(learner: Learner, args: Namespace, arch: str, epoch: int, metric: float | None) -> dict[str, Any]:
    """What timm writes of a model in training, under timm's keys."""
    contents: dict[str, Any] = {
        "epoch": epoch,
        "arch": arch,
        "optimizer": learner.optimizer.state_dict(),
        "version": 2,  # timm: from version 2 on the epoch is the one that was trained, not the next
        "args": args,
    }
    if learner.rule.scaler is not None:
        contents["amp_scaler"] = learner.rule.scaler.state_dict()
    contents.update(learner.task.get_checkpoint_state())
    contents.update(learner.task.get_checkpoint_state(ema=True))
    if metric is not None:
        contents["metric"] = metric
    return contents


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a training checkpoint to the CPU; only tensors and plain values are accepted.

    Raises:
        ValueError: there is no such file, it is no checkpoint, or it carries code.
    """
    if not os.path.isfile(path):
        raise ValueError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is no checkpoint, or one that carries code, which is never run") from error
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        why = " ".join(str(error).split()).partition(". ")[0]  # torch goes on with advice
        raise ValueError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {why})") from error
    if not isinstance(contents, dict):
        raise ValueError(f"{path} holds a {type(contents).__name__}, not a checkpoint")
    return contents


def checkpoints_in(folder: Path) -> list[Path]:
    """The files of a run's folder that can be resumed, if they are whole; newest first."""
    kinds = (LAST, "recovery-", "checkpoint-")
    files = [path for path in folder.glob(f"*{_EXTENSION}") if path.name.startswith(kinds)]
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name == LAST), reverse=True)


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a run's folder that can be read; of each newer one that is damaged, a warning."""
    for path in checkpoints_in(folder):
        try:
            read_checkpoint(path)
        except ValueError as error:
            _logger.warning(f"Passed over: {error}")
        else:
            return path
    return None


def write_whole(contents: dict[str, Any], path: Path) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash."""
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
        older = f"; {path} is as it was before" if path.exists() else ""
        raise CheckpointError(f"{path} cannot be written: {_why(error)}{older}") from error
    _sync_folder(path.parent)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.__context__ or error).splitlines()[0]


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where the file system has no links; never half of it."""
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
    """Remove what a crash has left half written; in folders below, there may be another run that writes just now."""
    for place in (folder, folder / Role.MOTIVATED.value):
        for scratch in place.glob(".*.tmp"):
            scratch.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Saver:
    """Keeps ``last``, the best, and the ``history`` best checkpoints of one model in a folder, named as by timm.

    Args:
        folder: exists already.
        contents: ``(epoch, metric, update) -> contents`` of a checkpoint; ``update`` is None after a whole epoch.
        decreasing: whether a lower metric is better.
        history: how many numbered checkpoints to keep, at least 1.
    """

    def __init__(
        self,
        folder: Path,
        contents: Callable[[int, float | None, int | None], dict[str, Any]],
        decreasing: bool = False,
        history: int = 10,
    ):
        self.folder, self.decreasing, self.history = Path(folder), decreasing, max(1, history)
        self.best_metric: float | None = None
        self.best_epoch: int | None = None
        self._contents = contents
        self._kept: list[_Entry] = []
        self._dropped: list[str] = []
        self._recoveries: list[Path] = []

    def save(self, epoch: int, metric: float | None) -> None:
        """Write the state after ``epoch`` as ``last`` and, if it is among the best, as ``checkpoint-<epoch>``."""
        self.write(epoch, metric)
        self.follow_last(epoch)

    def write(self, epoch: int, metric: float | None) -> None:
        """The first half of `save`: write ``last``; nothing is removed yet, in case that another file goes with it."""
        name = f"checkpoint-{epoch}{_EXTENSION}"
        kept = self._ranked((name, metric), [entry for entry in self._kept if entry[0] != name])
        self._kept, self._dropped = kept[: self.history], [old for old, _ in kept[self.history :]]
        is_best = metric is not None and self._better(metric, self.best_metric)
        if is_best:
            self.best_metric, self.best_epoch = metric, epoch

        write_whole(self._contents(epoch, metric, None), self.folder / LAST)

    def follow_last(self, epoch: int) -> None:
        """The second half: give the newest file its other names, and remove what has dropped out of the best."""
        last, name = self.folder / LAST, f"checkpoint-{epoch}{_EXTENSION}"
        with blaming_file(self.folder):
            if name in [kept for kept, _ in self._kept]:
                link_or_copy(last, self.folder / name)
            if self.best_epoch == epoch:
                link_or_copy(last, self.folder / f"model_best{_EXTENSION}")
            for old in self._dropped:
                (self.folder / old).unlink(missing_ok=True)
            self._dropped = []
            self._drop_old_recoveries()  # a crash may have left one too many
            _sync_folder(self.folder)
        listing = ", ".join(
            file.removesuffix(_EXTENSION) + ("" if value is None else f" ({value:.6g})") for file, value in self._kept
        )
        _logger.info(f"Checkpoints in {self.folder}, best first: {listing}")

    def save_recovery(self, epoch: int, update: int) -> None:
        """Write the state in the middle of an epoch; the two newest such files are kept."""
        path = self.folder / f"recovery-{epoch}-{update}{_EXTENSION}"
        write_whole(self._contents(epoch, None, update), path)
        self._recoveries = [*(p for p in self._recoveries if p != path), path]
        self._drop_old_recoveries()

    def _drop_old_recoveries(self) -> None:
        while len(self._recoveries) > 2:
            self._recoveries.pop(0).unlink(missing_ok=True)

    def _last_is_of(self, epoch: int) -> bool:
        try:
            return read_checkpoint(self.folder / LAST).get("epoch") == epoch
        except ValueError:
            return False

    def _better(self, metric: float, than: float | None) -> bool:
        """Anything is better than nothing, and than a metric that is not a number."""
        if than is None or math.isnan(than):
            return than is None or not math.isnan(metric)
        return metric < than if self.decreasing else metric > than

    def _ranked(self, new: _Entry, kept: list[_Entry]) -> list[_Entry]:
        """Best first, ties in order of age; those without a metric behind them, newest first."""
        ranked = [entry for entry in [*kept, new] if entry[1] is not None]
        unranked = [entry for entry in [new, *kept] if entry[1] is None]
        sign = 1.0 if self.decreasing else -1.0
        return sorted(ranked, key=lambda e: math.inf if math.isnan(e[1] or 0.0) else sign * (e[1] or 0.0)) + unranked

    def state_dict(self) -> dict[str, Any]:
        """Best metric and history."""
        return {
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "kept": list(self._kept),
            "dropped": list(self._dropped),
        }

    def load_state_dict(self, state: dict[str, Any], epoch: int | None = None) -> None:
        """The inverse of `state_dict`; files that are gone, or lie in another folder, are forgotten.

        Args:
            epoch: the run goes on with the base's ``last``, written after this epoch: what a crash has left undone
                after writing it is done now, unless this folder's ``last`` is of a later epoch already. None if it goes
                on with another file.
        """
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        self._kept = [(name, metric) for name, metric in state["kept"]]
        there = self.folder.glob(f"recovery-*{_EXTENSION}")
        self._recoveries = sorted(there, key=lambda path: path.stat().st_mtime_ns)
        if epoch is not None and self._last_is_of(epoch):
            self._dropped = list(state["dropped"])
            self.follow_last(epoch)
        self._kept = [entry for entry in self._kept if (self.folder / entry[0]).exists()]
