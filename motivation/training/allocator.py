"""Keep the memory that an update frees for the next one, on a CPU.

glibc returns large blocks to the system when they are freed and fetches them again a page at a time: some 45,000 page
faults in each update of a ResNet-50, a sixth of its time (docs/performance.md). Kept, the process never shrinks; its
peak is the same.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of ``mallopt`` (``malloc.h``)."""
NEVER = -1
LARGEST_KEPT = (2**30, 2**25)
"""Bytes of the largest blocks to keep; larger ones are returned as before. Older versions of glibc accept the second
only."""

USER_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Environment variables by which a user chooses malloc's behaviour."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Keep freed memory in this process and those that it forks; return True if that was set.

    It is not set where the user has chosen (`USER_SETTINGS`), and where the C library is not glibc.
    """
    if any(name in environment for name in USER_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, largest) for largest in LARGEST_KEPT)
    return kept and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
