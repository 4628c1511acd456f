"""Read the files of a run's folder, each checked against a schema: it may be damaged, or a stranger's."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from motivation.errors import InputError
from motivation.method.records import Role
from motivation.options.config_files import read_text, shown
from motivation.options.flags import FLAGS

_LARGEST_JSON = 2**24
"""Characters of a JSON file; the names of 20,000 classes are about 500,000."""

_MODEL_OPTIONS = frozenset((
    "model", "model_kwargs", "num_classes", "in_chans", "img_size", "input_size", "val_input_size", "drop", "drop_path",
    "drop_block", "bn_momentum", "bn_eps", "head_init_scale", "head_init_bias", "grad_checkpointing", "torchscript",
))  # fmt: skip
_RUN_OPTIONS = frozenset((
    "dataset", "data", "data_dir", "val_split", "folds", "fold", "seed", "epochs", "batch_size", "grad_accum_steps",
    "eval_metric", "kd_model_name",
))  # fmt: skip
_OPTIONS = {
    name: flag if flag.motivated or flag.of_weights else replace(flag, choices=None)
    for name, flag in FLAGS.items()
    if flag.motivated or flag.of_weights or name in _MODEL_OPTIONS | _RUN_OPTIONS
}
"""The options that tools read, and whose values are checked. Others may be of another type in other versions of timm;
these may have other choices."""


def _is_number(value: Any) -> bool:
    """Return True for a number that float32 could hold, NaN and infinity among them: the loss of a run may be so."""
    return type(value) in (int, float) and not 1e40 < abs(value) < math.inf


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**9


def _is_cost(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_name(value: Any) -> bool:
    return type(value) is str and len(value) < 200 and value.isprintable()


Schema = Mapping[str, "Callable[[Any], bool] | Schema"]
_ROLES = tuple(role.value for role in Role)
METRICS_SCHEMA: Schema = dict.fromkeys(("loss", "top1", "top5"), _is_number)
_EPOCH: Schema = {"epoch": _is_count, "base": METRICS_SCHEMA, "motivated": METRICS_SCHEMA}
RESULT_SCHEMA: Schema = {
    "completed": _is_flag,
    "last": _EPOCH,
    "best": _EPOCH,
    "best_motivated": _EPOCH,
    "flops": dict.fromkeys(_ROLES, _is_cost),
    "convention": _is_name,
    "updates": dict.fromkeys(_ROLES, _is_count),
    "share": _is_share,
    "expected_share": _is_share,
    "average_flops": _is_cost,
}
"""The entries of ``result.json`` that tools read. Each may be missing or null, but for ``completed``."""

SUMMARY_SCHEMA: Schema = {
    "epoch": _is_count,
    "train_loss": _is_number,
    **{f"{prefix}{name}": _is_number for prefix in ("eval_", "motivated_eval_") for name in METRICS_SCHEMA},
    "base_updates": _is_count,
    "motivated_updates": _is_count,
    "average_flops": _is_number,
}
UPDATE_SCHEMA: Schema = {"epoch": _is_count, "update": _is_count, "active": _is_name, "loss": _is_number}
"""The columns of ``summary.csv`` and ``updates.csv`` that tools read."""


class RunError(InputError):
    """A folder that is not a run's, or lacks what is asked for."""


def refuse_run_file(path: Path) -> None:
    """Refuse to write over a file that a run has written.

    Raises:
        RunError: it is one.
    """
    names = ("args.yaml", "result.json", "summary.csv", "updates.csv", "label_names.json")
    is_run = (path.parent / "args.yaml").is_file() or (path.parent.parent / "args.yaml").is_file()
    if is_run and (path.name in names or path.name.endswith(".pth.tar")):
        raise RunError(f"{path} is a file of the run itself; give another name")


def schema_fault(value: Any, schema: Schema, place: str = "") -> str | None:
    """Return what does not follow a schema, if anything; a value may be missing or None, and others may be there."""
    if not isinstance(value, dict):
        return f"{place.rstrip('.') or 'it'} is {shown(value)}"
    for name, kind in schema.items():
        found = value.get(name)
        if found is None:
            continue
        if isinstance(kind, Mapping):
            if fault := schema_fault(found, kind, f"{place}{name}."):
                return fault
        elif not kind(found):
            return f"{place}{name} is {shown(found)}"
    return None


def checked_options(options: dict[Any, Any], file: Path) -> dict[str, Any]:
    """Return the options in a file as the parser takes them.

    Raises:
        RunError: one that tools read is not of its flag's type, or one has control characters.
    """
    return dict(_checked(options, file))


def _checked(options: dict[Any, Any], file: Path) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if not isinstance(name, str):
            raise RunError(f"{file} is damaged: {shown(name)} is no option")
        flag = _OPTIONS.get(name)
        try:
            repr(value)  # thousands of digits: nothing can print or compare them
            taken = flag.from_file(value) if flag else value
        except ValueError as error:
            raise RunError(f"{file} is damaged: {name} {error}") from error
        if name in FLAGS and FLAGS[name].type is str:
            barred = _CONTROL if FLAGS[name].measured else _CONTROL_IN_PATH
            if strange := [one for one in _texts(taken) if barred.search(one)]:
                raise RunError(f"{file} is damaged: {name} has control characters: {shown(strange[0])}")
        yield name, taken


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_PATH = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
"""Paths may have bytes that are no UTF-8, which Python has as U+DC80 to U+DCFF."""


def _texts(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file.

    Raises:
        RunError: it cannot be read, is damaged or far too large.
    """
    try:
        return json.loads(read_text(path, _LARGEST_JSON))
    except InputError as error:
        raise RunError(*error.faults) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def iter_rows(path: Path, schema: Schema, required: Sequence[str], fault: str) -> Iterator[dict[str, Any]]:
    """Read a CSV file row by row; a last line that is not yet written to its end is left out.

    Args:
        path: it may be missing.
        schema: of a row.
        required: columns that no row may leave empty.
        fault: what to say of a row that is not so.
    """
    if not path.is_file():
        return
    try:
        with open(path, newline="") as file:
            for number, line in enumerate(csv.DictReader(line for line in file if line.endswith("\n")), 2):
                row = {name: _number(text) for name, text in line.items() if name}
                missing = [name for name in required if row.get(name) is None]
                if why := f"without {missing[0]}" if missing else schema_fault(row, schema):
                    raise RunError(f"{path} is damaged: line {number} {fault} ({why})")
                yield row
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
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
