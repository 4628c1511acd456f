"""Going on from a checkpoint: timm's part of it, and ours."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.task import resume_task_checkpoint

from motivation.build.runtime import Runtime
from motivation.method.condition_registry import needs_of
from motivation.method.optimizer_probe import keep_scalars
from motivation.options.checks import StartupError
from motivation.options.file_checks import RESUME_NEWEST
from motivation.training.checkpoint import FORMAT, LAST, OUR_KEY, checkpoints_in, newest_whole, read_checkpoint
from motivation.training.rank_states import load_rank_state, load_statistics
from motivation.training.records import EpochRecord
from motivation.training.run import Run

_logger = logging.getLogger("train")


def find_resumed(args: Namespace, folder: Path, runtime: Runtime) -> None:
    """Put the newest whole checkpoint in the place of ``--resume auto``, the same on all ranks.

    Raises:
        StartupError: there are checkpoints, but none can be read.
    """
    if args.resume != RESUME_NEWEST:
        return
    found = [str(newest_whole(folder) or "") if runtime.primary else ""]
    if runtime.distributed:
        dist.broadcast_object_list(found, src=0, device=runtime.device)
    args.resume = found[0]
    if not args.resume and runtime.primary and (damaged := checkpoints_in(folder)):
        raise StartupError(
            [
                f"--resume auto: none of the {len(damaged)} checkpoints in {folder} can be read (see above), and a new "
                "run would write over them; mend or remove them, or give another --experiment"
            ]
        )
    if runtime.primary:
        _logger.info(f"Resumed from {args.resume}." if args.resume else f"No checkpoint in {folder}: the run begins.")


def resume_base(task: Any, optimizer: Any, args: Namespace, runtime: Runtime) -> tuple[dict[str, Any], int | None]:
    """Load ``--resume`` into the base; returns our own part of the file and the epoch to go on with.

    Raises:
        ValueError: the file does not fit the options.
    """
    if not args.resume:
        return {}, None
    contents = read_checkpoint(args.resume)
    _refuse_damaged(contents)
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
    if not args.no_resume_opt and "optimizer" in contents:
        keep_scalars(optimizer, contents["optimizer"])
    ours = {**contents.get(OUR_KEY, {}), "metric": contents.get("metric")} if OUR_KEY in contents else {}
    if ours and ours.get("format") != FORMAT:
        raise ValueError(f"it is of another version of this program (format {ours.get('format')}, not {FORMAT})")
    if ours.get("update") is not None:
        epoch = contents["epoch"]
    return ours, epoch


def _refuse_damaged(contents: dict[str, Any]) -> None:
    """A part that is not what it is in a training checkpoint."""
    weights = contents.get("state_dict", contents.get("model", contents))
    whole = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not whole or not any(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError("it holds no weights")
    for name, kind in (("epoch", int), ("optimizer", dict), ("args", Namespace), (OUR_KEY, dict)):
        if name in contents and not isinstance(contents[name], kind):
            raise ValueError(f"it is damaged: its {name!r} is a {type(contents[name]).__name__}")


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
    """Put back what timm does not save: the motivated learner, condition, best metric, place, random states."""
    if not ours:
        return
    pair, with_optimizer = run.pair, not args.no_resume_opt
    if pair.motivated is not None and "motivated" in ours["switcher"]:
        trained = ours["models"]["motivated"]
        if trained != args.motivated_model:
            raise ValueError(f"its motivated model is {trained}, --motivated-model is {args.motivated_model}")
        pair.load_turns(ours["switcher"], with_optimizer)
        _restore_condition(run, ours["condition"], runtime)
    elif pair.motivated is not None:
        _warn(runtime, f"{args.resume} is of a plain run: the motivated model starts afresh.")
    else:
        pair.counts.load_state_dict(ours["switcher"]["counts"])
    updates = _place(run, ours, args, runtime)
    if run.feed.resumable is None:
        again = "" if updates is None else ", and are read from the epoch's start to find the place"
        _warn(runtime, f"These data are a stream, or of a loader without a place: they begin anew{again}.")
    if len(ours["ranks"]) == runtime.world_size:
        load_rank_state(run, ours["ranks"][runtime.rank], updates, with_optimizer)
    else:
        load_statistics(run, ours["ranks"][0])
        _warn(runtime, "The random states of the run are not put back: it had another number of processes.")
    records = (EpochRecord.from_state(state) for state in ours["epochs"])
    run.records += [record for record in records if record.epoch < run.start_epoch]
    run.guard.count = ours["nonfinite"]
    run.hooks.load_state_dict(ours["hooks"])
    _restore_stop(run, ours, args, runtime)
    for role, saver in run.savers.items():
        if role.value in ours["savers"]:
            is_last = ours["update"] is None and run.folder is not None and _same_file(args.resume, run.folder / LAST)
            saver.load_state_dict(ours["savers"][role.value], run.start_epoch - 1 if is_last else None)


def _restore_stop(run: Run, ours: dict[str, Any], args: Namespace, runtime: Runtime) -> None:
    """A run that a hook has stopped stays so, as long as there are hooks that may stop it."""
    reason = ours.get("stopped_by")
    if not reason or not run.can_be_stopped or args.start_epoch is not None:
        return
    if run.resumed_mid_epoch:
        run.hooks.stop_reason = reason
    elif ours["update"] is None and run.start_epoch < run.epochs:
        run.stopped_by = reason
        _warn(runtime, f"Nothing to train: a hook has stopped this run after epoch {run.start_epoch - 1}: {reason}")


def _same_file(one: str, other: Path) -> bool:
    return other.exists() and Path(one).samefile(other)


def _place(run: Run, ours: dict[str, Any], args: Namespace, runtime: Runtime) -> int | None:
    """Go to the place that a file was written at; returns the updates done in its epoch, None between epochs."""
    if ours["update"] is None or run.start_epoch != ours["position"][0]:
        return None
    run.epoch_counts.load_state_dict(ours["epoch_counts"])
    before = {"updates_per_epoch": ours["updates_per_epoch"], "processes": len(ours["ranks"])}
    now = {"updates_per_epoch": run.clock.updates_per_epoch, "processes": runtime.world_size}
    batches_now = [args.batch_size, args.grad_accum_steps]
    batches_before = list(ours.get("batches", batches_now))
    if before != now or batches_before != batches_now:
        run.pair.counts.load_state_dict(ours["epoch_counts"])
        run.pair.active = run.pair.base
        _warn(
            runtime,
            f"{args.resume} was written inside epoch {run.start_epoch}, with {before['updates_per_epoch']} updates in "
            f"an epoch, {batches_before[1]} batch(es) of {batches_before[0]} in each, and {before['processes']} "
            f"process(es), now {now['updates_per_epoch']}, {batches_now[1]} of {batches_now[0]} and "
            f"{now['processes']}: that epoch is trained again from its start.",
        )
        return None
    run.resumed_mid_epoch = True
    run.pair.position = ours["position"]
    return run.pair.update


def _restore_condition(run: Run, saved: dict[str, Any], runtime: Runtime) -> None:
    if saved["name"] == run.condition.name:
        run.condition.load_state_dict(saved["state"])
    else:
        _warn(
            runtime, f"The checkpoint's motivation condition was {saved['name']}; from here it is {run.condition.name}."
        )


def restore_schedules(run: Run, ours: dict[str, Any], args: Namespace) -> None:
    """Move the schedules to the first epoch; both models then have the base's learning rate."""
    done = run.start_epoch * run.clock.updates_per_epoch + (run.pair.update if run.resumed_mid_epoch else 0)
    if done:
        for schedule in run.clock.schedules:
            if args.sched_on_updates:
                schedule.step_update(done)
            elif run.start_epoch:
                schedule.step(run.start_epoch)
    plateau = ours.get("plateau") if not args.no_resume_opt else None
    if plateau:
        run.clock.load_plateau_state([plateau[0]] * len(run.clock.schedules))
        if ours["update"] is None:
            run.clock.end_epoch(run.start_epoch - 1, ours["metric"])
    if run.pair.motivated is not None:
        groups = run.pair.base.optimizer.param_groups
        for index, group in enumerate(run.pair.motivated.optimizer.param_groups):
            group["lr"] = groups[min(index, len(groups) - 1)]["lr"]


def _warn(runtime: Runtime, message: str) -> None:
    if runtime.primary:
        _logger.warning(message)
