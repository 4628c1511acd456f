"""A lock on a folder, so that only one run at a time writes there.

The package filelock is not used: it leaves a file in the folder, and where a file system has no locks it falls back on
files that a killed run leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Lock a folder until `release` or the end of the process, even if that is killed.

    On a file system without locks nothing is locked and nothing refused.

    Args:
        folder: exists already.

    Raises:
        ValueError: another process, or another run in this process, holds the lock.
    """

    def __init__(self, folder: Path):
        self._descriptor: int | None = None
        if fcntl is None:
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(
                f"another run writes to {folder} now; wait for it, or give this one another --experiment"
            ) from None
        except OSError:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Unlock the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Release the locks that a forked process has inherited.

    Data workers outlive a killed run for some seconds, and must not keep its lock.
    """
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
