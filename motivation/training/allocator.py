"""Memory that an update frees is kept for the next one, on a CPU.

glibc gives large blocks back to the system when they are freed and gets them again a page at a time: some 45,000 page
faults in each update of a ResNet-50, a sixth of its time (docs/performance.md). The process never becomes smaller than
it once was; its peak is the same.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""
NEVER = -1
LARGEST_KEPT = (2**30, 2**25)
"""Bytes of the largest blocks that are kept; larger ones go back to the system as before. Older versions of glibc take
the second only."""

USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Environment variables by which a user has chosen already."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Set it for this process and those that it forks; returns whether it was done.

    It is not done where the user has chosen already, and where the C library is not glibc.
    """
    if any(name in environment for name in USERS_OWN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, largest) for largest in LARGEST_KEPT)
    return kept and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
