"""Timing of calls in turns, and the words for where it was done."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of many calls."""

    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Milliseconds."""
        return 1000 * statistics.median(self.seconds)


def waiter(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done all its work."""
    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)  # else it is the current one that is waited for
    module = getattr(torch, device.type, None)
    return getattr(module, "synchronize", lambda: None) if device.type != "cpu" else lambda: None


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, wait: Callable[[], None] = lambda: None, warmup: int = 2
) -> dict[str, Timing]:
    """Time each call once a round, so that a machine that slows down slows all of them.

    Args:
        wait: called before the clock is read.
        warmup: rounds that do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            wait()
            since = time.perf_counter()
            call()
            wait()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - since)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def machine(device: torch.device) -> str:
    """Where a figure was measured, in a line."""
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        place = f"{_processor()}, {os.cpu_count()} cores, {threads} thread{'s' * (threads != 1)}"
    return f"{place}; Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    right = [all(not row[at][:1].isalpha() for row in cells) for at in range(len(columns))]
    rule = ["---:" if numeric else "---" for numeric in right]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *cells))
