"""The mean training loss of an epoch."""

from __future__ import annotations

import torch
from timm.utils import AverageMeter, reduce_tensor

from motivation.method.records import DeferredScalar


class LossMeter:
    """Mean loss over images, which reads the losses only when it is asked."""

    def __init__(self) -> None:
        self._meter = AverageMeter()
        self._unread: list[tuple[DeferredScalar, int]] = []

    def add(self, loss: DeferredScalar, images: int) -> None:
        """Count the mean loss of so many images."""
        self._unread.append((loss, images))
        if len(self._unread) >= 1000:
            self.read()

    def read(self) -> AverageMeter:
        """Return the meter with all losses so far; waits for those that have not arrived yet."""
        for loss, images in self._unread:
            self._meter.update(loss.value, images)
        self._unread.clear()
        return self._meter

    def mean(self, world_size: int, device: torch.device) -> float:
        """Return the mean over the images of each rank, then over ranks; 0 before the first update."""
        local = float(self.read().avg)
        if world_size == 1:
            return local
        return reduce_tensor(torch.tensor([local], device=device), world_size).item()

    def state_dict(self) -> list[float]:
        """Return last value, sum and count over this rank's images so far."""
        meter = self.read()
        return [float(meter.val), float(meter.sum), meter.count]

    def load_state_dict(self, state: list[float]) -> None:
        """Restore what `state_dict` returned."""
        last, total, count = state
        average = total / count if count else 0.0
        vars(self._meter).update(val=last, sum=total, count=int(count), avg=average)
