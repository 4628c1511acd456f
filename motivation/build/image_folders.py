"""What can be known to be wrong with a folder of class folders before its images are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder

from motivation.data.subsets import Part
from motivation.options.checks import one_line

TRIED = 8
"""Images of a split that are read to see whether any can be; timm passes over single ones that cannot."""
NAMED = 4
"""Folders that one message names."""


def folder_faults(dataset: Any, split: str, mapped: bool = False) -> list[str]:
    """Class folders without images, images outside of class folders, and images of which none can be read.

    Args:
        dataset: timm's, of an image folder; of others nothing is said.
        split: its name, for the messages.
        mapped: whether a class map chooses the folders, so that others do not matter.
    """
    dataset = dataset.whole if isinstance(dataset, Part) else dataset
    reader = getattr(dataset, "reader", None)
    if not isinstance(reader, ReaderImageFolder):
        return []
    root, faults = Path(reader.root), []
    if "" in reader.class_to_idx:
        first = next(Path(file).name for file, _ in reader.samples if Path(file).parent == root)
        faults.append(
            f"--data-dir: {root} has images outside of class folders ({first}); timm would take them for a class"
        )
    empty = [folder for folder in _empty_folders(reader) if not mapped or folder.name in reader.class_to_idx]
    if empty:
        more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        named = ", ".join(map(str, empty[:NAMED]))
        faults.append(f"--data-dir: no images in {named}{more}: fill or remove each such class folder")
    elif reason := _why_unreadable(reader):
        faults.append(f"--data-dir: split {split!r} has no images that can be read: {reason}")
    return faults


def _empty_folders(reader: Any) -> Iterator[Path]:
    """Folders below the reader's without an image at any depth, but for hidden ones.

    Folders with images are not looked into, so that this is quick for many images too.
    """
    with_images = {os.path.dirname(file) for file, _ in reader.samples}
    on_the_way = set()
    for folder in with_images:
        while len(folder := os.path.dirname(folder)) > len(reader.root):
            on_the_way.add(folder)
    waiting = [reader.root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            folders = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for folder in folders:
            if folder in on_the_way:
                waiting.append(folder)
            elif folder not in with_images:
                yield Path(folder)


def _why_unreadable(reader: Any) -> str | None:
    """Why images cannot be read, if of some spread over the split none can; None if one can."""
    reason = None
    for index in np.unique(np.linspace(0, len(reader) - 1, TRIED).astype(int)):
        try:
            with reader[int(index)][0] as file, Image.open(file) as image:
                image.load()
            return None
        except Exception as error:  # noqa: BLE001  (each image format has its own way of refusing)
            reason = reason or f"{reader.filename(int(index), absolute=True)}: {one_line(error)}"
    return reason
