"""Files and folders that the options name: whether those to read are there, and whether the run's can be written."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

FILES_OF_A_RUN = ("args.yaml", "result.json", "summary.csv", "updates.csv", "last.pth.tar", "model_best.pth.tar")
RESUME_NEWEST = "auto"
"""Value of ``--resume`` for the newest whole checkpoint of the experiment."""


def file_faults(args: Namespace) -> Iterator[str]:
    """A line for each file that is missing and each place that cannot be written; nothing is opened or made."""
    for flag, path in (
        ("--resume", "" if args.resume == RESUME_NEWEST else args.resume),
        ("--initial-checkpoint", args.initial_checkpoint),
        ("--pretrained-path", args.pretrained_path),
        ("--motivated-initial-checkpoint", args.motivated_initial_checkpoint if args.motivated_model else ""),
    ):
        if path and not os.path.isfile(path):
            yield f"{flag}: there is no file {path}"
    if args.resume == RESUME_NEWEST and not args.experiment:
        yield "--resume auto: give --experiment, the name of the run to go on with"
    if args.resume == RESUME_NEWEST and args.start_epoch is not None:
        yield "--start-epoch: not with --resume auto, which would begin there again each time"
    if args.resume == RESUME_NEWEST and args.no_resume_opt:
        yield "--no-resume-opt: not with --resume auto, which would lose the optimizer's state each time"
    yield from _data_faults(args)
    yield from _output_faults(args)


def _output_faults(args: Namespace) -> Iterator[str]:
    if "\0" in f"{args.output}{args.experiment}":
        yield "--output: a folder's name has no null characters"
        return
    folder = Path(args.output or "./output/train").absolute()
    run = folder / args.experiment
    try:
        existing = next(place for place in (run, *run.parents) if place.exists())
    except OSError as error:
        yield f"--output: {run} cannot be written: {error.strerror}"
        return
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        inside = existing != folder and folder in existing.parents
        why = "" if existing.is_dir() else f": {existing} is a file"
        yield f"--experiment: {run} cannot be written{why}" if inside else f"--output: {folder} cannot be written{why}"
    if not args.experiment:
        return  # the run's folder will be a new one
    in_the_way = [f"{run / name} is a folder" for name in FILES_OF_A_RUN if (run / name).is_dir()]
    if args.motivated_model and (run / "motivated").is_file():
        in_the_way.append(f"{run / 'motivated'} is a file")
    if in_the_way:
        yield f"--experiment: the run cannot be written, {', '.join(in_the_way)}; move it away"


def _data_faults(args: Namespace) -> Iterator[str]:
    kind = args.dataset.partition("/")[0].lower() if "/" in args.dataset else ""
    folder = args.data_dir or args.data
    if kind in ("sklearn", "hfds", "hfids", "tfds", "wds"):
        return
    if not folder:
        yield "--data-dir: say where the data are"
    elif not os.path.exists(folder):
        if not args.dataset_download:
            yield f"--data-dir: there is no folder {folder}"
    elif not kind and os.path.isdir(folder):
        yield from _split_faults(args, Path(folder))


def _split_faults(args: Namespace, folder: Path) -> Iterator[str]:
    """Where one split is a folder and the other is not, timm would read all of ``folder`` for the latter."""
    from timm.data.dataset_factory import _search_split

    splits = {"--train-split": args.train_split, "--val-split": args.val_split if args.folds is None else None}
    found = {flag: _search_split(str(folder), name) != str(folder) for flag, name in splits.items() if name}
    if any(found.values()):
        there = ", ".join(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())) or "nothing"
        for flag, is_there in found.items():
            if not is_there:
                yield f"{flag}: {folder} has no split {splits[flag]!r}; it has {there}"
