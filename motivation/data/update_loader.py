"""Cuts a training loader into updates, and knows the place in the epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motivation.data.device_data import DeviceLoader
from motivation.data.loaders import ResumableLoader


@dataclass
class MicroBatch:
    """What one forward pass sees.

    Attributes:
        images: ``[B, C, H, W]`` on the training device; NaFlex gives a dict of patches.
        targets: ``[B]`` class indices, or ``[B, num_classes]`` after mixup.
        parts: micro-batches of this update; the loss is divided by it.
        completes: the optimizer steps after this one.
        index: its number in the epoch.
        waited_s: seconds spent on getting it.
    """

    images: Any
    targets: Tensor
    parts: int
    completes: bool
    index: int
    waited_s: float = 0.0

    @property
    def size(self) -> int:
        """Number of images."""
        return self.images["patches"].shape[0] if isinstance(self.images, dict) else self.images.shape[0]


@dataclass
class TrainFeed:
    """Cuts the training loader into updates and brings its batches into the form the models want.

    Attributes:
        loader: timm's.
        accumulate: micro-batches of an update; the last update of an epoch has what is left.
        device, dtype: where and as what images are wanted, if the loader leaves them on the host.
        moves_data: whether it does.
        mixup: ``(images, targets) -> (images, targets)``, or None if the loader's collate mixes.
        mixup_off_epoch: epoch from which on nothing is mixed; 0 for never.
        channels_last: memory layout of the images.
        resumable: the loader inside ``loader`` that can go on inside an epoch; None where there is none (streams).
    """

    loader: Any
    accumulate: int
    device: torch.device
    dtype: torch.dtype | None = None
    moves_data: bool = False
    mixup: Any = None
    mixup_off_epoch: int = 0
    channels_last: bool = False
    resumable: ResumableLoader | DeviceLoader | None = None
    _first: int = 0

    @property
    def updates_per_epoch(self) -> int:
        """The last one may be of fewer micro-batches."""
        return -(-len(self.loader) // self.accumulate)

    def state_dict(self, updates: int | None) -> dict[str, Any]:
        """The place after so many updates of an epoch, and the random states of the data workers.

        Args:
            updates: None between two epochs.
        """
        consumed = None if updates is None else self._batches_of(updates)
        return {} if self.resumable is None else self.resumable.state_dict(consumed)

    def load_state_dict(self, state: dict[str, Any], updates: int | None) -> None:
        """The inverse of `state_dict`. A loader that is not resumable reads the first updates of the epoch again, to
        pass over them."""
        if self.resumable is not None and state:
            place = {} if updates is not None else {"consumed": len(self.loader)}  # none, though the file has one
            self.resumable.load_state_dict(state | place)
        if updates is not None:
            self._first = self._batches_of(updates)

    def _batches_of(self, updates: int) -> int:
        return min(updates * self.accumulate, len(self.loader))

    def start_epoch(self, epoch: int) -> None:
        """Tell data set and sampler the epoch, and stop mixing when its time has come."""
        loader = self.loader
        sampler = loader.batch_sampler if hasattr(loader.batch_sampler, "set_epoch") else loader.sampler
        for part in (loader.dataset, sampler, loader):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if self.mixup_off_epoch and epoch >= self.mixup_off_epoch:
            if not self.moves_data and loader.mixup_enabled:
                loader.mixup_enabled = False
            elif self.mixup is not None:
                self.mixup.mixup_enabled = False

    def prepare_images(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``[B, C, H, W]`` of a loader like this one, as the models want them."""
        if self.moves_data:
            images = images.to(device=self.device, dtype=self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def updates(self, epoch: int) -> Iterator[Iterator[MicroBatch]]:
        """The epoch's updates, each an iterator over its micro-batches.

        Batches are fetched one at a time, when they are asked for: with random erasing in the main process the order
        of fetching and training decides what the random stream gives.
        """
        self.start_epoch(epoch)
        batches = self._batches()
        for first in batches:
            yield _one_update(first, batches)

    def _batches(self) -> Iterator[MicroBatch]:
        count = len(self.loader)
        ragged = count % self.accumulate
        first, self._first = self._first, 0
        if first >= count:
            return  # resumed after the epoch's last update
        since = time.time()
        begins_at = 0 if self.resumable is None else first
        for index, (images, targets) in enumerate(self.loader, begins_at):
            if index < first:
                continue
            if self.moves_data:
                targets = targets.to(device=self.device)
                images = images.to(device=self.device, dtype=self.dtype)
                if self.mixup is not None:
                    images, targets = self.mixup(images, targets)
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            parts = ragged if index >= count - ragged else self.accumulate
            completes = index == count - 1 or (index + 1) % self.accumulate == 0
            yield MicroBatch(images, targets, parts, completes, index, time.time() - since)
            since = time.time()


def _one_update(first: MicroBatch, batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
    yield first
    while not first.completes:
        following = next(batches, None)
        if following is None:
            return
        first = following
        yield first
