"""Ctrl-C: the first asks a run to stop after the present update, the second stops it at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_logger = logging.getLogger("train")


class Interrupt:
    """While entered, the first SIGINT sets `requested`; a second one raises `KeyboardInterrupt` as usual.

    Args:
        active: without it SIGINT keeps its usual meaning; so it must be where other ranks would not stop likewise.
    """

    def __init__(self, active: bool = True):
        self.requested = False
        self._active = active and threading.current_thread() is threading.main_thread()
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if self._active:
            self._previous = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
        _logger.warning("Interrupted: the run stops after this update (once more to stop at once).")


class WithoutInterrupts:
    """A data worker's start that leaves Ctrl-C to the main process.

    Args:
        then: what the worker does at its start besides; called with the worker's number.
    """

    def __init__(self, then: Callable[[int], None] | None):
        self._then = then

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._then is not None:
            self._then(worker)
