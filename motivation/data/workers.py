"""Data workers: they get random states at their start, end with their parent, and are missed when they die."""

from __future__ import annotations

import ctypes
import multiprocessing.connection
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from motivation.method.random_states import RngState, set_rng_state

PR_SET_PDEATHSIG = 1
"""Option of Linux' ``prctl``: the signal that a process gets when its parent dies."""


def dead_worker_text(error: BaseException | None) -> str | None:
    """Return what to say of a data worker that has died, if that is the error or has led to it; None otherwise.

    Torch raises it in a signal handler, so at any line of the program: others may have taken it for an error of theirs.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
            return f"{' '.join(str(error).split())} Was the machine out of memory? Try fewer --workers"
        error = error.__cause__ or error.__context__
    return None


def raise_if_worker_died(workers: Sequence[Any], timeout_s: float = 5.0) -> None:
    """Raise torch's error of a dead worker where the end of one was noticed first by its closed pipe.

    The process may still be about to end; torch's own signal handler may raise the same while it is waited for.
    """
    ended = multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout_s) if workers else []
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(timeout_s)  # its pipes are closed a moment before it can tell its exit code
            raise RuntimeError(f"DataLoader worker (pid {worker.pid}) ended with exit code {worker.exitcode}.")


class WorkerInit:
    """Initializes a worker: it ends with its parent, and gets the random states that are stored for it, if any.

    Args:
        then: the loader's own ``worker_init_fn``, called before the states are restored.
    """

    def __init__(self, then: Any):
        self._then = then
        self.states: list[RngState | None] = []

    def __call__(self, worker: int) -> None:
        end_with_parent()
        if self._then is not None:
            self._then(worker)
        if worker < len(self.states) and (state := self.states[worker]) is not None:
            set_rng_state(state)


def end_with_parent() -> None:
    """Have this process killed when its parent dies, where the system can (Linux).

    A worker checks for its parent every five seconds only. Until then it keeps the sockets it inherited open, and
    other ranks do not notice that their peer is gone.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_workers(loader: Any) -> None:
    """End a loader's workers now; the garbage collector would wait up to five seconds for each."""
    while hasattr(loader, "loader"):
        loader = loader.loader
    for name in ("_iterator", "iterator"):  # torch's persistent workers; timm's MultiEpochsDataLoader
        iterator = getattr(loader, name, None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()  # an error's traceback may still hold a reference to it
        if iterator is not None:
            setattr(loader, name, None)
