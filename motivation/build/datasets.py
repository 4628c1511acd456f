"""Data sets: timm's, parts of them for a fold or a held-out batch, and what is wrong with them."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from timm.data import resolve_data_config
from torch.utils.data import IterableDataset

from motivation.build.image_folders import folder_faults
from motivation.build.learners import channels, meta_model
from motivation.data.datasets import class_count, create_dataset
from motivation.data.subsets import Part, fold_indices, held_out_indices, labels_of, listed_labels, refuse_iterable
from motivation.method.condition_registry import needs_of
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.checks import one_line

REPEATS_ROUND = 256
"""timm's sampler of repeated augmentation draws a multiple of so many images."""


@dataclass
class DataSets:
    """What a run reads.

    Attributes:
        train: the images to train on.
        validation: the images to judge by; None without a validation split.
        held_out: images of the training split that are never trained on, for the condition ``valloss``; else None.
    """

    train: Any
    validation: Any
    held_out: Any = None


def make_datasets(args: Namespace, input_size: tuple[int, int, int]) -> DataSets:
    """Open the splits, and part them as the options want it.

    Raises:
        Exception: whatever the data set's own library raises; ValueError for a part that there cannot be.
    """
    args.data_dir = args.data_dir or args.data
    mode = args.input_img_mode or ("RGB" if input_size[0] == 3 else "L")
    shared = dict(
        root=args.data_dir, class_map=args.class_map, download=args.dataset_download, batch_size=args.batch_size,
        input_img_mode=mode, input_key=args.input_key, target_key=args.target_key,
        trust_remote_code=args.dataset_trust_remote_code,
    )  # fmt: skip

    def training_split(is_training: bool = True) -> Any:
        return create_dataset(
            args.dataset, split=args.train_split, is_training=is_training, seed=args.seed, repeats=args.epoch_repeats,
            num_samples=args.train_num_samples, **shared,
        )  # fmt: skip

    train, validation = training_split(), None
    if args.folds is not None:
        refuse_iterable(train, "--folds")
        outside, inside = fold_indices(labels_of(train), args.folds, args.fold, args.seed)
        train, validation = Part(train, outside), Part(training_split(is_training=False), inside)
    elif args.val_split:
        validation = create_dataset(
            args.dataset, split=args.val_split, is_training=False, num_samples=args.val_num_samples, **shared
        )
    if not _holds_out(args):
        return DataSets(train, validation)
    refuse_iterable(train, "--motivation-condition valloss")
    kept, held_out = held_out_indices(len(train), args.motivation_valloss_images or args.batch_size, args.seed)
    whole = training_split(is_training=False)
    if isinstance(train, Part):  # the numbers are those of the fold
        whole = Part(whole, train.indices)
    return DataSets(Part(train, kept), validation, Part(whole, held_out))


def _holds_out(args: Namespace) -> bool:
    """Whether the run's condition watches a batch that is not trained on."""
    return bool(args.motivated_model) and "validation_loss" in needs_of(args.motivation_condition)


def open_datasets(args: Namespace, faults: list[str]) -> DataSets:
    """The data sets; appends to ``faults`` what is wrong with them."""
    nothing = DataSets(None, None)
    if any(fault.startswith(("--data-dir", "--train-split", "--val-split", "--model:", "--fold")) for fault in faults):
        return nothing
    try:
        base = meta_model(args, Role.BASE)
        size = resolve_data_config(vars(args), model=base)["input_size"]
        classes = base.num_classes
    except Exception:  # noqa: BLE001  (hub models, and what `model_faults` has said already)
        size, classes = (channels(args), 224, 224), args.num_classes
    try:
        datasets = make_datasets(args, size)
    except Exception as error:  # noqa: BLE001  (each kind of data set has its own exceptions)
        said, flag = one_line(error), "--dataset" if args.dataset else "--data-dir"
        faults.append(
            said if said.startswith("--") else f"{flag}: {args.dataset or args.data_dir} cannot be opened: {said}"
        )
        return nothing
    train, validation = datasets.train, datasets.validation
    splits = {args.train_split: train}
    if args.folds is None and validation is not None:
        splits[args.val_split] = validation
    found = [fault for name, split in splits.items() for fault in folder_faults(split, name, bool(args.class_map))]
    faults += found or _class_faults(splits, classes)
    if args.dataset.lower().startswith("torch/") and (fault := _channel_fault(train, args.dataset, size[0])):
        faults.append(fault)
    images = 0 if isinstance(train, IterableDataset) else len(train)
    if args.aug_repeats and images >= REPEATS_ROUND:
        images = images // REPEATS_ROUND * REPEATS_ROUND
    if not isinstance(train, IterableDataset) and -(-images // args.world_size) < args.batch_size:
        ranks = f" for {args.world_size} processes" if args.world_size > 1 else ""
        faults.append(
            f"--batch-size: {args.batch_size}, but split {args.train_split!r} has {images} images{ranks}; "
            "there would be no whole batch"
        )
    return datasets


def _channel_fault(dataset: Any, name: str, wanted: int) -> str | None:
    """That images have other channels than the model takes; timm leaves those of torchvision's sets as they are."""
    try:
        with fork_rng():
            found = len(dataset[0][0].getbands())
    except Exception:  # noqa: BLE001  (what cannot be read is said when it is trained on)
        return None
    if found == wanted:
        return None
    return f"--in-chans: the images of {name} have {found} channel{'s' * (found > 1)}, but the model takes {wanted}"


def _class_faults(splits: dict[str, Any], classes: int | None) -> list[str]:
    """Classes that the model has not, and splits whose numbers do not mean the same classes.

    Args:
        splits: one or two data sets by the names of their splits, the training split first.
        classes: of the model, None if that is not known.
    """
    for name, split in splits.items():
        if fault := _foreign_classes(name, split, classes):
            return [fault]
    if len(splits) < 2:
        return []
    (one, train), (other, validation) = splits.items()
    counts = [class_count(split) for split in (train, validation)]
    names = [_class_names(split) for split in (train, validation)]
    advice = "each numbers its own by name, so labels would not agree (--class-map gives both the same numbers)"
    if all(counts) and counts[0] != counts[1]:
        return [f"--val-split: {other!r} has {counts[1]} classes, {one!r} has {counts[0]}; {advice}"]
    if all(names) and names[0] != names[1]:
        odd = ", ".join(sorted(map(str, set(names[1]) ^ set(names[0])))[:4]) or "numbered otherwise"
        return [f"--val-split: {other!r} has other classes than {one!r} ({odd}); {advice}"]
    return []


def _foreign_classes(name: str, split: Any, classes: int | None) -> str | None:
    """That a split has classes which the model has not; None also where neither is known without reading images."""
    if wrong := [number for number in _class_names(split).values() if not isinstance(number, int)]:
        return f"--class-map: the number of a class is a whole number, not {wrong[0]!r}"
    found = class_count(split)
    try:
        labels = listed_labels(split)
    except (TypeError, ValueError):  # of several classes at once, or by name
        labels = None
    if classes is None or classes < 1:
        return None
    if found and found > classes:
        return f"--num-classes: split {name!r} has {found} classes, the model {classes}"
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        label = min(labels) if min(labels) < 0 else max(labels)
        return f"--num-classes: split {name!r} has the label {label}; the model has 0 to {classes - 1}"
    return None


def _class_names(dataset: Any) -> dict[str, int]:
    """Numbers of the classes by name, of data sets that take them from folders."""
    found = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or getattr(dataset, "class_to_idx", None)
    return found if isinstance(found, dict) else {}
