"""Start an evaluation of saved models (``validate``, ``predict``): flags, device, models placed as in a training."""

from __future__ import annotations

import importlib
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motivation.build.models import place_model
from motivation.build.ranks import Ranks
from motivation.build.runtime import Runtime, start_runtime
from motivation.data.loaders import DataError
from motivation.data.workers import dead_worker_text
from motivation.errors import InputError
from motivation.method.records import Role
from motivation.options.derived import AUTO_DEVICE
from motivation.options.faults import blaming
from motivation.options.flag_types import Flag, at_least, between
from motivation.tools.saved_models import Source


def add_source_flags(parser: ArgumentParser) -> None:
    """Add the flags that say which models, and how they are run."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="folder of a run (timm's own too), one of its checkpoint files, or an exported folder",
    )
    parser.add_argument("--best", action="store_true", help="the best checkpoint of a run instead of the last one")
    parser.add_argument("--trust", action="store_true", help="let a run name code and data to load: it is your own")
    default = "default as in the run"
    for flag in (
        Flag("--device", str, "cuda, cpu, mps, ...; default the CPU for a run on one, else what there is"),
        Flag("-b --batch-size", int, f"images of a batch; {default}", allowed=at_least(1)),
        Flag("-j --workers", int, f"processes that read images; {default}", allowed=between(0, 1024)),
    ):
        flag.add_to(parser)


def start(own: Namespace, args: Namespace) -> Runtime:
    """Choose the device and precision, as a training with these options does.

    Args:
        own: the command's flags; they go over the options.
        args: options of the training, which are changed.

    Raises:
        StartupError: the device is not there.
        InputError: there are several processes.
    """
    for module in args.device_modules or ():
        with blaming("--device-modules", module):
            importlib.import_module(module)
    args.device = own.device or ("cpu" if args.device == "cpu" else AUTO_DEVICE)
    if own.batch_size is not None:
        args.validation_batch_size = own.batch_size
    if own.workers is not None:
        args.workers = own.workers
    ranks = Ranks()
    ranks.require_launcher()
    if ranks.world_size > 1:
        raise InputError("this command is one process: start it without torchrun or srun")
    return start_runtime(args, ranks)


def load_models(source: Source) -> dict[Role, nn.Module]:
    """Make the models of a source, on the CPU.

    Raises:
        InputError: one cannot be made, or its weights do not fit; or they do not have the same classes.
    """
    models: dict[Role, Any] = {saved.role: saved.load() for saved in source.models}
    classes = {role.value: model.num_classes for role, model in models.items()}
    if len(set(classes.values())) > 1:
        listing = " and ".join(f"{count} (the {role})" for role, count in classes.items())
        raise InputError(f"{source.path} has models of {listing} classes")
    return models


def place(model: nn.Module, args: Namespace, runtime: Runtime) -> Any:
    """Bring a model to its device, dtype and layout, and compile it where the training did."""
    model = place_model(model, args, runtime).eval()
    if args.torchcompile:
        return torch.compile(model, backend=args.torchcompile, mode=args.torchcompile_mode)
    return model


@contextmanager
def telling_data_errors() -> Iterator[None]:
    """Turn images and labels that cannot be used, and the end of a worker, into an `InputError`."""
    try:
        yield
    except RuntimeError as error:
        text = dead_worker_text(error) or (str(error) if isinstance(error, DataError) else None)
        if text is None:
            raise
        raise InputError(text) from error


@contextmanager
def showing_progress() -> Iterator[None]:
    """Show the log lines of an evaluation on standard error."""
    logger, handler = logging.getLogger("train"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
