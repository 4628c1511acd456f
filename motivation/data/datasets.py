"""Data sets and transforms: timm's, and what timm lacks (digits, Flowers, Pets, pad-and-crop, the CIFAR policy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from timm import data as timm_data
from timm.data.transforms import MaybePILToTensor, MaybeToTensor, RandomResizedCropAndInterpolation, str_to_interp_mode
from torch.utils.data import ConcatDataset, Dataset
from torchvision import datasets, transforms

CIFAR_POLICY = "cifar10"
"""Value of ``--aa`` for AutoAugment's CIFAR-10 policy, which timm does not have."""

_TRAIN_SPLITS = ("train", "training")
_VALIDATION_SPLITS = ("validation", "val", "valid", "test", "eval", "evaluation")


class SklearnDigits(Dataset):
    """scikit-learn's bundled 8x8 digits: 1797 grey images of 10 classes, with a fifth of each class for validation.

    The split is always the same. Items are ``(PIL image in mode L or RGB, class)``.

    Args:
        split: one of timm's names for training or validation splits.
        input_img_mode: ``'L'`` or ``'RGB'``.

    Raises:
        ValueError: the split is unknown.
    """

    def __init__(self, split: str, input_img_mode: str = "L"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        if split not in _TRAIN_SPLITS + _VALIDATION_SPLITS:
            raise ValueError(
                f"sklearn/digits has no split {split!r}; use one of {', '.join(_TRAIN_SPLITS + _VALIDATION_SPLITS)}"
            )
        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        train, held_out = train_test_split(
            np.arange(len(images)), test_size=0.2, stratify=digits.target, random_state=0
        )
        chosen = np.sort(train if split in _TRAIN_SPLITS else held_out)
        self.images, self.targets = images[chosen], digits.target[chosen].tolist()
        self.classes = [str(name) for name in digits.target_names]
        self.input_img_mode = input_img_mode
        self.transform: Any = None
        self.target_transform: Any = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = Image.fromarray(self.images[index]).convert(self.input_img_mode)
        return (image if self.transform is None else self.transform(image)), int(self.targets[index])


class Joined(Dataset):
    """Concatenates splits of one of torchvision's data sets.

    The transform is applied here: some of torchvision's data sets take one in the constructor only.

    Args:
        parts: data sets with the same classes and RGB images, opened without a transform.
        input_img_mode: the PIL mode to convert images to.
        parts_of: names of the splits that the parts are.
    """

    def __init__(self, parts: Sequence[Any], input_img_mode: str = "RGB", parts_of: Sequence[str] = ()):
        self.parts: Any = ConcatDataset(parts)
        self.parts_of = list(parts_of)
        self.input_img_mode = input_img_mode
        self.classes = parts[0].classes
        self.targets = [int(label) for part in parts for label in part._labels]
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.parts[index]
        image = image.convert(self.input_img_mode)
        return (image if self.transform is None else self.transform(image)), int(label)


TRANSFER_SETS = {
    "torch/flowers102": (datasets.Flowers102, ("train", "val"), ("test",)),
    "torch/oxford_pets": (datasets.OxfordIIITPet, ("trainval",), ("test",)),
}
"""Data sets for transfer learning that timm's factory lacks: torchvision's class, the splits to train on, the splits to
validate on. As is usual, Flowers are trained on with both of their smaller splits."""


def _transfer_set(name: str, split: str, input_img_mode: str, root: str, download: bool) -> Any:
    kind, for_training, for_validation = TRANSFER_SETS[name]
    if split in for_training and split in _VALIDATION_SPLITS:
        raise ValueError(f"{name}: the images of its split {split!r} are trained on; validate on {for_validation[0]!r}")
    if split not in (*_TRAIN_SPLITS, "trainval", *_VALIDATION_SPLITS):
        known = ", ".join(("train", "trainval", *_VALIDATION_SPLITS))
        raise ValueError(f"{name} has no split {split!r}; use one of {known}")
    splits = for_validation if split in _VALIDATION_SPLITS else for_training
    return Joined([kind(root, split=one, download=download) for one in splits], input_img_mode, splits)


def create_dataset(name: str, split: str, input_img_mode: str, **kwargs: Any) -> Any:
    """Open ``sklearn/digits``, one of `TRANSFER_SETS`, or any data set of timm's factory.

    Raises:
        ValueError: the data set or split is unknown.
    """
    if name.lower() in TRANSFER_SETS:
        return _transfer_set(name.lower(), split, input_img_mode, kwargs["root"], kwargs["download"])
    if name.lower().startswith("sklearn/"):
        if name.lower() != "sklearn/digits":
            raise ValueError(f"unknown data set {name}; scikit-learn's bundled images are sklearn/digits")
        return SklearnDigits(split, input_img_mode)
    return timm_data.create_dataset(name, split=split, input_img_mode=input_img_mode, **kwargs)


def class_count(dataset: Any) -> int | None:
    """Return the number of classes of a data set, None if it is not known."""
    if getattr(dataset, "classes", None):
        return len(dataset.classes)
    numbers = class_numbers(dataset)
    return max((number for name, number in numbers.items() if name != ""), default=-1) + 1 or None


def class_numbers(dataset: Any) -> dict[str, int]:
    """Return the numbers of the classes by name, for data sets that take them from folders or tars; else nothing."""
    for files in (getattr(dataset, "reader", None), dataset):
        for name in ("class_to_idx", "class_name_to_idx"):
            found = getattr(files, name, None)
            if isinstance(found, dict) and found:
                return found
    return {}


def label_names(dataset: Any) -> list[str] | None:
    """Return the names of the classes in the order of their numbers; None if there are none, or a number lacks one."""
    numbers = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    names: list[Any] = list(getattr(dataset, "classes", None) or ())
    if isinstance(numbers, dict):
        by_number = {number: name for name, number in numbers.items()}
        names = [by_number.get(number) for number in range(len(numbers))]
    names = [", ".join(name) if isinstance(name, tuple) else name for name in names]  # ImageNet's have synonyms
    return names if names and all(isinstance(name, str) for name in names) else None


def customise_transform(
    transform: Any, size: tuple[int, ...], train_pad: int, policy: str | None, interpolation: str
) -> Any:
    """Change timm's training transform: pad-and-crop instead of its random resized crop, and the CIFAR-10 policy.

    Args:
        transform: timm's: a composition, or with augmentation splits a tuple of three.
        size: ``(H, W)`` of the crop.
        train_pad: pixels of zero padding on each side; 0 keeps timm's crop.
        policy: `CIFAR_POLICY` to insert it after the flips; anything else changes nothing.
        interpolation: for images that are not of ``size``.
    """
    if isinstance(transform, tuple):
        primary, secondary, final = transform
        secondary = transforms.Compose([*_policy(policy), *secondary.transforms])
        return transforms.Compose(_pad_and_crop(primary.transforms, size, train_pad, interpolation)), secondary, final
    steps = _pad_and_crop(list(transform.transforms), size, train_pad, interpolation)
    end = next(i for i, step in enumerate(steps) if isinstance(step, (MaybePILToTensor, MaybeToTensor)))
    flips = (transforms.RandomHorizontalFlip, transforms.RandomVerticalFlip, transforms.RandomCrop)
    start = max((i + 1 for i, step in enumerate(steps[:end]) if isinstance(step, flips)), default=min(1, end))
    return transforms.Compose([*steps[:start], *_policy(policy), *steps[start:]])


def _policy(policy: str | None) -> list[Any]:
    return [transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)] if policy == CIFAR_POLICY else []


def _pad_and_crop(steps: list[Any], size: tuple[int, ...], pad: int, interpolation: str) -> list[Any]:
    if not pad:
        return steps
    assert isinstance(steps[0], RandomResizedCropAndInterpolation), "the options are checked before"
    return [resize_to(size, interpolation), transforms.RandomCrop(size, padding=pad), *steps[1:]]


def resize_to(size: tuple[int, ...], interpolation: str) -> Any:
    """Return a transform that resizes images to ``(H, W)``; the interpolation ``random`` means bilinear here."""
    mode = "bilinear" if interpolation == "random" else interpolation
    return transforms.Resize(size, interpolation=str_to_interp_mode(mode))
