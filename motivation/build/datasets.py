"""Open data sets: timm's, and parts of them for a fold or a held-out batch."""

from __future__ import annotations

import zlib
from argparse import Namespace
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from motivation.build.class_maps import check_class_map, check_class_names
from motivation.build.data_checks import data_faults, overlap_fault, split_faults
from motivation.build.models import data_config, meta_model
from motivation.data.datasets import class_count, class_numbers, create_dataset, label_names
from motivation.data.image_files import clipped_image, is_hidden, leave_out_hidden, merged_folders
from motivation.data.splits import entries, likely_splits, named, reads_files, split_advice, split_root
from motivation.data.subsets import Part, fold_indices, held_out_indices, labels_of, refuse_iterable
from motivation.method.records import Role
from motivation.options.derived import channels, data_folder, holds_images_out
from motivation.options.faults import Fault, StartupError, blaming


@dataclass
class DataSets:
    """The opened data sets of a run.

    Attributes:
        train: the images to train on.
        validation: the images to validate on; None without a validation split.
        held_out: images of the training split that are never trained on, for the condition ``valloss``; else None.
        notes: what a user should know of the data.
    """

    train: Any
    validation: Any
    held_out: Any = None
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return what must be the same on all ranks: the number of images of each split, and the classes, if known."""
        splits = {"training images": self.train, "validation images": self.validation}
        facts = {f"the number of {name}": len(split) for name, split in splits.items() if isinstance(split, Sized)}
        classes = label_names(self.train) or []
        checksum = zlib.crc32("/".join(classes).encode())  # the names that are listed may be equal, others not
        return facts | {"the classes": f"{named(classes)} (checksum {checksum:08x})"}


def make_datasets(args: Namespace, input_size: tuple[int, int, int]) -> DataSets:
    """Open the splits; take the images of a fold and of the held-out batch out of the training split.

    Raises:
        StartupError: a split cannot be opened, or is too small for that.
    """
    notes = check_class_map(args)
    train, validation = _training_split(args, input_size, notes), None
    if args.folds is not None:
        outside, inside = _fold_of(train, args)
        whole = _training_split(args, input_size, notes, is_training=False)
        train, validation = Part(train, outside), Part(whole, inside)
    elif args.val_split:
        validation = _validation_split(args, input_size, notes)
    if not holds_images_out(args):
        return DataSets(train, validation, notes=notes)
    images = args.motivation_valloss_images or args.batch_size
    with blaming("--motivation-valloss-images", images, errors=ValueError):
        refuse_iterable(train)
        kept, held_out = held_out_indices(len(train), images, args.seed)
    whole = _training_split(args, input_size, notes, is_training=False)
    if isinstance(train, Part):  # the indices count inside the fold
        whole = Part(whole, train.indices)
    return DataSets(Part(train, kept), validation, Part(whole, held_out), notes)


def open_validation(args: Namespace, input_size: tuple[int, int, int], classes: int) -> tuple[Any, list[str]]:
    """Open the validation data of a run alone; return them, and what a user should know of them.

    Args:
        args: options, which name a validation split or a fold.
        input_size: ``(C, H, W)`` of the images.
        classes: of the models.

    Raises:
        StartupError: they cannot be opened, or are not for these models.
    """
    if args.folds is None:
        notes = check_class_map(args, [args.val_split])
        name, dataset = args.val_split, _validation_split(args, input_size, notes)
    else:
        notes = check_class_map(args)
        name, dataset = args.train_split, _training_split(args, input_size, notes, is_training=False)
    if faults := split_faults(args, {name: dataset}, input_size[0], classes):
        raise StartupError(faults)
    return (dataset if args.folds is None else Part(dataset, _fold_of(dataset, args)[1])), notes


def _fold_of(dataset: Any, args: Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices outside and inside the fold of a run."""
    with blaming("--folds", args.folds):
        refuse_iterable(dataset)
        return fold_indices(labels_of(dataset), args.folds, args.fold, args.seed)


def _training_split(
    args: Namespace, input_size: tuple[int, int, int], notes: list[str], is_training: bool = True
) -> Any:
    return _open_split(
        args, input_size, notes, split=args.train_split, is_training=is_training, seed=args.seed,
        repeats=args.epoch_repeats, num_samples=args.train_num_samples,
    )  # fmt: skip


def _validation_split(args: Namespace, input_size: tuple[int, int, int], notes: list[str]) -> Any:
    return _open_split(
        args, input_size, notes, split=args.val_split, is_training=False, num_samples=args.val_num_samples
    )


