"""Make loaders over one tensor on the training device (``--data-on-device``)."""

from __future__ import annotations

import copy
import dataclasses
from argparse import Namespace
from typing import Any

import torch
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import MaybePILToTensor
from torch import Tensor
from torch.utils.data import DataLoader

from motivation.build.runtime import Runtime
from motivation.data.datasets import resize_to
from motivation.data.device_data import Augmentation, DeviceLoader, read_all
from motivation.data.loaders import CheckedLoader
from motivation.data.subsets import refuse_iterable
from motivation.options.faults import blaming


class DeviceLoaders:
    """Makes the loaders of a run; the images are decoded and resized once, by ``--workers`` processes.

    Args:
        config: timm's data configuration of the base model.
        interpolation: of the training images.
        num_classes: outputs of the models' heads.
    """

    def __init__(self, args: Namespace, runtime: Runtime, config: dict[str, Any], interpolation: str, num_classes: int):
        self.args, self.runtime, self.config, self.num_classes = args, runtime, config, num_classes
        self._resize = resize_to(tuple(config["input_size"][-2:]), interpolation)
        self._plain = Augmentation(config["mean"], config["std"], dtype=runtime.dtype or torch.float32)

    def training(self, dataset: Any) -> DeviceLoader:
        """Make the training loader, which crops, flips and erases as the options say."""
        from torchvision import transforms

        args = self.args
        transform = transforms.Compose([self._resize, MaybePILToTensor()])
        shape = self.config["input_size"]
        images, targets = self._read(dataset, transform, args.train_split, shape, args.train_pad)
        erasing = None
        if args.reprob > 0:
            erasing = RandomErasing(args.reprob, mode=args.remode, max_count=args.recount, device=images.device)
        augmentation = dataclasses.replace(
            self._plain, pad=args.train_pad, hflip=args.hflip, vflip=args.vflip, erasing=erasing
        )
        return DeviceLoader(images, targets, augmentation, args.batch_size, seed=args.seed, **self._ranks())

    def validation(self, dataset: Any, size: tuple[int, int, int], batch_size: int) -> DeviceLoader:
        """Make a loader of every image once, as timm's validation transform makes it."""
        transform = create_transform(
            size, is_training=False, use_prefetcher=True, interpolation=self.config["interpolation"],
            crop_pct=self.config["crop_pct"],
        )  # fmt: skip
        images, targets = self._read(dataset, transform, self.args.val_split, size)
        return DeviceLoader(images, targets, self._plain, batch_size, shuffle=False, **self._ranks())

    def _ranks(self) -> dict[str, Any]:
        return {"rank": self.runtime.rank, "world_size": self.runtime.world_size}

    def _read(
        self, dataset: Any, transform: Any, split: str, shape: tuple[int, int, int], pad: int = 0
    ) -> tuple[Tensor, Tensor]:
        with blaming("--data-on-device", errors=ValueError):
            refuse_iterable(dataset)
        dataset = copy.copy(dataset)
        dataset.transform = transform
        loader = DataLoader(dataset, batch_size=min(256, len(dataset)), num_workers=self.args.workers)
        checked = CheckedLoader(loader, split, self.num_classes)
        with blaming("--data-on-device"):
            return read_all(checked, len(dataset), shape, self.runtime.device, pad)
