"""Subsets of a training set: folds for cross-validation, and the held-out batch of the condition ``valloss`` (paper,
sections 4 and 4.4.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset


class Part(Dataset):
    """A subset of a data set that has the data set's transform and all its other attributes, unlike torch's `Subset`.

    Args:
        whole: a map-style data set.
        indices: of the items, in the order of the subset.
    """

    def __init__(self, whole: Any, indices: Sequence[int] | np.ndarray):
        self.whole, self.indices = whole, np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.whole[int(self.indices[index])]

    def __getattr__(self, name: str) -> Any:
        if name in ("whole", "indices") or name.startswith("__"):  # not there yet: while copied or unpickled
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __copy__(self) -> Part:
        return Part(copy.copy(self.whole), self.indices)  # so that the copy can have another transform

    @property
    def transform(self) -> Any:
        """The transform of the whole data set; loaders set it."""
        return self.whole.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.whole.transform = transform


def refuse_iterable(dataset: Any) -> None:
    """Refuse a data set whose items cannot be chosen by number.

    Raises:
        ValueError: the data set is iterable-style.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError("needs a data set whose images can be chosen by number; this one can only be streamed")


def labels_of(dataset: Any) -> list[int]:
    """Return the class of each item. Without a list of classes, the items are read one by one."""
    labels = listed_labels(dataset)
    return [int(dataset[index][1]) for index in range(len(dataset))] if labels is None else labels


def listed_labels(dataset: Any) -> list[int] | None:
    """Return the class of each item from the data set's own list, None if it has none.

    Raises:
        TypeError, ValueError: the list has entries that are not numbers.
    """
    if isinstance(dataset, Part):
        labels = listed_labels(dataset.whole)
        return None if labels is None else [labels[index] for index in dataset.indices]
    if not hasattr(dataset, "__len__"):
        return None
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None and len(labels) == len(dataset):
            return [int(label) for label in labels]
    reader = getattr(dataset, "reader", None)
    if (labels := getattr(reader, "targets", None)) is not None and len(labels) == len(dataset):  # of tars
        return [int(label) for label in labels]
    samples = getattr(reader, "samples", None)
    if isinstance(samples, (list, tuple)) and len(samples) == len(dataset):
        return [int(sample[1]) for sample in samples]
    return None


def fold_indices(labels: Sequence[int], folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices outside and inside fold number ``fold`` (from 0) of a stratified cross-validation, sorted.

    The same labels and seed give the same folds; each item is in exactly one.

    Raises:
        ValueError: there are fewer than 2 folds, no such fold, or a class with fewer items than folds.
    """
    from sklearn.model_selection import StratifiedKFold

    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"at least 2 folds, numbered from 0, not number {fold} of {folds}")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < folds:
        few = int(counts.argmin())
        raise ValueError(f"class {classes[few]} has only {counts[few]} images")
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    outside, inside = list(splits)[fold]
    return np.sort(outside), np.sort(inside)


def held_out_indices(count: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices to train on and ``images`` indices to hold out of ``count``, chosen by the seed, sorted.

    Raises:
        ValueError: one of the two would be empty.
    """
    if not 0 < images < count:
        raise ValueError(f"from 1 to {count - 1} of {count} training images, not {images}")
    order = np.random.default_rng([seed, 0x7A11]).permutation(count)
    return np.sort(order[images:]), np.sort(order[:images])
