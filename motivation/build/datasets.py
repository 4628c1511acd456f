"""Open data sets: timm's, and parts of them for a fold or a held-out batch."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from motivation.build.data_checks import data_faults
from motivation.build.models import channels, data_config, meta_model
from motivation.data.datasets import create_dataset
from motivation.data.subsets import Part, fold_indices, held_out_indices, labels_of, refuse_iterable
from motivation.method.records import Role
from motivation.options.derived import data_folder, holds_images_out
from motivation.options.faults import Fault, StartupError, blaming


@dataclass
class DataSets:
    """The opened data sets of a run.

    Attributes:
        train: the images to train on.
        validation: the images to validate on; None without a validation split.
        held_out: images of the training split that are never trained on, for the condition ``valloss``; else None.
    """

    train: Any
    validation: Any
    held_out: Any = None


def make_datasets(args: Namespace, input_size: tuple[int, int, int]) -> DataSets:
    """Open the splits; take the images of a fold and of the held-out batch out of the training split.

    Raises:
        StartupError: a split cannot be opened, or is too small for that.
    """
    folder = data_folder(args)
    shared = dict(
        root=folder, class_map=args.class_map, download=args.dataset_download, batch_size=args.batch_size,
        input_img_mode=args.input_img_mode or ("RGB" if input_size[0] == 3 else "L"), input_key=args.input_key,
        target_key=args.target_key, trust_remote_code=args.dataset_trust_remote_code,
    )  # fmt: skip

    def opened(**options: Any) -> Any:
        with blaming("--dataset" if args.dataset else "--data-dir", args.dataset or folder):
            return create_dataset(args.dataset, **options, **shared)

    def training_split(is_training: bool = True) -> Any:
        return opened(
            split=args.train_split, is_training=is_training, seed=args.seed, repeats=args.epoch_repeats,
            num_samples=args.train_num_samples,
        )  # fmt: skip

    train, validation = training_split(), None
    if args.folds is not None:
        with blaming("--folds", args.folds):
            refuse_iterable(train)
            outside, inside = fold_indices(labels_of(train), args.folds, args.fold, args.seed)
        train, validation = Part(train, outside), Part(training_split(is_training=False), inside)
    elif args.val_split:
        validation = opened(split=args.val_split, is_training=False, num_samples=args.val_num_samples)
    if not holds_images_out(args):
        return DataSets(train, validation)
    images = args.motivation_valloss_images or args.batch_size
    with blaming("--motivation-valloss-images", images, errors=ValueError):
        refuse_iterable(train)
        kept, held_out = held_out_indices(len(train), images, args.seed)
    whole = training_split(is_training=False)
    if isinstance(train, Part):  # the indices count inside the fold
        whole = Part(whole, train.indices)
    return DataSets(Part(train, kept), validation, Part(whole, held_out))


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
    splits = {args.train_split: datasets.train}
    if args.folds is None and datasets.validation is not None:
        splits[args.val_split] = datasets.validation
    return datasets, data_faults(args, splits, size[0], classes, world_size)
