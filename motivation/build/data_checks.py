"""Check data sets before a run: splits that share images, classes, channels, empty folders, unreadable images, too few
images for a batch."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import IterableDataset

from motivation.data.datasets import class_count, class_numbers
from motivation.data.image_files import first_special, is_hidden, shared_images
from motivation.data.splits import entries, named, reads_files, split_advice
from motivation.data.subsets import listed_labels
from motivation.method.random_states import fork_rng
from motivation.options.derived import data_folder
from motivation.options.faults import Fault, one_line

REPEATS_ROUND = 256
"""timm's sampler of repeated augmentation draws a multiple of this number of images."""
TRIED = 8
"""Number of images of a split that are tried. Single unreadable ones are no fault: timm skips them."""


def data_faults(
    args: Namespace, splits: dict[str, Any], channels: int, classes: int | None, world_size: int
) -> list[Fault]:
    """Return what is wrong with data sets that could be opened.

    Args:
        args: options.
        splits: one or two data sets by the names of their splits, the training split first.
        channels: of the images that the models take.
        classes: of the models, None if that is not known.
        world_size: number of ranks.
    """
    train = next(iter(splits.values()))
    faults = split_faults(args, splits, channels, classes)
    if not isinstance(train, IterableDataset):
        faults += _batch_faults(args, len(train), world_size)
    return faults


def split_faults(args: Namespace, splits: dict[str, Any], channels: int, classes: int | None) -> list[Fault]:
    """Return the same, of splits that may be smaller than a batch."""
    first = next(iter(splits.values()))
    faults = [fault for name, split in splits.items() for fault in _folder_faults(split, name, bool(args.class_map))]
    faults = faults or _class_faults(splits, classes)
    if args.dataset.lower().startswith("torch/"):
        faults += _channel_faults(first, args.dataset, channels)
    return faults


def overlap_fault(args: Namespace, train: Any, validation: Any) -> Fault | None:
    """Return the fault of validation images that are trained on, which timm does not notice."""
    count = shared_images(train, validation)
    if args.train_split == args.val_split:  # of streamed data, more is not known
        count = count or max(1, len(validation))
    if not count:
        return None
    text = f"training and validation would both read {count} image{'s' * (count > 1)}"
    roots = [getattr(getattr(split, "reader", split), "root", None) for split in (train, validation)]
    folder = data_folder(args) or ""
    if not (reads_files(args.dataset) or args.dataset.lower() in ("torch/image_folder", "torch/folder")):
        advice = f"{args.dataset} has others: give another --train-split or --val-split"
    elif roots[1] == folder and os.path.isfile(folder):
        advice = "a tar is one split: put two into --data-dir, and give --train-split train.tar --val-split val.tar"
    elif roots[1] == folder:
        advice = split_advice(Path(folder))
    else:
        where = " and ".join(dict.fromkeys(map(str, roots)))
        advice = f"they are in {where}; {folder} has {named(entries(Path(folder)))}: give two different ones"
    return Fault("--val-split", f"{text}; {advice}", args.val_split)


