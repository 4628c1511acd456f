"""Check the files and folders that options name: those to read are there, those of the run can be written."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from motivation.data.splits import entries, likely_splits, named, split_root
from motivation.options.derived import data_folder, output_folder
from motivation.options.faults import Fault

RESUME_NEWEST = "auto"
"""Value of ``--resume`` for the newest whole checkpoint of the experiment."""


def file_faults(args: Namespace) -> Iterator[Fault]:
    """Return a fault for each file that is missing and each place that cannot be written; nothing is opened or made."""
    for flag, path in (
        ("--resume", "" if args.resume == RESUME_NEWEST else args.resume),
        ("--initial-checkpoint", args.initial_checkpoint),
        ("--pretrained-path", args.pretrained_path),
        ("--motivated-initial-checkpoint", args.motivated_initial_checkpoint if args.motivated_model else ""),
    ):
        if path and not os.path.isfile(path):
            yield Fault(flag, f"there is no file {path}")
    if args.resume == RESUME_NEWEST:
        if not args.experiment:
            yield Fault("--resume", "give --experiment, the name of the run to go on with", RESUME_NEWEST)
        if args.start_epoch is not None:
            yield Fault("--start-epoch", "not with --resume auto, which would begin there again each time")
        if args.no_resume_opt:
            yield Fault("--no-resume-opt", "not with --resume auto, which would lose the optimizer's state each time")
    yield from _data_faults(args)
    yield from _output_faults(args)


def _output_faults(args: Namespace) -> Iterator[Fault]:
    folder = output_folder(args).absolute()
    run = folder / args.experiment
    if not Path(os.path.normpath(run)).is_relative_to(os.path.normpath(folder)):
        yield Fault("--experiment", f"it is the name of a folder in {folder}, the --output", args.experiment)
        return
    try:
        existing = next(place for place in (run, *run.parents) if place.exists())
    except OSError as error:
        yield Fault("--output", f"{run} cannot be written: {error.strerror}")
        return
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        why = "" if existing.is_dir() else f": {existing} is a file"
        inside = existing != folder and folder in existing.parents
        flag, place = ("--experiment", run) if inside else ("--output", folder)
        yield Fault(flag, f"{place} cannot be written{why}")


def _data_faults(args: Namespace) -> Iterator[Fault]:
    if (fault := data_folder_fault(args)) is not None:
        yield fault
    elif "/" not in args.dataset and os.path.isdir(data_folder(args) or ""):
        yield from _split_faults(args, Path(data_folder(args) or ""))


def data_folder_fault(args: Namespace) -> Fault | None:
    """Return the fault of a data folder that is not named or not there; None where none is needed."""
    folder = data_folder(args)
    if "/" in args.dataset and args.dataset.partition("/")[0].lower() in ("sklearn", "hfds", "hfids", "tfds", "wds"):
        return None
    if not folder:
        return Fault("--data-dir", "say where the data are")
    if not os.path.exists(folder) and not args.dataset_download:
        where = "" if os.path.isabs(folder) else f" in {os.getcwd()}"
        return Fault("--data-dir", f"there is no folder {folder}{where}")
    return None


def _split_faults(args: Namespace, folder: Path) -> Iterator[Fault]:
    """Return the splits that are no folders although the other one is: timm would read all of ``folder`` for them."""
    splits = {"--train-split": args.train_split, "--val-split": args.val_split if args.folds is None else None}
    found = {flag: split_root(str(folder), name) != str(folder) for flag, name in splits.items() if name}
    if any(found.values()):
        there = entries(folder)
        likely = dict(zip(splits, likely_splits(there), strict=True))
        for flag, is_there in found.items():
            if not is_there:
                advice = f": give {flag} {likely[flag]}" if likely[flag] else ""
                yield Fault(flag, f"{folder} has no split {splits[flag]!r}; it has {named(there, len(there))}{advice}")
