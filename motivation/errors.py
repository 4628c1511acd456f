"""The error that is the user's to mend, and the exit codes that all commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
"""Something failed on the way; the input cannot be used; Ctrl-C (128 + signal number, as shells have it)."""


class InputError(ValueError):
    """Input that cannot be used. Commands print its ``faults`` without a traceback; a bug of ours must not be one.

    Args:
        faults: one line each, when printed.
    """

    def __init__(self, *faults: object):
        self.faults: list[Any] = list(faults)
        super().__init__("; ".join(map(str, faults)))


def printable(text: object) -> str:
    """Return a text with its control characters escaped: a name out of a file must not steer the terminal.

    >>> printable("a\\x1b[31m\\r"), printable("a line\\n\\tand é")
    ('a\\\\x1b[31m\\\\r', 'a line\\n\\tand é')
    """
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in str(text))


def print_text(text: object = "", file: TextIO | None = None, end: str = "\n") -> None:
    """Print a text that may hold words out of files, `printable`, and at once; by default on standard output."""
    print(printable(text), file=file, end=end, flush=True)


def print_errors(*faults: object) -> None:
    """Print a line ``error: ...`` for each fault on standard error."""
    with suppress(OSError):  # nobody reads any more; the exit code says it
        for fault in faults:
            print_text(f"error: {fault}", sys.stderr)


@contextmanager
def surviving_output() -> Iterator[None]:
    """Go on where standard output cannot be written: its disk is full, its reader or terminal is gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an `OSError` into an `InputError` that names the file or folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}{hint}") from error
