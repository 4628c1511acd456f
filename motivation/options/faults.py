"""Name what is wrong with a user's options: a `Fault` is one line, a `StartupError` has all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from motivation.errors import InputError

LONGEST_REASON = 600
"""Characters of a library's error message that are shown; it may list every tensor of a model."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the options.

    Attributes:
        flag: the option to change, such as ``--lr``.
        text: the fault.
        value: the value that was given, where the line repeats it.

    >>> str(Fault("--epochs", "at least 1, not 0")), str(Fault("--opt", "unknown argument", value="sgd"))
    ('--epochs: at least 1, not 0', '--opt sgd: unknown argument')
    """

    flag: str
    text: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.flag} {self.value}".rstrip() + f": {self.text}"


class StartupError(InputError):
    """The options cannot be run; ``faults`` says why."""

    def __init__(self, faults: Iterable[Fault | str]):
        super().__init__(*faults)


def one_line(text: object) -> str:
    """Return a message of a library on one line, cut where it is very long.

    >>> one_line(ValueError("two\\n  lines"))
    'two lines'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + " ..."


@contextmanager
def blaming(flag: str, value: object = "", errors: type[Exception] = Exception) -> Iterator[None]:
    """Turn what a library raises for a user's value into a `StartupError` that names the flag.

    Only the one call that gets the value belongs inside: an error of our own code is a bug and must keep its traceback.
    What a line of ours raises inside, because the library calls us back, flies too, unless it is a `ValueError`.

    Args:
        flag: the option to change.
        value: the value that was given.
        errors: ValueError where the call is one of our own functions that checks a user's value.
    """
    try:
        yield
    except StartupError:
        raise
    except errors as error:
        if not isinstance(error, ValueError) and _raised_by_us(error):
            raise
        is_plain = type(error) is ValueError or isinstance(error, InputError) or _raised_by_us(error)
        kind = "" if is_plain else f"{type(error).__name__}: "
        raise StartupError([Fault(flag, kind + one_line(error), str(value))]) from error


@contextmanager
def collecting(faults: list[Fault]) -> Iterator[None]:
    """Add the faults of a `StartupError` to a list, so that the next check can be made too."""
    try:
        yield
    except StartupError as error:
        faults += error.faults


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(OUR_PACKAGES)


OUR_PACKAGES = tuple(str(Path(__file__).resolve().parents[2] / name) + os.sep for name in ("motivation", "weight_maps"))
