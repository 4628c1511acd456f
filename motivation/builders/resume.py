"""Going on from a checkpoint: timm's part of it, and ours."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

import torch
from timm.task import resume_task_checkpoint
from timm.utils import unwrap_model

from motivation.builders.runtime import Runtime
from motivation.checkpoint import OUR_KEY, read_checkpoint
from motivation.loop import Run
from motivation.random_states import set_random_states

_logger = logging.getLogger("train")


def resume_base(task: Any, optimizer: Any, args: Namespace, runtime: Runtime) -> tuple[dict[str, Any], int | None]:
    """Load ``--resume`` into the base; returns our own part of the file and the epoch to go on with."""
    if not args.resume:
        return {}, None
    contents = read_checkpoint(args.resume)
    scaler = None
    if runtime.scaler is not None and not args.no_resume_opt:
        scaler = runtime.scaler
        if "amp_scaler" in contents:
            scaler.load_state_dict(contents["amp_scaler"])
    try:
        epoch = resume_task_checkpoint(
            task, args.resume, optimizer=None if args.no_resume_opt else optimizer, log_info=runtime.primary
        )
    except (RuntimeError, ValueError) as error:
        arch = contents.get("arch", args.model)
        why = f"it is of {arch}, --model is {args.model}" if arch != args.model else " ".join(str(error).split())[:300]
        raise ValueError(f"the checkpoint does not fit: {why}") from error
    ours = contents.get(OUR_KEY, {})
    if ours.get("update") is not None:
        epoch = contents["epoch"]
        if runtime.primary:
            _logger.warning(
                f"{args.resume} was written inside epoch {epoch}: that epoch is trained again from its start."
            )
    return ours, epoch


def restore(run: Run, ours: dict[str, Any], args: Namespace, runtime: Runtime) -> None:
    """Put back what timm does not save: the motivated learner, condition, best metric, random states."""
    if not ours or args.no_resume_opt:
        return
    for key, statistics in ours["running_statistics"].items():
        role, _, ema = key.partition(":")
        for learner in run.switcher.learners:
            if learner.role.value == role:
                module = learner.ema if ema else learner.model
                _load_buffers(unwrap_model(module), statistics)
    has_motivated = run.switcher.motivated is not None
    if has_motivated and "motivated" in ours["switcher"]:
        run.switcher.load_state_dict(ours["switcher"])
        run.condition.load_state_dict(ours["condition"])
    elif has_motivated and runtime.primary:
        _logger.warning(f"{args.resume} is of a plain run: the motivated model starts afresh.")
    for role, saver in run.savers.items():
        if role.value in ours["savers"]:
            saver.load_state_dict(ours["savers"][role.value])
    if runtime.rank == 0:
        set_random_states(ours["random"])


@torch.no_grad()
def _load_buffers(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    buffers = dict(module.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)
