"""Checkpoint files: written whole, read without running code, and found again.

timm's keys are ``epoch``, ``arch``, ``state_dict``, ``optimizer``, ``version``, ``args``, ``metric``, and where they
apply ``state_dict_ema``, ``task_state``, ``amp_scaler``. Ours is ``motivation`` (`motivation.training.state`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import re
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

from motivation.method.records import Role
from motivation.training.finite import nonfinite_names

_logger = logging.getLogger("train")

TIMM_VERSION = 2
"""Value of timm's key ``version``: from 2 on, ``epoch`` is the last epoch that was trained, not the next one."""
OUR_KEY = "motivation"
"""The program's own entry, see `motivation.training.state`."""
EXTENSION = ".pth.tar"
_RESUMABLE = re.compile(rf"(last|recovery-\d+-\d+|checkpoint-\d+){re.escape(EXTENSION)}")
LAST = f"last{EXTENSION}"
BEGUN_FILE = "begun.json"
"""Says which generation began in a folder with checkpoints of an earlier run; see `is_of_earlier_run`."""


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
    return [path for path in sorted(folder.glob(f"*{EXTENSION}")) if _RESUMABLE.fullmatch(path.name) and path.is_file()]


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
        return Age(generation_of(contents), int(contents.get("epoch", -1)), update, path.name == LAST)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its position or its epoch is none") from error


def generation_of(contents: Mapping[str, Any]) -> int:
    """Return the generation of a checkpoint, see `Age`."""
    return int((contents.get(OUR_KEY) or {}).get("generation", 0))


def mark_begun(folder: Path, generation: int | None) -> None:
    """Note that a run of this generation has begun in a folder with older checkpoints; None if it goes on with one."""
    (folder / BEGUN_FILE).unlink(missing_ok=True)
    if generation is not None:
        (folder / BEGUN_FILE).write_text(json.dumps({"generation": generation}))


def is_of_earlier_run(contents: Mapping[str, Any], folder: Path) -> bool:
    """Return True if another run has begun in the folder of a checkpoint since that was written."""
    try:
        begun = int(json.loads((folder / BEGUN_FILE).read_text())["generation"])
    except (OSError, ValueError, LookupError, TypeError):  # none has, or its mark was cut short
        return False
    return generation_of(contents) < begun


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


def refuse_try(contents: Mapping[str, Any]) -> None:
    """Refuse the checkpoint of a try that was killed.

    Raises:
        ValueError: it is one.
    """
    if getattr(contents.get("args"), "limit_batches", None):
        raise ValueError("it was left by a run with --limit-batches that was killed; delete it")


def refuse_nonfinite(contents: Mapping[str, Any], name: str) -> None:
    """Refuse a checkpoint from which no training could go on.

    Raises:
        ValueError: weights, EMA or optimizer state of one of the models are not finite.
    """
    trained = {key: value for key, value in contents.items() if key != OUR_KEY}
    with suppress(AttributeError, LookupError, TypeError):  # a plain run, another program's file, or a damaged one
        trained["motivated"] = contents[OUR_KEY]["pair"]["motivated"]
    try:
        names = nonfinite_names(trained)
    except RuntimeError as error:  # sparse tensors, those of the meta device, or of 8 bits
        raise ValueError(f"{name} has tensors that cannot be trained: {str(error).splitlines()[0][:200]}") from error
    if names:
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
        older = f"; {path} is as it was before" if path.exists() else ""
        raise CheckpointError(f"{path} cannot be written: {_reason(error)}{older}") from error
    sync_folder(path.parent)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.__context__ or error).splitlines()[0]


def remove_scratch(folder: Path) -> None:
    """Remove the half-written files that a crash has left; other folders below may be of runs that write now."""
    for place in (folder, folder / Role.MOTIVATED.value):
        for scratch in place.glob(".*.tmp"):
            scratch.unlink()


def sync_folder(folder: Path) -> None:
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
