"""``python -m motivation validate SOURCE``: loss and accuracy of saved models, measured as their run measured them.

On the run's own validation data and on a CPU the figures are those of its ``result.json``, bit for bit: the same
weights (the EMA if the run evaluated it), batches, sizes, crop, precision and code.
"""

from __future__ import annotations

import json
import math
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motivation.build.datasets import open_validation
from motivation.build.loaders import make_validator
from motivation.build.models import patch_size
from motivation.data.datasets import label_names
from motivation.data.splits import entries, named, reads_files, split_root
from motivation.data.workers import end_workers
from motivation.errors import InputError, print_text, writing
from motivation.options.derived import channels, data_folder
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.file_checks import data_folder_fault
from motivation.options.flag_types import Flag, at_least
from motivation.options.flags import FLAGS
from motivation.options.parse import OptionParser, given_options, read_configs
from motivation.options.parse import make_parser as training_parser
from motivation.tools.evaluation import (
    add_source_flags,
    load_models,
    place,
    showing_progress,
    start,
    telling_data_errors,
)
from motivation.tools.saved_models import SavedModel, Source, evaluation_config, find_source
from motivation.tools.sweep import split_words
from motivation.tools.tables import text_table
from motivation.training.evaluate import LABELS
from motivation.training.records import Metrics
from motivation.training.run_files import RunError, refuse_run_file
from weight_maps.plugins import load_plugins

METRICS = {"loss": 4, "top1": 2, "top5": 2}
"""Digits that are shown of each metric."""
FETCHED = ("hfds", "hfids", "tfds", "wds")
"""Kinds of data sets whose names lead to code, commands or the network."""


def make_parser() -> ArgumentParser:
    """Return the parser of the words before ``--``."""
    parser = OptionParser(
        prog="python -m motivation validate",
        usage="%(prog)s SOURCE [options] [-- FLAGS OF train_motivated.py]",
        description="Measure loss, top-1 and top-5 of both models of a run on its validation data, or on others.",
        epilog="Flags after -- go over the options of the run, such as --crop-pct 1 --amp.",
    )
    add_source_flags(parser)
    FLAGS["data_dir"].add_to(parser)
    size = parser.add_mutually_exclusive_group()
    for place_of, flag in (
        (parser, Flag("--dataset", str, "another data set, named as for train_motivated.py", metavar="KIND/NAME")),
        (parser, Flag("--split", str, "another split; default that of the run, or its fold")),
        (size, Flag("--img-size", int, "side of the images; default as in the run", metavar="PX", allowed=at_least(1))),
        (size, Flag("--input-size", int, "size of the images", nargs=3, metavar=("C", "H", "W"), allowed=at_least(1))),
        (parser, Flag("--json", str, "write the figures in full precision", metavar="FILE")),
    ):
        flag.add_to(place_of)
    return parser


@dataclass(frozen=True)
class Measured:
    """The figures of one model.

    Attributes:
        saved: the model.
        metrics: ``loss``, ``top1`` and ``top5``.
    """

    saved: SavedModel
    metrics: Metrics

    @property
    def is_as_recorded(self) -> bool:
        """Return True if all figures are the run's own, bit for bit."""
        return self.metrics == self.saved.recorded


@dataclass(frozen=True)
class Validation:
    """The figures of all models of a source, and what they were measured on."""

    source: Source
    device: torch.device
    images: int | None
    input_size: tuple[int, ...]
    measured: list[Measured]

    @property
    def _part(self) -> str:
        args = self.source.args
        return str(args.val_split) if args.folds is None else f"fold {args.fold} of {args.folds}"

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for other programs; numbers that are not finite are None."""
        args = self.source.args
        return {
            "source": str(self.source.path),
            "dataset": args.dataset,
            "data_dir": data_folder(args),
            "split": self._part,
            "images": self.images,
            "input_size": list(self.input_size),
            "device": str(self.device),
            **{
                one.saved.role.value: {
                    "model": one.saved.name,
                    "weights": one.saved.weights,
                    **{name: value if math.isfinite(value) else None for name, value in one.metrics.items()},
                }
                for one in self.measured
            },
        }

    def text(self, is_own: bool) -> str:
        """Return the figures as a table.

        Args:
            is_own: True if they were measured as the run measured them, so that its own belong beside them.
        """
        args = self.source.args
        data = args.dataset or data_folder(args)
        count = "images" if self.images is None else f"{self.images:,} images"
        size = " x ".join(map(str, self.input_size))
        rows = [["", "model", "weights", "loss", "top-1", "top-5"]]
        compared = [one for one in self.measured if is_own and one.saved.recorded]
        for one in self.measured:
            rows.append([one.saved.role.value, one.saved.name, one.saved.weights, *_figures(one.metrics)])
            if one in compared and not one.is_as_recorded:
                rows.append(["", "", "as the run recorded", *_figures(one.saved.recorded)])
        lines = [f"{data}, {self._part}: {count} of {size}, on {self.device}", "", text_table(rows)]
        if compared and all(one.is_as_recorded for one in compared):
            lines += ["", "The run recorded the same, to the last bit."]
        return "\n".join(lines)


def _figures(metrics: Metrics) -> list[str]:
    return [f"{metrics[name]:.{digits}f}" if name in metrics else "-" for name, digits in METRICS.items()]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures.

    Raises:
        InputError: the models or the data cannot be used.
    """
    words, further = split_words(argv)
    own = make_parser().parse_args(words)
    given = given_options(further)
    given = read_configs(given.pop("config", []), training_parser()) | given
    _, faults = load_plugins(given.get("motivation_plugins", []))
    if faults:
        raise StartupError([Fault("--motivation-plugins", fault) for fault in faults])
    if own.json:
        refuse_run_file(Path(own.json).resolve())
    source = find_source(own.source, own.best, own.trust)
    changes = given | _changes(own, source.args)
    refuse_strange_data(source.args, changes, own)
    for saved in source.models:
        vars(saved.args).update(changes)
    if changes.keys() & {"dataset", "val_split"} and "folds" not in changes:
        source.args.folds = None
    found = validate(source, own, "val_input_size" in changes)
    if own.json:
        with writing(Path(own.json)):
            Path(own.json).write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
    print_text(found.text(is_own=not changes))
    return 0


