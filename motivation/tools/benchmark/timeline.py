"""Measure how long a GPU is idle between two updates, by torch's profiler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from motivation.tools.benchmark.around import opened_run
from motivation.tools.tables import markdown_table
from motivation.training.hooks import Hook
from motivation.training.loop import train_epoch
from motivation.training.records import UpdateReport

WARMUP_UPDATES = 20

Spans = list[tuple[float, float]]
"""Start and end of everything that a device did, in microseconds."""


class _ProfilerSteps(Hook):
    """Tells a profiler that an update is done."""

    def __init__(self, profiler: profile):
        self._profiler = profiler

    def update_end(self, record: UpdateReport) -> None:
        self._profiler.step()


def timeline_table(programs: Mapping[str, Sequence[str]], updates: int) -> str:
    """Return for each program, given by its flags, how long the GPU is idle."""
    rows = [["run", "device idle", "longest gap us"]]
    for name, argv in programs.items():
        spans = profile_updates(argv, updates)
        rows.append([name, f"{idle_percent(spans):.2f} %", f"{max(gaps(spans), default=0.0):.0f}"])
    return markdown_table(rows)


def profile_updates(argv: Sequence[str], updates: int, kind: DeviceType = DeviceType.CUDA) -> Spans:
    """Train an epoch of a run and profile some of its updates.

    Args:
        updates: number of updates to profile; the epoch must have `WARMUP_UPDATES` + 1 more.
        kind: of the device to look at.
    """
    window = schedule(wait=0, warmup=WARMUP_UPDATES, active=updates, repeat=1)
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], schedule=window)
    with opened_run([*argv, "--log-interval=1000"]) as run, profiler:
        run.hooks.hooks.append(_ProfilerSteps(profiler))
        train_epoch(run, 0)
    return device_spans(profiler.events(), kind)


def device_spans(events: Iterable[Any], kind: DeviceType) -> Spans:
    """Return when a device was busy.

    Named ranges, such as torch's of each optimizer step, are left out: they last from their first kernel to their last
    and would hide the gaps between.
    """
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == kind and not event.is_user_annotation
    ]


def gaps(spans: Spans) -> list[float]:
    """Return the length of each time in which the device was idle."""
    found, busy_until = [], min(spans, default=(0.0, 0.0))[0]
    for start, end in sorted(spans):
        if start > busy_until:
            found.append(start - busy_until)
        busy_until = max(busy_until, end)
    return found


def idle_percent(spans: Spans) -> float:
    """Return how much of the time from its first to its last work the device was idle."""
    if not spans:
        return 0.0
    return 100 * sum(gaps(spans)) / (max(end for _, end in spans) - min(start for start, _ in spans))
