"""Signals: the first asks a run to save and stop after the present update, a second one stops it at once."""

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
    number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
)
"""Ctrl-C, and what schedulers send before they end or preempt a job."""


def exit_code(number: int) -> int:
    """Of a run that a signal has stopped, as shells have it.

    >>> exit_code(2), exit_code(15)
    (130, 143)
    """
    return 128 + number


class Interrupt:
    """While entered, the first of `SIGNALS` sets `requested` to its number; a second one ends the process at once.

    Under torchrun a second SIGTERM does not: torchrun sends one too when the whole job is told to end.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested and number == signal.SIGTERM and "TORCHELASTIC_RUN_ID" in os.environ:
            return  # torchrun's own, after a scheduler's to every process; what does not end, torchrun kills
        if self.requested:
            _say(f"{name} again: stopped at once.")
            sys.stdout.flush()
            os._exit(exit_code(number))
        self.requested = number
        _say(f"{name}: the run saves and stops after this update (once more to stop at once).")


def _say(line: str) -> None:
    """Past Python's streams and logging: the signal may have come while they were writing, and then they raise."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


class WithoutInterrupts:
    """A data worker's start that leaves signals to the main process, also those that reach the whole process group.

    Only a second SIGTERM ends it: torch and Python send one to a worker that they are tired of waiting for.

    Args:
        then: what the worker does at its start besides; called with the worker's number.
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
