"""The mean training loss of an epoch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from timm.utils import AverageMeter

from motivation.method.records import DeferredScalar
from motivation.training.records import Outcome


class LossMeter:
    """Mean training loss over an epoch, weighted by images; reads the losses only when it is asked."""

    def __init__(self) -> None:
        self._meter = AverageMeter()
        self._unread: list[tuple[DeferredScalar, int]] = []

    def add(self, outcome: Outcome) -> None:
        """Count an update."""
        self._unread.extend(outcome.local_losses)
        if len(self._unread) >= 1000:
            self._read()

    def _read(self) -> None:
        for loss, images in self._unread:
            self._meter.update(loss.value, images)
        self._unread.clear()

    def mean(self, world_size: int, device: torch.device) -> float:
        """Return the mean over the images of each rank, then over ranks; 0 before the first update."""
        self._read()
        local = float(self._meter.avg)
        if world_size == 1:
            return local
        mean = torch.tensor([local], device=device, dtype=torch.float32)
        dist.all_reduce(mean)
        return (mean / world_size).item()

    def state_dict(self) -> list[float]:
        """Return last value, sum and count over this rank's images so far."""
        self._read()
        return [float(self._meter.val), float(self._meter.sum), self._meter.count]

    def load_state_dict(self, state: list[float]) -> None:
        """Restore what `state_dict` returned."""
        last, total, count = state
        average = total / count if count else 0.0
        vars(self._meter).update(val=last, sum=total, count=int(count), avg=average)
