"""Signals: the first one makes a run save and stop after the current update, the same again ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if (number := getattr(signal, name, None)) is not None
)
"""Ctrl-C, the end of a terminal, and the signals that schedulers send before they end or preempt a job."""


def exit_code(number: int) -> int:
    """Return the exit code of a run that a signal has stopped, by the convention of shells: 128 + signal number.

    >>> exit_code(2), exit_code(15)
    (130, 143)
    """
    return 128 + number


class Interrupt:
    """Catch signals: the first of `SIGNALS` sets `requested` to its number; it again, or Ctrl-C, ends the process.

    Under torchrun the same signal again is ignored: when a scheduler sends one to all processes, torchrun passes
    its own on. A SIGHUP that the program was started to ignore, as by nohup, stays ignored.

    Attributes:
        requested: number of the signal that has come, 0 before.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._received) for number in SIGNALS if not _nohup(number)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested == number and "TORCHELASTIC_RUN_ID" in os.environ:
            return  # it is torchrun's; a process that does not end is killed by torchrun later
        if self.requested and number not in (self.requested, signal.SIGINT):
            return  # a scheduler's SIGTERM after its SIGUSR1: the run saves already, and SIGKILL follows in time
        if self.requested:
            _say(f"{name} again: stopped at once.")
            sys.stdout.flush()
            os._exit(exit_code(number))
        self.requested = number
        _say(f"{name}: the run saves and stops after this update (once more to stop at once).")


def _nohup(number: int) -> bool:
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def _say(line: str) -> None:
    """Write to standard error without Python's streams, which raise if the signal came while they were writing."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


class WithoutInterrupts:
    """Initialise a data worker so that it leaves signals to the main process; Ctrl-C reaches the whole process group.

    A second SIGTERM ends the worker: torch and Python send one to a worker that does not end by itself.

    Args:
        then: called next, with the worker's number; None for nothing.
    """

    def __init__(self, then: Callable[[int], None] | None):
        self._then = then

    def __call__(self, worker: int) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)
        if self._then is not None:
            self._then(worker)

    @staticmethod
    def _terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