def _batch_faults(args: Namespace, images: int, world_size: int) -> list[Fault]:
    """Return the fault of a training set that does not fill one batch on each rank."""
    reason = ""
    if args.aug_repeats and images >= REPEATS_ROUND:
        reason = f" an epoch (of {images}; --aug-repeats draws a multiple of {REPEATS_ROUND}, --aug-repeats 0 all)"
        images = images // REPEATS_ROUND * REPEATS_ROUND
    if -(-images // world_size) >= args.batch_size:
        return []
    ranks = f" for {world_size} processes" if world_size > 1 else ""
    text = (
        f"{args.batch_size}, but split {args.train_split!r} has {images} images{reason}{ranks}; there would be no "
        "whole batch"
    )
    return [Fault("--batch-size", text)]


def _channel_faults(dataset: Any, name: str, wanted: int) -> list[Fault]:
    """Return the fault of images with other channels than the model takes; timm does not convert torchvision's."""
    with fork_rng():
        try:
            image = dataset[0][0]
        except Exception:  # noqa: BLE001  (training reports an image that cannot be read)
            return []
    found = len(image.getbands()) if isinstance(image, Image.Image) else wanted
    if found == wanted:
        return []
    text = f"the images of {name} have {found} channel{'s' * (found > 1)}, but the model takes {wanted}"
    return [Fault("--in-chans", text)]


def _class_faults(splits: dict[str, Any], classes: int | None) -> list[Fault]:
    """Return the fault of classes that the model lacks, or of two splits that number their classes differently.

    Args:
        splits: one or two data sets by the names of their splits, the training split first.
        classes: of the model, None if that is not known.
    """
    for name, split in splits.items():
        elsewhere = [class_numbers(other).keys() for other in splits.values() if other is not split]
        only_here = sorted(class_numbers(split).keys() - elsewhere[0]) if elsewhere and elsewhere[0] else []
        odd = f" (only {name!r} has {named(only_here)})" if only_here else f" ({named(class_numbers(split))})"
        odd = odd if class_numbers(split) else ""
        if fault := _foreign_class(name, split, classes, odd):
            return [fault]
    if len(splits) < 2:
        return []
    (one, train), (other, validation) = splits.items()
    counts = [class_count(split) for split in (train, validation)]
    names = [class_numbers(split) for split in (train, validation)]
    advice = "each numbers its own by name, so labels would not agree (--class-map gives both the same numbers)"
    if all(counts) and counts[0] != counts[1]:
        return [Fault("--val-split", f"{other!r} has {counts[1]} classes, {one!r} has {counts[0]}; {advice}")]
    if all(names) and names[0] != names[1]:
        odd = ", ".join(sorted(map(str, set(names[1]) ^ set(names[0])))[:4]) or "numbered otherwise"
        return [Fault("--val-split", f"{other!r} has other classes than {one!r} ({odd}); {advice}")]
    return []


def _foreign_class(name: str, split: Any, classes: int | None, odd: str) -> Fault | None:
    """Return the fault of a split with a class that the model lacks, as far as that is known without reading images.

    Args:
        name: of the split.
        split: the data set.
        classes: of the model, None if that is not known.
        odd: what to say of classes that the other split lacks.
    """
    if wrong := [number for number in class_numbers(split).values() if not isinstance(number, int)]:
        return Fault("--class-map", f"the number of a class is a whole number, not {wrong[0]!r}")
    found = class_count(split)
    try:
        labels = listed_labels(split)
    except (TypeError, ValueError):  # of several classes at once, or by name
        labels = None
    if classes is None or classes < 1:
        return None
    if found and found > classes:
        return Fault("--num-classes", f"split {name!r} has {found} classes, the model {classes}{odd}")
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        label = min(labels) if min(labels) < 0 else max(labels)
        return Fault("--num-classes", f"split {name!r} has the label {label}; the model has 0 to {classes - 1}")
    return None


def _folder_faults(dataset: Any, split: str, mapped: bool = False) -> list[Fault]:
    """Return the faults of an image folder: empty class folders, images outside of any, none that can be read.

    Args:
        dataset: an image folder of timm's; others have no such faults.
        split: its name, for the messages.
        mapped: True if a class map chooses the folders, so that others do not matter.
    """
    reader = getattr(dataset, "reader", None)
    if not isinstance(reader, ReaderImageFolder):
        return []
    root, faults = Path(reader.root), []
    if "" in reader.class_to_idx:
        first = next((Path(file).name for file, _ in reader.samples if Path(file).parent == root), None)
        text = f"{root} has images outside of class folders ({first}); timm would take them for a class"
        faults += [Fault("--data-dir", text)] if first else []  # else it is a blank line of a class map
    empty = [folder for folder in _empty_folders(reader) if not mapped or folder.name in reader.class_to_idx]
    if empty:
        text = f"no images in {named(empty)}: fill or remove each such class folder"
        faults.append(Fault("--data-dir", text))
    elif special := first_special([file for file, _ in reader.samples]):
        faults.append(Fault("--data-dir", f"{special} is no file but a pipe or a device; remove it"))
    elif reason := _why_unreadable(reader):
        faults.append(Fault("--data-dir", f"split {split!r} has no images that can be read: {reason}"))
    return faults


def _empty_folders(reader: Any) -> Iterator[Path]:
    """Yield the folders below the reader's without an image at any depth, but for hidden ones.

    Folders with images are not looked into, so that this is quick for many images too.
    """
    with_images = {Path(folder) for folder in {os.path.dirname(file) for file, _ in reader.samples}}
    above = {parent for folder in with_images for parent in folder.parents}
    for place, below, _ in os.walk(reader.root):
        folders = [Path(place, name) for name in sorted(below) if not is_hidden(name)]
        yield from (folder for folder in folders if folder not in with_images | above)
        below[:] = [folder.name for folder in folders if folder in above]


def _why_unreadable(reader: Any) -> str | None:
    """Return why none of some images, spread over the split, can be read; None if one can."""
    reason = None
    for index in np.unique(np.linspace(0, len(reader) - 1, TRIED).astype(int)):
        try:
            with reader[int(index)][0] as file, Image.open(file) as image:
                image.load()
            return None
        except Exception as error:  # noqa: BLE001  (each image format has its own way of refusing)
            reason = reason or f"{reader.filename(int(index), absolute=True)}: {one_line(error)}"
    return reason
