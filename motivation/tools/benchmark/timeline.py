"""Whether a GPU ever stands still between two updates, by torch's profiler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from motivation.tools.benchmark.around import opened_run
from motivation.tools.benchmark.timing import waiter
from motivation.training.hooks import Hook
from motivation.training.loop import train_epoch
from motivation.training.records import UpdateReport

WARMUP_UPDATES = 20


@dataclass(frozen=True)
class Timeline:
    """What a device did in a number of updates; times in microseconds.

    Attributes:
        spans: ``(start, end)`` of everything that it did.
    """

    updates: int
    spans: tuple[tuple[float, float], ...]

    @property
    def gaps(self) -> list[float]:
        """How long it stood still, each time."""
        found, until = [], None
        for start, end in sorted(self.spans):
            if until is not None and start > until:
                found.append(start - until)
            until = end if until is None else max(until, end)
        return found

    @property
    def idle_percent(self) -> float:
        """Of the time from its first to its last work."""
        if not self.spans:
            return 0.0
        return 100 * sum(self.gaps) / (max(end for _, end in self.spans) - min(start for start, _ in self.spans))


class _Window(Hook):
    """Opens the profiler after some updates and closes it after some more."""

    def __init__(self, profiler: profile, first: int, updates: int, device: torch.device):
        self._profiler, self._first, self._last, self._wait = profiler, first, first + updates, waiter(device)

    def update_end(self, record: UpdateReport) -> None:
        if record.update == self._first:
            self._wait()
            self._profiler.start()
        if record.update == self._last:
            self._wait()
            self._profiler.stop()


def timeline(argv: Sequence[str], updates: int, kind: DeviceType = DeviceType.CUDA) -> Timeline:
    """Profile so many updates of a run; its epoch must have `WARMUP_UPDATES` + ``updates`` + 1 of them.

    Args:
        kind: of the device that is looked at.
    """
    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    with opened_run([*argv, "--log-interval=1000"]) as run:
        run.hooks.hooks.append(_Window(profiler, WARMUP_UPDATES, updates, run.device))
        train_epoch(run, 0)
    return Timeline(updates, spans_of(profiler.events(), kind))


def spans_of(events: Iterable[Any], kind: DeviceType) -> tuple[tuple[float, float], ...]:
    """When a device did something.

    A range with a name, such as torch's of each optimizer step, lies on its timeline too, from the first kernel inside
    to the last; the gaps between those are gaps.
    """
    return tuple(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == kind and not event.is_user_annotation
    )