def _changes(own: Namespace, args: Namespace) -> dict[str, Any]:
    """Return the options that the command's own flags change, but for those of device and speed."""
    size = own.input_size or (own.img_size and [channels(args), own.img_size, own.img_size])
    changes = {"data_dir": own.data_dir, "dataset": own.dataset, "val_split": own.split, "val_input_size": size}
    return {name: value for name, value in changes.items() if value is not None}


def refuse_strange_data(args: Namespace, changes: dict[str, Any], own: Namespace) -> None:
    """Leave out what the data of a stranger's run would fetch or run.

    Args:
        args: options of the run, which are changed.
        changes: what the user has said of them.
        own: the command's flags.

    Raises:
        RunError: there would be nothing left to read.
    """
    if own.trust:
        return
    if "dataset" not in changes and args.dataset.lower().partition("/")[0] in FETCHED:
        raise RunError(f"{own.source} names the data set {args.dataset}: repeat it with --dataset, or give --trust")
    if "class_map" not in changes and args.class_map.lower().endswith(".pkl"):
        raise RunError(f"{own.source} names the class map {args.class_map}, which may hold code; give --trust")
    args.dataset_download = args.dataset_trust_remote_code = False
    args.device_modules = None


def validate(source: Source, own: Namespace, is_resized: bool) -> Validation:
    """Measure the models of a source.

    Args:
        source: the saved models.
        own: the command's flags.
        is_resized: True if the images are of another size than in the run.

    Raises:
        InputError: the models or the data cannot be used.
    """
    args = source.args
    _require_data(args, own)
    models = load_models(source)
    config = evaluation_config(args, own.source)
    size = tuple(args.val_input_size or config["input_size"])
    runtime = start(own, args)
    first: Any = next(iter(models.values()))
    patches, classes = patch_size(first), first.num_classes
    dataset, notes = open_validation(args, config["input_size"], classes)
    for note in (*dict.fromkeys(notes), *compare_classes(dataset, source.label_names, args)):
        print_text(f"note: {note}", sys.stderr)
    validator = make_validator(args, runtime, config, patches, classes, dataset)
    measured = []
    try:
        with showing_progress(), telling_data_errors():
            for saved in source.models:
                model = models.pop(saved.role)  # so that one is in memory at a time
                if is_resized:
                    resize(model, size)
                metrics = validator.validate(place(model, args, runtime), LABELS[saved.role.value])
                measured.append(Measured(saved, metrics))
    finally:
        end_workers(validator.loader)
    count = len(dataset) if isinstance(dataset, Sized) else None
    return Validation(source, runtime.device, count, size, measured)


def _require_data(args: Namespace, own: Namespace) -> None:
    folder = data_folder(args)
    if not (args.dataset or folder):
        raise InputError(f"{own.source} does not say which data it is for: give --data-dir or --dataset")
    if not args.val_split and args.folds is None:
        raise InputError(f"{own.source} was not validated: give the name of a split with --split")
    if (fault := data_folder_fault(args)) is not None:
        raise StartupError([fault])
    is_folder = folder and reads_files(args.dataset) and os.path.isdir(folder)
    if folder and is_folder and own.split and split_root(folder, own.split) == folder:  # timm would read all of it
        raise InputError(f"--split: {folder} has no {own.split}; it has {named(entries(Path(folder)))}")


def resize(model: Any, size: tuple[int, ...]) -> None:
    """Make a model for images of another size, where it is made for one, and try it on one.

    Raises:
        StartupError: it takes no images of this size.
    """
    with blaming("--img-size", size[-1]):
        if hasattr(model, "set_input_size"):
            model.set_input_size(img_size=size[-2:])
    with blaming("--img-size", size[-1]), torch.inference_mode():
        nn.Module.__call__(model, torch.zeros(1, *size))


def compare_classes(dataset: Any, names: list[str] | None, args: Namespace) -> list[str]:
    """Compare the numbers of classes in the data with those that the models were trained with.

    Returns:
        What a user should know.

    Raises:
        StartupError: a class has another number.
    """
    there = label_names(dataset)
    if not there or not names or there == names:
        return []
    numbers = {name: number for number, name in enumerate(names)}
    if not set(there) & numbers.keys():
        return [f"The classes of the data ({named(there)}) have other names than the run's ({named(names)})."]
    for number, name in enumerate(there):
        if name in numbers and numbers[name] != number:
            text = (
                f"class {name!r} has the number {number} here and {numbers[name]} in the run; after --, give "
                "--class-map FILE with the run's classes, one a line"
            )
            raise StartupError([Fault("--data-dir", text, data_folder(args) or args.dataset)])
    return []
