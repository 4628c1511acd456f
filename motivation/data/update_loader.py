"""Groups the batches of a training loader into optimizer updates and tracks the position in the epoch."""

from __future__ import annotations

import itertools
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
    """The input of one forward pass.

    Attributes:
        images: ``[B, C, H, W]`` on the training device; NaFlex gives a dict of patches.
        targets: ``[B]`` class indices, or ``[B, num_classes]`` after mixup.
        accum_steps: micro-batches of this update; the loss is divided by it.
        is_last: the optimizer steps after this one.
        index: its number in the epoch.
        data_time_s: seconds spent waiting for it.
    """

    images: Any
    targets: Tensor
    accum_steps: int
    is_last: bool
    index: int
    data_time_s: float = 0.0

    @property
    def size(self) -> int:
        """Number of images."""
        return self.images["patches"].shape[0] if isinstance(self.images, dict) else self.images.shape[0]


@dataclass
class UpdateLoader:
    """Yields the micro-batches of one optimizer update after another, on the device and in the layout of the models.

    Attributes:
        loader: timm's.
        accum_steps: micro-batches per update; the last update of an epoch has what is left.
        device, dtype: of the images, where the loader leaves them on the host.
        needs_device_transfer: the loader leaves images and targets on the host.
        mixup: ``(images, targets) -> (images, targets)``, or None if the loader's collate function mixes.
        mixup_off_epoch: epoch from which on nothing is mixed; 0 for never.
        channels_last: memory layout of the images.
        resumable: the loader inside ``loader`` that can resume in the middle of an epoch; None for streamed data.
        limit: end an epoch after this many batches, counted from where it is begun or resumed; None for its own end.
    """

    loader: Any
    accum_steps: int
    device: torch.device
    dtype: torch.dtype | None = None
    needs_device_transfer: bool = False
    mixup: Any = None
    mixup_off_epoch: int = 0
    channels_last: bool = False
    resumable: ResumableLoader | DeviceLoader | None = None
    limit: int | None = None
    _skip_batches: int = 0

    @property
    def updates_per_epoch(self) -> int:
        """Number of updates, the last of which may have fewer micro-batches."""
        return -(-len(self.loader) // self.accum_steps)

    def state_dict(self, updates: int | None) -> dict[str, Any]:
        """Return the position after ``updates`` updates of the epoch, and the random states of the data workers.

        Args:
            updates: None between two epochs.
        """
        if self.resumable is None:
            return {}
        return self.resumable.state_dict(None if updates is None else self._batches_in(updates))

    def load_state_dict(self, state: dict[str, Any], updates: int | None) -> None:
        """Restore `state_dict`. A loader that is not resumable reads the first batches again and discards them."""
        if self.resumable is not None and state:
            # Between two epochs there is no position to go to, although the file may have one.
            position = {"consumed": len(self.loader)} if updates is None else {}
            self.resumable.load_state_dict(state | position)
        if updates is not None:
            self._skip_batches = self._batches_in(updates)

    def updates_after(self, updates: int) -> int:
        """Return how many updates follow the first ``updates`` of an epoch, as far as `limit` goes."""
        batches = len(self.loader) - self._batches_in(updates)
        return -(-min(batches, self.limit or batches) // self.accum_steps)

    def _batches_in(self, updates: int) -> int:
        return min(updates * self.accum_steps, len(self.loader))

    def start_epoch(self, epoch: int) -> None:
        """Pass the epoch to data set and sampler, and switch mixing off at ``mixup_off_epoch``."""
        loader = self.loader
        sampler = loader.batch_sampler if hasattr(loader.batch_sampler, "set_epoch") else loader.sampler
        for part in (loader.dataset, sampler, loader):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if self.mixup_off_epoch and epoch >= self.mixup_off_epoch:
            if self.mixup is not None:
                self.mixup.mixup_enabled = False
            elif getattr(loader, "mixup_enabled", False):
                loader.mixup_enabled = False

    def prepare_images(self, images: Tensor) -> Tensor:
        """Bring images ``[B, C, H, W]`` to the device, dtype and memory layout of training."""
        if self.needs_device_transfer:
            images = images.to(device=self.device, dtype=self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def updates(self, epoch: int) -> Iterator[Iterator[MicroBatch]]:
        """Yield the updates of an epoch, each an iterator over its micro-batches.

        A batch is fetched when it is asked for and not earlier: with random erasing in the main process, the order of
        fetching and training decides which random numbers each gets.
        """
        self.start_epoch(epoch)
        batches = self._batches()
        for first in batches:
            yield _until_last(itertools.chain([first], batches))

    def _batches(self) -> Iterator[MicroBatch]:
        count = len(self.loader)
        skip, self._skip_batches = self._skip_batches, 0
        if skip >= count:
            return  # resumed after the epoch's last update
        first, stop = 0 if self.resumable is None else skip, None
        if self.limit is not None:
            count = min(count, skip + self.limit)
            stop = count - first
        remainder = count % self.accum_steps
        since = time.time()
        for index, (images, targets) in enumerate(itertools.islice(self.loader, stop), first):
            if index < skip:
                continue
            if self.needs_device_transfer:
                targets = targets.to(device=self.device, non_blocking=True)
                images = images.to(device=self.device, dtype=self.dtype, non_blocking=True)
            if self.mixup is not None:
                images, targets = self.mixup(images, targets)
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            accum_steps = remainder if index >= count - remainder else self.accum_steps
            is_last = index == count - 1 or (index + 1) % self.accum_steps == 0
            yield MicroBatch(images, targets, accum_steps, is_last, index, time.time() - since)
            since = time.time()


def _until_last(batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
    for batch in batches:
        yield batch
        if batch.is_last:
            return
