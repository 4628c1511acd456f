"""Say after each evaluated epoch how long the rest of a run will take, and at its end what an unfinished epoch has."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from motivation.method.records import Counts, Role
from motivation.training.hooks import Hook, RunView
from motivation.training.records import EpochRecord, UpdateReport

_logger = logging.getLogger("train")

MEASURED_UPDATES = 5
"""Updates of each model in an epoch whose memory is read; torch takes a tenth of a millisecond to tell it."""

LOW = 0.5
"""A motivated model with less than this part of the base's accuracy looks broken."""


@dataclass
class _Measured:
    """Sum up time and memory of one model's updates in this process."""

    updates: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    memory_reads: int = 0

    @property
    def per_update_s(self) -> float | None:
        return self.seconds / self.updates if self.updates else None


class EpochLog(Hook):
    """Log a line after each evaluated epoch: its time, the time left, time and memory of an update of each model.

    The first update of each model, which may compile and fetch memory, does not count.

    Args:
        device: that trains; its memory is told where torch knows it.
        expected_share: of motivated updates in the rest of the run; None for that of the run so far.
        flops: forward FLOPs of both models, by which the time of a model is guessed that has not been trained yet.
        statistics_are_young: True if the motivated model is evaluated with the BatchNorm statistics of its own updates.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        device: torch.device,
        expected_share: float | None = None,
        flops: Mapping[Role, float] | None = None,
        statistics_are_young: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._device, self._clock = device, clock
        self._memory = torch.get_device_module(device)
        self._knows_memory = hasattr(self._memory, "max_memory_allocated")
        self._expected_share, self._flops = expected_share, flops
        self._statistics_are_young = statistics_are_young
        self._measured = {role: _Measured() for role in Role}
        self._has_begun = dict.fromkeys(Role, False)
        self._outside_s = 0.0  # of evaluating, saving and starting epochs
        self._updates = 0
        self._has_explained = False
        self._in_epoch = Counts()

    def run_start(self, run: RunView) -> None:
        self._run, self._since = run, self._clock()

    def epoch_start(self, epoch: int) -> None:
        now = self._clock()
        if self._updates:
            self._outside_s += now - self._since
        self._since = self._epoch_since = now
        self._epoch, self._in_epoch = epoch, Counts()
        self._done = self._run.start_update if epoch == self._run.start_epoch else 0
        for measured in self._measured.values():
            measured.memory_reads = 0
        if self._knows_memory:
            self._memory.reset_peak_memory_stats(self._device)

    def update_end(self, record: UpdateReport) -> None:
        now, measured = self._clock(), self._measured[record.role]
        if self._has_begun[record.role]:
            measured.updates += 1
            measured.seconds += now - self._since
        self._has_begun[record.role], self._since = True, now
        self._updates += 1
        self._done += 1
        self._in_epoch.add(record.role)
        if self._knows_memory:
            self._read_memory(measured)

    def _read_memory(self, measured: _Measured) -> None:
        if measured.memory_reads < MEASURED_UPDATES:
            measured.memory_reads += 1
            measured.peak_bytes = max(measured.peak_bytes, self._memory.max_memory_allocated(self._device))
        self._memory.reset_peak_memory_stats(self._device)  # the next update may be of the other model

    def epoch_end(self, record: EpochRecord) -> None:
        now = self._clock()
        self._outside_s += now - self._since
        self._since = now
        parts = [f"Epoch {record.epoch} took {duration(now - self._epoch_since)}"]
        epochs_left = self._run.epochs - 1 - record.epoch
        epoch_s = self._epoch_s(record)
        if epochs_left and epoch_s is not None:
            parts.append(f"{epochs_left} more, about {duration(epochs_left * epoch_s)} left")
        each = [f"{role.value} {text}" for role, one in self._measured.items() if (text := _of_update(one))]
        if each:
            parts.append(f"an update: {', '.join(each)}")
        _logger.info("; ".join(parts) + ".")
        self._explain(record)

    def _epoch_s(self, record: EpochRecord) -> float | None:
        """Return the seconds that each later epoch will take; None if no update was timed."""
        share = record.run_counts.share if self._expected_share is None else self._expected_share
        if not self._run.motivated:
            share = 0.0
        update_s = 0.0
        for role, part in ((Role.BASE, 1 - share), (Role.MOTIVATED, share)):
            if not part:
                continue
            seconds = self._update_s(role)
            if seconds is None:
                return None
            update_s += part * seconds
        epochs_done = self._updates / self._run.updates_per_epoch
        return self._run.updates_per_epoch * update_s + self._outside_s / epochs_done

    def _update_s(self, role: Role) -> float | None:
        """Return the time of an update of a model, guessed from the other model's if it has none."""
        own = self._measured[role].per_update_s
        if own is not None:
            return own
        other = Role.BASE if role is Role.MOTIVATED else Role.MOTIVATED
        seconds = self._measured[other].per_update_s
        if seconds is None or self._flops is None:
            return seconds
        return seconds * self._flops[role] / self._flops[other]

    def _explain(self, record: EpochRecord) -> None:
        """Say once why the accuracy of the motivated model is far below that of the base."""
        base, motivated = record.base, record.motivated
        if self._has_explained or base is None or motivated is None or motivated["top1"] >= LOW * base["top1"]:
            return
        self._has_explained = True
        updates = record.run_counts.updates
        young, remedy = "its differential part is", ""
        if self._statistics_are_young:
            young = "its differential part and its BatchNorm statistics are"
            remedy = "; --motivation-bn-recalibrate 50 re-estimates the statistics before each evaluation"
        small, large = (updates[role] for role in Role)
        _logger.info(
            f"The motivated model has {motivated['top1']:.1f} % beside the base's {base['top1']:.1f} %, which is usual "
            f"at first: it was trained in {large} updates (the base in {small}), so {young} young{remedy}."
        )

    def run_end(self) -> None:
        here, total = self._in_epoch.total, self._run.updates_per_epoch
        if not here or self._done == total:
            return
        text = f"Epoch {self._epoch} is not finished: {self._done} of its {total} updates are done"
        if self._done > here:
            text += f", {here} of them since the resume"
        if self._run.motivated:
            text += f" ({', '.join(f'{count} {role.value}' for role, count in self._in_epoch.updates.items())})"
        _logger.info(f"{text}.")


def _of_update(measured: _Measured) -> str:
    time_s = measured.per_update_s
    parts = [] if time_s is None else [f"{time_s:.3g} s"]
    if measured.peak_bytes:
        parts.append(f"{measured.peak_bytes / 1e9:.2f} GB")
    return " and ".join(parts)


def duration(elapsed_s: float) -> str:
    """
    >>> duration(27.4), duration(480), duration(7200)
    ('27 s', '8 min', '2.0 h')
    """
    if elapsed_s < 100:
        return f"{elapsed_s:.0f} s"
    return f"{elapsed_s / 60:.0f} min" if elapsed_s < 6000 else f"{elapsed_s / 3600:.1f} h"
