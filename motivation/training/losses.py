"""The mean training loss of an epoch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from motivation.training.records import Mean, Outcome


class LossMeter:
    """Mean training loss over an epoch, weighted by images; reads the losses only when it is asked."""

    def __init__(self) -> None:
        self._own = Mean()
        self._pending: list[Any] = []

    def add(self, outcome: Outcome) -> None:
        """Count an update."""
        self._pending.extend(outcome.own_losses)
        if len(self._pending) >= 1000:
            self._drain()

    def _drain(self) -> None:
        for loss, images in self._pending:
            self._own.add(loss.value, images)
        self._pending.clear()

    def mean(self, world_size: int, device: torch.device) -> float:
        """Over the images of this rank, then over ranks."""
        self._drain()
        if world_size == 1:
            return self._own.mean
        mean = torch.tensor([self._own.mean], device=device, dtype=torch.float32)
        dist.all_reduce(mean)
        return (mean / world_size).item()

    def state_dict(self) -> list[float]:
        """Of this rank's images so far."""
        self._drain()
        return [self._own.last, self._own.total, self._own.count]

    def load_state_dict(self, state: list[float]) -> None:
        """The inverse of `state_dict`."""
        self._own.last, self._own.total, count = state
        self._own.count = int(count)
