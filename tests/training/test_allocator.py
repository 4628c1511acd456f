"""On a CPU freed memory is kept, unless the user has chosen otherwise."""

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from motivation.training.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, USER_SETTINGS, keep_freed_memory

FAULTS = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # no huge pages, of which there are few
sys.path.insert(0, {root!r})
from motivation.training.allocator import keep_freed_memory
if {keeps}:
    assert keep_freed_memory({{}})

def work():
    for _ in range(10):
        blocks = [b"x" * 2**22 for _ in range(12)]  # 48 MB, freed each time

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keeps):
    program = FAULTS.format(root=str(Path(__file__).parents[2]), keeps=keeps)
    environment = {"PATH": "/usr/bin"}
    return int(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        ).stdout
    )


@pytest.mark.skipif(not keep_freed_memory({}), reason="needs glibc")
def test_memory_that_was_freed_is_not_fetched_from_the_system_again():
    pages = 10 * 48 * 2**20 // resource.getpagesize()
    assert faults(keeps=False) > pages / 2
    assert faults(keeps=True) < pages / 50


def test_an_older_glibc_keeps_what_it_can(monkeypatch):
    """The manual has 32 MB as the highest threshold; not every version takes more."""
    done = []

    class Older:
        def __init__(self, _):
            pass

        @staticmethod
        def mallopt(option, value):
            done.append((option, value))
            return option != M_MMAP_THRESHOLD or value <= 2**25

    monkeypatch.setattr(ctypes, "CDLL", Older)
    assert keep_freed_memory({})
    assert done[1:] == [(M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, -1)]


@pytest.mark.parametrize("name", USER_SETTINGS)
def test_a_choice_of_the_users_own_stands(name):
    assert not keep_freed_memory({name: "1"})