def _open_split(args: Namespace, input_size: tuple[int, int, int], notes: list[str], **options: Any) -> Any:
    """Open one split, without hidden files; add to the notes what a user should know of it."""
    folder = data_folder(args)
    options |= dict(
        root=folder, class_map=args.class_map, download=args.dataset_download, batch_size=args.batch_size,
        input_img_mode=image_mode(args, input_size), input_key=args.input_key, target_key=args.target_key,
        trust_remote_code=args.dataset_trust_remote_code,
    )  # fmt: skip
    with blaming("--dataset" if args.dataset else "--data-dir", args.dataset or folder):
        refuse_folder_of_tars(args, options["split"])
        dataset = create_dataset(args.dataset, **options)
    notes.extend(check_class_names(args, dataset))
    if hidden := leave_out_hidden(dataset, bool(args.class_map)):
        notes.append(f"Hidden files are left out of split {options['split']!r}: {named(hidden)}.")
    if odd := [name for name in class_numbers(dataset) if is_hidden(str(name))]:  # of a library's data set
        notes.append(f"Split {options['split']!r} takes hidden folders for classes: {named(odd)}.")
    if not args.class_map and (merged := merged_folders(dataset)):
        notes.append(f"Split {options['split']!r} takes folders of the same name for one class: {named(merged)}.")
    return dataset


def image_mode(args: Namespace, input_size: tuple[int, int, int]) -> str:
    """Return the PIL mode that images are converted to, by default that of the model's channels."""
    return args.input_img_mode or ("RGB" if input_size[0] == 3 else "L")


def refuse_folder_of_tars(args: Namespace, split: str) -> None:
    """Refuse a folder that has tars and no class folders, in which timm finds no images.

    Raises:
        ValueError: it is one; the message says how tars are read.
    """
    root = Path(split_root(data_folder(args), split))
    if not reads_files(args.dataset) or not root.is_dir():
        return
    there = entries(root)
    tars = [name for name in there if name.lower().endswith(".tar")]
    if not tars or len(tars) < len(there):
        return
    if all(likely_splits(tars)) and root == Path(data_folder(args) or ""):
        raise ValueError(f"timm reads a tar as a split: {split_advice(root)}")
    raise ValueError(
        f"{root} is a folder of tars ({named(tars)}), in which timm finds no images. It reads one tar for a split, "
        f"with class folders or tars of classes in it: tar cf {root}.tar -C {root} . and then --train-split or "
        f"--val-split {root.name}.tar; shards of webdataset are --dataset wds/"
    )


DATA_FLAGS = ("--data-dir", "--train-split", "--val-split", "--model", "--folds", "--fold")
"""With a fault of one of these flags the data sets cannot be opened."""


def open_datasets(args: Namespace, world_size: int) -> tuple[DataSets, list[Fault]]:
    """Open the data sets, and return what is wrong with them."""
    try:
        base = meta_model(args, Role.BASE)
        size, classes = data_config(args, base)["input_size"], base.num_classes
    except StartupError:  # `model_faults` reports it
        size, classes = (channels(args), 224, 224), args.num_classes
    try:
        datasets = make_datasets(args, size)
    except StartupError as error:
        return DataSets(None, None), error.faults
    faults: list[Fault] = []
    splits = {args.train_split: datasets.train}
    if args.folds is None and datasets.validation is not None:
        splits[args.val_split] = datasets.validation
        fault = overlap_fault(args, datasets.train, datasets.validation)
        if fault is not None and args.train_split == args.val_split:  # asked for, such as to see whether a model fits
            datasets.notes.append(f"{fault}.")
        elif fault is not None:
            faults.append(fault)
    elif text := _unsplit(args):
        datasets.notes.append(text)
    faults = faults or data_faults(args, splits, size[0], classes, world_size)
    if faults:
        return datasets, faults
    found = class_count(datasets.train)
    if args.num_classes is None and found and classes and found < classes:
        datasets.notes.append(
            f"{args.model} has {classes} outputs, split {args.train_split!r} has {found} classes: "
            f"--num-classes {found} makes a head for them."
        )
    for name, split in splits.items():
        if (deep := clipped_image(split)) is not None:
            datasets.notes.append(
                f"{deep[0]} of split {name!r} has more than 8 bits a pixel (mode {deep[1]}), and is clipped to 0 to "
                "255: convert such files to 8 bits first."
            )
            break
    return datasets, faults


def _unsplit(args: Namespace) -> str | None:
    """Return a warning where the training split is a folder that looks like one of several splits."""
    folder = data_folder(args)
    if not reads_files(args.dataset) or not folder or split_root(folder, args.train_split) != folder:
        return None
    if not Path(folder).is_dir() or not all(likely_splits(entries(Path(folder)))):
        return None
    there = named(entries(Path(folder)))
    return f"--train-split: {folder} has no folder {args.train_split!r}, so training reads all of it: {there}."
