"""Try an update of both models on a blank batch before the training, where there is a device with memory of its own."""

from __future__ import annotations

import logging
import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch

from motivation.build.runtime import Runtime
from motivation.data.update_loader import MicroBatch
from motivation.method.conditions import Never
from motivation.method.pair import MotivatedPair
from motivation.method.records import Role
from motivation.options.derived import accum_steps, mixes
from motivation.options.faults import Fault, StartupError
from motivation.training.learner import Learner
from motivation.training.trial import peak_memory_of_update

_logger = logging.getLogger("train")


def needs_trial(pair: MotivatedPair[Learner], device: torch.device) -> bool:
    """Return True if a model that is not trained from the start on may lack memory or has to be compiled then."""
    return device.type != "cpu" and not isinstance(pair.condition, Never)


def blank_batch(
    args: Namespace, runtime: Runtime, input_size: Sequence[int], num_classes: int, loader: Any
) -> MicroBatch:
    """Make a micro-batch of zeros, in the largest shape that the training has.

    Args:
        args: options.
        runtime: of this rank.
        input_size: ``(C, H, W)`` of the images, unless their sizes vary.
        num_classes: outputs of the models' heads.
        loader: of the training; it has the batch sizes of images of varying size.
    """
    shape = (args.batch_size, *input_size)
    if args.train_img_sizes is not None:
        batches = zip(loader.batch_sampler.batch_sizes, args.train_img_sizes, strict=True)
        shape = max(((count, input_size[0], side, side) for count, side in batches), key=math.prod)
    count = shape[0] * max(1, args.aug_splits)
    images = torch.zeros((count, *shape[1:]), dtype=runtime.dtype or torch.float32, device=runtime.device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    if mixes(args):
        targets = torch.full((count, num_classes), 1 / num_classes, device=runtime.device)
    else:
        targets = torch.zeros(count, dtype=torch.long, device=runtime.device)
    return MicroBatch(images, targets, accum_steps(args), is_last=True, index=0)


def try_updates(learners: Sequence[Learner], batch: MicroBatch, args: Namespace, runtime: Runtime) -> None:
    """Try an update of each model and log the memory that it takes.

    Raises:
        StartupError: there is not enough memory for one.
    """
    peaks = []
    for learner in learners:
        try:
            peak = peak_memory_of_update(learner, batch)
        except RuntimeError as error:  # MPS and Ascend have no class of their own for it
            if "out of memory" not in str(error):
                raise
            name = args.model if learner.role is Role.BASE else args.motivated_model
            text = (
                f"an update of the {learner.role.value} model {name} does not fit into the memory of {runtime.device}; "
                "give a smaller one with more --grad-accum-steps, or --grad-checkpointing"
            )
            raise StartupError([Fault("--batch-size", text, args.batch_size)]) from error
        if peak is not None:
            peaks.append(f"{learner.role.value} {peak / 1e9:.2f} GB")
    if peaks and runtime.primary:
        listing = ", ".join(peaks)
        _logger.info(f"Peak memory of an update on {runtime.device}, without the optimizer's state: {listing}.")
