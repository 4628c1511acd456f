"""Parts of a training set: the folds of a cross-validation, and the batch that the condition ``valloss`` holds out
(paper, sections 4 and 4.4.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset


class Part(Dataset):
    """Some items of a data set, with its transform and everything else that loaders ask a data set for.

    Args:
        whole: a data set with a length.
        indices: of the items, in the order that they have here.
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
        return Part(copy.copy(self.whole), self.indices)  # a copy has a transform of its own

    @property
    def transform(self) -> Any:
        """The transform of the whole; a loader sets it."""
        return self.whole.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.whole.transform = transform


def refuse_iterable(dataset: Any, what: str) -> None:
    """Items of a stream cannot be chosen.

    Raises:
        ValueError: it is an iterable data set.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(f"{what} needs a data set whose images can be chosen by number; this one can only be streamed")


def labels_of(dataset: Any) -> list[int]:
    """The class of each item; where the data set keeps no list of them, the items are read one by one."""
    found = listed_labels(dataset)
    return [int(dataset[index][1]) for index in range(len(dataset))] if found is None else found


def listed_labels(dataset: Any) -> list[int] | None:
    """The class of each item of a data set that keeps a list of them; None of one that would have to be read.

    Raises:
        TypeError, ValueError: the list has something else than numbers.
    """
    if isinstance(dataset, Part):
        labels = listed_labels(dataset.whole)
        return None if labels is None else [labels[index] for index in dataset.indices]
    if not hasattr(dataset, "__len__"):
        return None
    for name in ("targets", "labels", "_labels"):
        found = getattr(dataset, name, None)
        if found is not None and len(found) == len(dataset):
            return [int(label) for label in found]
    samples = getattr(getattr(dataset, "reader", None), "samples", None)
    if isinstance(samples, (list, tuple)) and len(samples) == len(dataset):
        return [int(sample[1]) for sample in samples]
    return None


def fold_indices(labels: Sequence[int], folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items outside and inside fold number ``fold`` (from 0) of a stratified cross-validation, both in rising order.

    The same labels and seed give the same folds; each item is in exactly one.

    Raises:
        ValueError: fewer than 2 folds, no such fold, or a class has fewer items than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"--folds {folds} --fold {fold}: at least 2 folds, numbered from 0 to {max(folds, 2) - 1}")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < folds:
        few = int(counts.argmin())
        raise ValueError(f"--folds {folds}: class {classes[few]} has only {counts[few]} images")
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    outside, inside = list(splits)[fold]
    return np.sort(outside), np.sort(inside)


def held_out_indices(count: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items to train on, and ``images`` items to hold out of ``count``, chosen by the seed; both in rising order.

    Raises:
        ValueError: nothing would be left to train on, or nothing is to be held out.
    """
    if not 0 < images < count:
        raise ValueError(f"--motivation-valloss-images: from 1 to {count - 1} of {count} training images, not {images}")
    order = np.random.default_rng([seed, 0x7A11]).permutation(count)
    return np.sort(order[images:]), np.sort(order[:images])
