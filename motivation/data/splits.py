"""Find the folders of the splits as timm does, and say which there are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import _search_split

from motivation.data.image_files import is_hidden

NAMED = 4
"""Number of folders or classes that one message lists."""


def reads_files(dataset: str) -> bool:
    """Return True if timm takes this value of ``--dataset`` for a folder or a tar."""
    prefix, slash, _ = dataset.lower().partition("/")
    return not slash or prefix not in ("torch", "sklearn", "hfds", "hfids", "tfds", "wds")


def split_root(folder: str | None, split: str) -> str:
    """Return the folder that timm reads for a split: below ``folder``, or all of it where there is none so named."""
    return _search_split(folder, split) if folder and os.path.isdir(folder) else str(folder)


def named(things: Iterable[Any], count: int = NAMED) -> str:
    """List the first things, and how many more there are.

    >>> named("abc"), named("abcdef"), named("")
    ('a, b, c', 'a, b, c, d and 2 more', 'nothing')
    """
    listed = list(map(str, things))
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more or "nothing"


def entries(folder: Path) -> list[str]:
    """Return the folders and tars in a folder that could be splits or classes."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if not is_hidden(entry.name) and (entry.is_dir() or entry.suffix.lower() == ".tar")
    )


def likely_splits(names: Iterable[str]) -> tuple[str | None, str | None]:
    """Return which names look like those of a training and of a validation split.

    >>> likely_splits(["seg_pred", "seg_test", "seg_train"]), likely_splits(["cat", "dog"])
    (('seg_train', 'seg_test'), (None, None))
    """
    listed = list(names)

    def find(*words: str, but: str = " ") -> str | None:
        found = (name for word in words for name in listed if word in name.casefold() and but not in name.casefold())
        return next(found, None)

    return find("train"), find("val", "test", "eval", "dev", but="train")


def split_advice(folder: Path) -> str:
    """Say which folders there are, and what to type."""
    given, there = folder, entries(folder) if folder.is_dir() else []
    if len(there) == 1 and (folder / there[0]).is_dir() and all(likely_splits(entries(folder / there[0]))):
        folder /= there[0]  # an archive that was unpacked into a folder of its own
        there = entries(folder)
    around = entries(folder.absolute().parent)
    if not any(likely_splits(there)) and folder.name in likely_splits(around) and all(likely_splits(around)):
        folder, there = folder.absolute().parent, around  # one split was given for both
    training, validation = likely_splits(there)
    otherwise = "give --folds N --fold I to cross-validate, or --val-split '' to train without validation"
    if training and validation:
        typed = f"--train-split {training} --val-split {validation}"
        return f"{folder} has {named(there)}: give {'' if folder == given else f'--data-dir {folder} '}{typed}"
    if not there:
        return otherwise
    return (
        f"{folder} has {named(there)}: put the class folders into train/ and validation/, or name the two folders with "
        f"--train-split and --val-split; or {otherwise}"
    )
