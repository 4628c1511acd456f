"""``--data-on-device``: the whole data set as one uint8 tensor on the training device (ours).

With small images a loader of single images is bound by the processes that make them, not by the GPU. Here a batch is
indexed out of one tensor, and cropped, flipped, normalised and erased on the device.

Order, crops and flips of an epoch are drawn when it starts, from seed, epoch and rank alone, so a resumed run needs
only the number of batches that were used. Erasing and mixing (timm's) draw from the global random streams when a batch
is asked for; a checkpoint has their states.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from motivation.method.random_states import fork_rng


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the images of a batch, and their normalisation.

    Attributes:
        mean, std: per channel, of values from 0 to 1.
        pad: pixels of black around the image, out of which a crop of the image's size is cut.
        hflip, vflip: probabilities.
        dtype: of the images.
        erasing: called with the normalised batch; None for no erasing.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    hflip: float = 0.0
    vflip: float = 0.0
    dtype: torch.dtype = torch.float32
    erasing: RandomErasing | None = None


class DeviceLoader:
    """Yields batches from tensors on a device, in place of a data loader.

    Args:
        images: uint8 ``[N, C, H + 2 pad, W + 2 pad]``, with the padding of the augmentation around them.
        targets: int64 ``[N]``, on the same device.
        batch_size: of every batch; an incomplete last batch is dropped if ``shuffle``.
        shuffle: draw a new order for each epoch. Without it, nothing may be random.
        seed: of order, crops and flips.
        rank, world_size: each rank has its part of the images; the parts are equally long.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        augmentation: Augmentation,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.images, self.targets, self.augmentation = images, targets, augmentation
        self.batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._rank, self._world_size = rank, world_size
        self.dataset = self.sampler = self.batch_sampler = None
        self._epoch = self._skip_batches = 0
        height, width = (length - 2 * augmentation.pad for length in images.shape[-2:])
        self._crops = images.unfold(2, height, 1).unfold(3, width, 1)  # a view: [N, C, top, left, H, W]
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor([value * 255 for value in augmentation.mean], device=images.device).view(shape)
        self._std = torch.tensor([value * 255 for value in augmentation.std], device=images.device).view(shape)

    def __len__(self) -> int:
        own = -(-len(self.images) // self._world_size)
        return own // self.batch_size if self._shuffle else -(-own // self.batch_size)

    def without_erasing(self) -> DeviceLoader:
        """Return a loader of the same images that erases nothing."""
        loader = copy.copy(self)
        loader.augmentation = replace(self.augmentation, erasing=None)
        return loader

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def state_dict(self, consumed: int | None) -> dict[str, Any]:
        """Return the position after ``consumed`` batches of this epoch; None between two epochs."""
        return {} if consumed is None else {"consumed": consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, before the first iteration."""
        self._skip_batches = state.get("consumed", 0) % max(1, len(self))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        skip, self._skip_batches = self._skip_batches, 0
        plan = {name: torch.from_numpy(array).to(self.images.device) for name, array in self.plan_epoch().items()}
        for index in range(skip, len(self)):
            batch = slice(index * self.batch_size, (index + 1) * self.batch_size)
            yield self._batch({name: array[batch] for name, array in plan.items()})

    def plan_epoch(self) -> dict[str, np.ndarray]:
        """Draw what happens to each image of this rank's epoch: arrays with one entry per image, in their order."""
        order = self._order()
        numbers = np.random.default_rng([self._seed, self._epoch, self._rank + 1])
        augmentation, count = self.augmentation, len(order)
        return {
            "order": order,
            "top": numbers.integers(0, 2 * augmentation.pad + 1, count),
            "left": numbers.integers(0, 2 * augmentation.pad + 1, count),
            "hflip": numbers.random(count) < augmentation.hflip,
            "vflip": numbers.random(count) < augmentation.vflip,
        }

    def _order(self) -> np.ndarray:
        """Indices of this rank's images in the order of the epoch."""
        count = len(self.images)
        order = np.arange(count)
        if self._shuffle:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(count)
        order = np.resize(order, -(-count // self._world_size) * self._world_size)  # the first ones again, as fill-up
        own = order[self._rank :: self._world_size].copy()
        return own[: len(self) * self.batch_size] if self._shuffle else own

    def _batch(self, plan: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        augmentation = self.augmentation
        images = self._crops[plan["order"], :, plan["top"], plan["left"]]
        if augmentation.hflip:
            images = torch.where(plan["hflip"][:, None, None, None], images.flip(3), images)
        if augmentation.vflip:
            images = torch.where(plan["vflip"][:, None, None, None], images.flip(2), images)
        images = images.to(augmentation.dtype).sub_(self._mean).div_(self._std)
        if augmentation.erasing is not None:
            images = augmentation.erasing(images)
        return images, self.targets[plan["order"]]


def read_all(
    loader: Any, count: int, shape: tuple[int, int, int], device: torch.device, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """Read every image of a loader of batches, and its class, into tensors on a device.

    Args:
        count: number of images.
        shape: ``(C, H, W)`` of each.
        pad: pixels of black around each.

    Returns:
        Images ``[N, C, H + 2 pad, W + 2 pad]`` in uint8 and targets ``[N]`` in int64.

    Raises:
        ValueError: there is no room for them (nothing has been read then), or images are of another shape.
    """
    channels, height, width = shape
    whole = (count, channels, height + 2 * pad, width + 2 * pad)
    free = free_bytes(device)
    if free is not None and math.prod(whole) > free:
        raise ValueError(
            f"{count} images of {channels} x {whole[2]} x {whole[3]} need "
            f"{math.prod(whole) / 1e9:.2f} GB, but {device} has {free / 1e9:.2f} GB left; leave the option out"
        )
    images = torch.zeros(whole, dtype=torch.uint8, device=device)
    targets = torch.empty(count, dtype=torch.int64, device=device)
    inside, first = images[:, :, pad : pad + height, pad : pad + width], 0
    with fork_rng():
        for batch, classes in loader:
            if tuple(batch.shape[1:]) != tuple(shape):  # one channel would be copied into all
                found, wanted = (" x ".join(map(str, one)) for one in (batch.shape[1:], shape))
                raise ValueError(f"images are {found}, but the model takes {wanted}")
            part = slice(first, first + len(batch))
            inside[part] = torch.as_tensor(batch).to(device)
            targets[part] = torch.as_tensor(classes).to(device)
            first += len(batch)
    assert first == count, f"{first} of {count} images came"
    return images, targets


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
