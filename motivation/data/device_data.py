"""``--data-on-device``: the whole data set as one uint8 tensor on the training device (ours).

With small images a loader of single images is bound by the processes that make them, not by the GPU. Here a batch is
cut out of one tensor: cropped, flipped, normalised, erased and mixed on the device, each image with numbers of its own.
What an epoch does to its images is drawn at its start, from seed, epoch and rank alone, so a resumed run needs nothing
but the number of batches that were used.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motivation.method.random_states import fork_rng

ATTEMPTS = 10
"""How often a box for erasing is drawn before an image is left whole, as in timm."""
SMALLEST_BOX, LARGEST_BOX, FLATTEST_BOX = 0.02, 1 / 3, 0.3
"""Erased boxes: area as a part of the image's, and aspect ratio (to 1 over it), as in timm."""


@dataclass(frozen=True)
class Mixing:
    """Mixup and CutMix (timm's meaning of the flags).

    Attributes:
        mode: ``'batch'`` mixes all images of a batch alike, ``'pair'`` those that are mixed with each other,
            ``'elem'`` each on its own. An image's partner is the one at the same distance from the batch's end.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"


@dataclass(frozen=True)
class Erasing:
    """Random erasing (timm's meaning of the flags): ``mode`` is ``'const'``, ``'rand'`` or ``'pixel'``."""

    prob: float = 0.0
    mode: str = "const"
    count: int = 1


@dataclass(frozen=True)
class Recipe:
    """What is done to the images of a batch.

    Attributes:
        pad: pixels of black around the image, of which a part of its own size is cut; 0 for none.
        hflip, vflip: probabilities.
        mean, std: per channel, of values from 0 to 1.
        dtype: of the images.
        classes: of dense targets, which mixing gives.
        smoothing: of dense targets.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    hflip: float = 0.0
    vflip: float = 0.0
    dtype: torch.dtype = torch.float32
    erasing: Erasing = Erasing()
    mixing: Mixing | None = None
    classes: int = 0
    smoothing: float = 0.0


class DeviceLoader:
    """Batches from tensors on a device, in place of a loader.

    Args:
        images: uint8 ``[N, C, H + 2 pad, W + 2 pad]``, with the recipe's padding around them.
        targets: int64 ``[N]``, on the same device.
        batch_size: of every batch; what is left of an epoch is not used, unless ``shuffle`` is off.
        shuffle: whether there is an order of its own for each epoch; without it the recipe must draw nothing.
        seed: of everything that is drawn.
        rank, world_size: each rank has its part of the images; the parts are equally long.

    Attributes:
        mixup_enabled: whether batches are mixed; targets are dense in any case if the recipe mixes.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        recipe: Recipe,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.images, self.targets, self.recipe = images, targets, recipe
        self.batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._rank, self._world_size = rank, world_size
        self.dataset = self.sampler = self.batch_sampler = None
        self.mixup_enabled = recipe.mixing is not None
        self._epoch = self._first = 0
        self._size = tuple(length - 2 * recipe.pad for length in images.shape[-2:])
        self._windows = windows(images, self._size)
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor([value * 255 for value in recipe.mean], device=images.device).view(shape)
        self._std = torch.tensor([value * 255 for value in recipe.std], device=images.device).view(shape)

    def __len__(self) -> int:
        own = -(-len(self.images) // self._world_size)
        return own // self.batch_size if self._shuffle else -(-own // self.batch_size)

    def with_recipe(self, recipe: Recipe) -> DeviceLoader:
        """The same images with another recipe, of the same padding."""
        assert recipe.pad == self.recipe.pad, "the padding is part of the images"
        return DeviceLoader(
            self.images, self.targets, recipe, self.batch_size, self._shuffle, self._seed, self._rank, self._world_size
        )

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of."""
        self._epoch = epoch

    def state_dict(self, consumed: int | None) -> dict[str, Any]:
        """The place after so many batches of this epoch; None between two epochs."""
        return {} if consumed is None else {"consumed": consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, before the first iteration."""
        self._first = state.get("consumed", 0) % max(1, len(self))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, self._first = self._first, 0
        plan = EpochPlan(self._numbers(), self._own_images(), self._size, self.recipe, self.batch_size)
        on_device = plan.on(self.images.device)
        for index in range(first, len(self)):
            yield self._batch(on_device, slice(index * self.batch_size, (index + 1) * self.batch_size), index)

    def _numbers(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._epoch, self._rank + 1])

    def _own_images(self) -> np.ndarray:
        """Numbers of this rank's images, in the order of the epoch."""
        count = len(self.images)
        order = np.arange(count)
        if self._shuffle:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(count)
        order = np.resize(order, -(-count // self._world_size) * self._world_size)  # begins anew to be divisible
        own = order[self._rank :: self._world_size]
        return own[: len(self) * self.batch_size] if self._shuffle else own

    def _batch(self, plan: dict[str, Tensor], part: slice, index: int) -> tuple[Tensor, Tensor]:
        order = plan["order"][part]
        images = self._cut(order, plan, part)
        images = images.to(self.recipe.dtype).sub_(self._mean).div_(self._std)
        if self.recipe.erasing.prob:
            self._erase(images, plan["erased"][part], index)
        targets = self.targets[order]
        if self.recipe.mixing is None:
            return images, targets
        return self._mix(images, targets, plan, part)

    def _cut(self, order: Tensor, plan: dict[str, Tensor], part: slice) -> Tensor:
        recipe = self.recipe
        images = self._windows[order, plan["top"][part], plan["left"][part]] if recipe.pad else self.images[order]
        for name, prob, dim in (("flipped", recipe.hflip, 3), ("upside_down", recipe.vflip, 2)):
            if prob:
                images = torch.where(plan[name][part][:, None, None, None], images.flip(dim), images)
        return images

    def _erase(self, images: Tensor, boxes: Tensor, index: int) -> None:
        """Overwrite boxes ``[B, count, 4]`` in place."""
        erasing = self.recipe.erasing
        numbers = torch.Generator(images.device)
        numbers.manual_seed(
            int(np.random.default_rng([self._seed, self._epoch, self._rank + 1, index]).integers(2**62))
        )
        for box in boxes.unbind(1):
            inside = _inside(box, images.shape[-2:])
            if erasing.mode == "const":
                images.masked_fill_(inside, 0.0)
                continue
            shape = images.shape if erasing.mode == "pixel" else (*images.shape[:2], 1, 1)
            noise = torch.randn(shape, generator=numbers, device=images.device).to(images.dtype)
            torch.where(inside, noise, images, out=images)

    def _mix(self, images: Tensor, targets: Tensor, plan: dict[str, Tensor], part: slice) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        off = recipe.smoothing / recipe.classes
        dense = torch.full((len(targets), recipe.classes), off, device=images.device)
        dense.scatter_(1, targets[:, None], 1.0 - recipe.smoothing + off)
        if not self.mixup_enabled:
            return images, dense
        own = plan["own"][part].to(images.dtype)[:, None, None, None]
        boxes, partners = plan["boxes"][part], images.flip(0)
        cut = boxes[:, 1] > boxes[:, 0]
        mixed = torch.lerp(partners, images, own)
        mixed = torch.where(cut[:, None, None, None], images, mixed)
        mixed = torch.where(_inside(boxes, images.shape[-2:]), partners, mixed)
        share = plan["own"][part][:, None]
        return mixed, dense * share + dense.flip(0) * (1.0 - share)


def windows(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """All parts of the size ``(h, w)`` of images ``[N, C, H, W]``: a view ``[N, H - h + 1, W - w + 1, C, h, w]``."""
    (count, channels, *whole), (image, channel, row, column) = images.shape, images.stride()
    starts = [length - own + 1 for length, own in zip(whole, size, strict=True)]
    return images.as_strided((count, *starts, channels, *size), (image, row, column, channel, row, column))


class EpochPlan:
    """What happens to each image of an epoch: every array has one entry per place in the epoch's order.

    Args:
        numbers: a generator, whose numbers are all drawn here.
        order: numbers of the images.
        size: ``(H, W)``.
    """

    def __init__(
        self, numbers: np.random.Generator, order: np.ndarray, size: tuple[int, ...], recipe: Recipe, batch_size: int
    ):
        count = len(order)
        self.arrays: dict[str, np.ndarray] = {"order": order}
        if recipe.pad or recipe.hflip or recipe.vflip:
            self.arrays |= {
                "top": numbers.integers(0, 2 * recipe.pad + 1, count),
                "left": numbers.integers(0, 2 * recipe.pad + 1, count),
                "flipped": numbers.random(count) < recipe.hflip,
                "upside_down": numbers.random(count) < recipe.vflip,
            }
        if recipe.erasing.prob:
            self.arrays["erased"] = erased_boxes(numbers, count, size, recipe.erasing)
        if recipe.mixing is not None:
            self.arrays |= mixed_parts(numbers, count, size, recipe.mixing, batch_size)

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """The arrays as tensors on a device."""
        return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in self.arrays.items()}


def erased_boxes(numbers: np.random.Generator, count: int, size: tuple[int, ...], erasing: Erasing) -> np.ndarray:
    """Boxes ``[count, erasing.count, 4]`` of top, bottom, left, right; empty where nothing is erased."""
    height, width = size
    boxes_of = numbers.integers(1, erasing.count + 1, count) if erasing.count > 1 else np.ones(count, dtype=np.int64)
    shape = (count, erasing.count, ATTEMPTS)
    area = numbers.uniform(SMALLEST_BOX, LARGEST_BOX, shape) * height * width / boxes_of[:, None, None]
    aspect = np.exp(numbers.uniform(math.log(FLATTEST_BOX), -math.log(FLATTEST_BOX), shape))
    tall, broad = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tall < height) & (broad < width)
    choice = fits.argmax(-1)[..., None]
    tall, broad = (np.take_along_axis(side, choice, -1)[..., 0].astype(np.int64) for side in (tall, broad))
    wanted = (numbers.random(count) < erasing.prob)[:, None] & (np.arange(erasing.count) < boxes_of[:, None])
    wanted &= fits.any(-1)
    tall, broad = np.where(wanted, tall, 0), np.where(wanted, broad, 0)
    top, left = numbers.integers(0, height - tall + 1), numbers.integers(0, width - broad + 1)
    return np.stack([top, top + tall, left, left + broad], -1)


def mixed_parts(
    numbers: np.random.Generator, count: int, size: tuple[int, ...], mixing: Mixing, batch_size: int
) -> dict[str, np.ndarray]:
    """How each image is mixed with its partner.

    Returns:
        ``own``: the image's share of the result and of its target, ``[count]``; ``boxes``: what comes from the partner
        under CutMix, ``[count, 4]``, empty under Mixup.
    """
    batches = -(-count // batch_size)
    groups = {"batch": batches, "pair": batches * batch_size, "elem": batches * batch_size}[mixing.mode]
    use_cutmix = np.zeros(groups, dtype=bool)
    if mixing.cutmix > 0 or mixing.cutmix_minmax:
        use_cutmix = numbers.random(groups) < (mixing.switch_prob if mixing.mixup > 0 else 1.0)
    alphas = (mixing.mixup or 1.0, mixing.cutmix or 1.0)
    share = np.where(use_cutmix, numbers.beta(alphas[1], alphas[1], groups), numbers.beta(alphas[0], alphas[0], groups))
    share = np.where(numbers.random(groups) < mixing.prob, share, 1.0)
    boxes = _cutmix_boxes(numbers, share, size, mixing.cutmix_minmax) * (use_cutmix & (share < 1.0))[:, None]
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    share = np.where(use_cutmix & (share < 1.0), 1.0 - area / (size[0] * size[1]), share)
    if mixing.mode == "batch":
        share, boxes = np.repeat(share, batch_size), np.repeat(boxes, batch_size, 0)
    elif mixing.mode == "pair":  # the second half of a batch is mixed as its partners are
        place = np.arange(groups) % batch_size
        like = np.arange(groups) - place + np.minimum(place, batch_size - 1 - place)
        share, boxes = share[like], boxes[like]
    return {"own": share[:count].astype(np.float32), "boxes": boxes[:count]}


def _cutmix_boxes(
    numbers: np.random.Generator, share: np.ndarray, size: tuple[int, ...], minmax: tuple[float, float] | None
) -> np.ndarray:
    """Top, bottom, left, right ``[n, 4]``: of area 1 - share and the image's shape, or of sides between two parts."""
    count, sides = len(share), []
    for length in size:
        if minmax is None:
            extent = (length * np.sqrt(1.0 - share)).astype(np.int64)
            middle = numbers.integers(0, length, count)
            sides += [np.clip(middle - extent // 2, 0, length), np.clip(middle + (extent + 1) // 2, 0, length)]
        else:
            extent = numbers.integers(int(length * minmax[0]), max(int(length * minmax[1]), 1), count)
            start = numbers.integers(0, length - extent + 1)
            sides += [start, start + extent]
    return np.stack(sides, -1)


def _inside(boxes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Which pixels ``[B, 1, H, W]`` lie in boxes ``[B, 4]``."""
    rows = torch.arange(size[0], device=boxes.device)[None, :, None]
    columns = torch.arange(size[1], device=boxes.device)[None, None, :]
    top, bottom, left, right = (side[:, None, None] for side in boxes.unbind(1))
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]


def read_all(
    loader: Any, count: int, shape: tuple[int, int, int], device: torch.device, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """Every image of a loader of batches, and its class, as tensors on a device.

    Args:
        count: number of images.
        shape: ``(C, H, W)`` of each.
        pad: pixels of black around each.

    Returns:
        Images ``[N, C, H + 2 pad, W + 2 pad]`` in uint8 and targets ``[N]`` in int64.

    Raises:
        ValueError: there is no room for them, and nothing has been read; or images are of another shape.
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
    """Memory that a device has left; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def unsupported(args: Namespace) -> Iterator[str]:
    """Why a recipe cannot be done from one tensor; each option by its name."""
    if not args.train_pad:
        yield "--data-on-device: give --train-pad: timm's random resized crop needs each image at its own size"
    for name in NOT_FROM_A_TENSOR:
        value = getattr(args, name)
        if value:
            given = "" if value is True else f" {value}"
            option = "--" + name.replace("_", "-")
            yield f"--data-on-device: not with {option}{given}; it crops, flips, erases and mixes only"


NOT_FROM_A_TENSOR = (
    "aa", "color_jitter", "grayscale_prob", "gaussian_blur_prob", "aug_splits", "aug_repeats", "epoch_repeats",
    "naflex_loader", "train_img_sizes", "train_crop_mode", "no_aug", "tta", "use_multi_epochs_loader",
    "train_batches_per_epoch",
)  # fmt: skip
"""Options that work on single images, or on how they are drawn."""
