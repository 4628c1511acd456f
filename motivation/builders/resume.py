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
from motivation.conditions import needs_of
from motivation.loop import Run
from motivation.random_states import set_random_states
from motivation.records import EpochRecord

_logger = logging.getLogger("train")


def resume_base(task: Any, optimizer: Any, args: Namespace, runtime: Runtime) -> tuple[dict[str, Any], int | None]:
    """Load ``--resume`` into the base; returns our own part of the file and the epoch to go on with.

    Raises:
        ValueError: the file does not fit the options.
    """
    if not args.resume:
        return {}, None
    contents = read_checkpoint(args.resume)
    _refuse_other_optimizer(contents, args)
    _refuse_other_options(contents, args)
    _tell_changes(contents, args, runtime)
    if runtime.scaler is not None and not args.no_resume_opt and "amp_scaler" in contents:
        runtime.scaler.load_state_dict(contents["amp_scaler"])
    try:
        epoch = resume_task_checkpoint(
            task, args.resume, optimizer=None if args.no_resume_opt else optimizer, log_info=runtime.primary
        )
    except (RuntimeError, ValueError) as error:
        arch = contents.get("arch", args.model)
        why = f"it is of {arch}, --model is {args.model}" if arch != args.model else " ".join(str(error).split())[:300]
        raise ValueError(f"the checkpoint does not fit: {why}") from error
    ours = {**contents.get(OUR_KEY, {}), "metric": contents.get("metric")} if OUR_KEY in contents else {}
    if ours.get("update") is not None:
        epoch = contents["epoch"]
        _warn(runtime, f"{args.resume} was written inside epoch {epoch}: that epoch is trained again from its start.")
    return ours, epoch


def _refuse_other_optimizer(contents: dict[str, Any], args: Namespace) -> None:
    trained_with = getattr(contents.get("args"), "opt", args.opt)
    if trained_with != args.opt and not args.no_resume_opt:
        raise ValueError(
            f"it was trained with --opt {trained_with}, this run has --opt {args.opt}; give that, or --no-resume-opt"
        )


def _refuse_other_options(contents: dict[str, Any], args: Namespace) -> None:
    """A map puts the base where it was trained; images that were trained on must not come to judge."""
    trained = contents.get("args")
    if trained is None:
        return
    must_agree: dict[str, Any] = {"folds": None, "fold": None}
    if args.folds is not None:
        must_agree["seed"] = args.seed  # it makes the folds
    if args.motivated_model and getattr(trained, "motivated_model", None):
        must_agree |= {"motivation_map": None, "motivation_placement": "paper"}
        if "validation_loss" in needs_of(args.motivation_condition):
            must_agree |= {"seed": args.seed, "motivation_valloss_images": None}
            if args.motivation_valloss_images is None:
                must_agree["batch_size"] = args.batch_size  # so many images are held out
    for name, default in must_agree.items():
        before, now = getattr(trained, name, default), getattr(args, name)
        if before != now:
            option = "--" + name.replace("_", "-")
            with_it = f"no {option}" if before is None else f"{option} {before}"
            raise ValueError(
                f"it was trained with {with_it}, this run has {'none' if now is None else now}; they must agree"
            )


MAY_CHANGE = (
    "motivation_k",
    "motivation_ema_decay",
    "motivation_ema_drop",
    "motivation_bn",
    "motivation_plugin_kwargs",
)
"""Options of the method that a resume may change; it says so."""


def _tell_changes(contents: dict[str, Any], args: Namespace, runtime: Runtime) -> None:
    trained = contents.get("args")
    if not args.motivated_model or not getattr(trained, "motivated_model", None):
        return
    for name in MAY_CHANGE:
        now = getattr(args, name)
        if (before := getattr(trained, name, now)) != now:
            _warn(runtime, f"--{name.replace('_', '-')} was {before} in {args.resume}; from here it is {now}.")


def restore(run: Run, ours: dict[str, Any], args: Namespace, runtime: Runtime) -> None:
    """Put back what timm does not save: the motivated learner, condition, best metric, random states."""
    if not ours:
        return
    switcher, with_optimizer = run.switcher, not args.no_resume_opt
    if switcher.motivated is not None and "motivated" in ours["switcher"]:
        trained = ours["models"]["motivated"]
        if trained != args.motivated_model:
            raise ValueError(f"its motivated model is {trained}, --motivated-model is {args.motivated_model}")
        switcher.load_state_dict(ours["switcher"], with_optimizer)
        if ours["update"] is not None:
            switcher.counts.load_state_dict(ours["epoch_counts"])
        _restore_condition(run, ours["condition"], runtime)
    elif switcher.motivated is not None:
        _warn(runtime, f"{args.resume} is of a plain run: the motivated model starts afresh.")
    for key, statistics in ours["running_statistics"].items():
        role, _, ema = key.partition(":")
        for learner in switcher.sides:
            if learner.role.value == role and (not ema or learner.ema is not None):
                _load_buffers(unwrap_model(learner.eval_model(ema=bool(ema))), statistics)
    records = (EpochRecord.from_state(state) for state in ours["epochs"])
    run.records += [record for record in records if record.epoch < run.start_epoch]
    run.hooks.load_state_dict(ours["hooks"])
    for role, saver in run.savers.items():
        if role.value in ours["savers"]:
            saver.load_state_dict(ours["savers"][role.value])
    if with_optimizer and runtime.primary:
        set_random_states(ours["random"])


def _restore_condition(run: Run, saved: dict[str, Any], runtime: Runtime) -> None:
    if saved["name"] == run.condition.name:
        run.condition.load_state_dict(saved["state"])
    else:
        _warn(
            runtime, f"The checkpoint's motivation condition was {saved['name']}; from here it is {run.condition.name}."
        )


def restore_schedules(run: Run, ours: dict[str, Any], args: Namespace) -> None:
    """Move the schedules to the first epoch; both models then have the base's learning rate."""
    if run.start_epoch:
        for schedule in run.clock.schedules:
            if args.sched_on_updates:
                schedule.step_update(run.start_epoch * run.clock.updates_per_epoch)
            else:
                schedule.step(run.start_epoch)
    plateau = ours.get("plateau") if not args.no_resume_opt else None
    if plateau:
        run.clock.load_plateau_state([plateau[0]] * len(run.clock.schedules))
        if ours["update"] is None:
            run.clock.end_epoch(run.start_epoch - 1, ours["metric"])
    if run.switcher.motivated is not None:
        groups = run.switcher.base.optimizer.param_groups
        for index, group in enumerate(run.switcher.motivated.optimizer.param_groups):
            group["lr"] = groups[min(index, len(groups) - 1)]["lr"]


def _warn(runtime: Runtime, message: str) -> None:
    if runtime.primary:
        _logger.warning(message)


@torch.no_grad()
def _load_buffers(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    buffers = dict(module.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)
