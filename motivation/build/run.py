"""One `Run` from the options."""

from __future__ import annotations

import logging
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from timm.models import safe_model_name
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import unwrap_model

from motivation.build import learners as make
from motivation.build.feasible import model_faults, open_datasets
from motivation.build.loaders import Data, make_loaders
from motivation.build.runtime import Runtime, start_runtime
from motivation.checkpoint import OUR_KEY, Saver, read_checkpoint, timm_contents
from motivation.checks import StartupError, blaming, option_faults
from motivation.conditions import Condition, Never, make_condition
from motivation.cost import forward_flops
from motivation.hooks import Hook, HookList
from motivation.judge import Judge
from motivation.learner import Learner, UpdateRule
from motivation.logging.console import ConsoleLog, ProgressBar, on_terminal
from motivation.logging.csv_files import SummaryCsv, UpdatesCsv, WandbLog
from motivation.loop import Clock, Run
from motivation.random_states import forked_random_states, random_states, set_random_states
from motivation.records import Role
from motivation.switcher import Switcher
from weight_maps import Link, WeightMap, find_map, leading, shapes_of

_logger = logging.getLogger("train")


def build_run(args: Namespace, args_text: str) -> Run:
    """Make everything a run needs, in timm's order.

    Args:
        args: options; what they leave open (``lr``, ``num_classes``, ``device``) is filled in.
        args_text: for ``args.yaml``.

    Raises:
        StartupError: the options cannot be run; all reasons that can be known together are listed.
    """
    faults = option_faults(args)
    if any(fault.startswith("--device") for fault in faults):
        raise StartupError(faults)
    runtime = start_runtime(args)
    faults += model_faults(args)
    datasets = open_datasets(args, faults)
    if faults:
        raise StartupError(faults)
    return _build(args, args_text, runtime, datasets)


def _build(args: Namespace, args_text: str, runtime: Runtime, datasets: tuple[Any, Any]) -> Run:
    with blaming("--model"):
        base_model = make.make_model(args, Role.BASE)
    if args.num_classes is None:
        args.num_classes = base_model.num_classes
    make.announce(base_model, args.model, runtime)
    config = resolve_data_config(vars(args), model=base_model, verbose=runtime.primary)
    patch_size = make.patch_size(base_model)
    base_model = make.place_model(base_model, args, runtime)
    with blaming("data options"):
        data = make_loaders(args, runtime, config, patch_size, *datasets)
    make.resolve_lr(args, runtime, data.reference_batch)
    rule = make.make_rule(args, runtime, data.reference_batch)

    loss = make.make_loss(args, data.mixes, runtime.device)
    with blaming("distillation options"):
        task = make.make_task(base_model, loss, args, runtime)
    with blaming(f"--opt {args.opt}"):
        optimizer = make.make_optimizer(task.get_trainable_module(), args, runtime)
    with blaming(f"--resume {args.resume}"):
        resumed, resume_epoch = _resume_base(task, optimizer, args, runtime)
        if args.model_ema:
            make.add_ema(task, args)
            if args.resume:
                load_task_ema_checkpoint(task, args.resume)
    make.finish_task(task, args, runtime)

    ranking = args.eval_metric if data.evaluator is not None else "loss"
    updates = data.feed.updates_per_epoch
    with blaming(f"--sched {args.sched}"):
        schedule, epochs = make.make_schedule(optimizer, args, updates, ranking == "loss")
    base = Learner(Role.BASE, task, optimizer, schedule, rule)

    condition: Condition = Never()
    switcher, flops = Switcher(base), None
    if args.motivated_model:
        with forked_random_states(), blaming(f"--motivated-model {args.motivated_model}"):
            condition = make_condition(args.motivation_condition, args.motivation_k)
            motivated, weights_map = _make_motivated(base, args, runtime, rule, loss, updates, ranking == "loss")
            switcher = Switcher(base, motivated, weights_map, args.motivation_bn)
            flops = {
                learner.role: forward_flops(_plain_model(learner), tuple(config["input_size"]))
                for learner in switcher.learners
            }

    judge = Judge(
        switcher=switcher,
        evaluator=data.evaluator,
        judges_motivated=args.motivated_eval == "synced",
        judges_ema=not args.model_ema_force_cpu,
        dist_bn=args.dist_bn,
        world_size=runtime.world_size,
        recalibration=data.recalibration,
        model_dtype=runtime.dtype,
    )
    run = Run(
        switcher=switcher,
        condition=condition,
        feed=data.feed,
        clock=Clock([learner.schedule for learner in switcher.learners if learner.schedule is not None], updates),
        hooks=HookList(),
        judge=judge,
        savers={},
        start_epoch=args.start_epoch if args.start_epoch is not None else resume_epoch or 0,
        epochs=epochs,
        val_interval=args.val_interval,
        recovery_interval=args.recovery_interval,
        world_size=runtime.world_size,
        ranking=ranking,
        device=runtime.device,
        flops=flops,
    )
    if runtime.primary:
        _add_outputs(run, args, args_text, config)
    with blaming(f"--resume {args.resume}"):
        _restore(run, resumed, args, runtime)
    _start_schedules(run, args)
    _announce_plan(run, args, data, runtime)
    return run


def _plain_model(learner: Learner) -> Any:
    return unwrap_model(learner.task.get_eval_model())


def _make_motivated(
    base: Learner,
    args: Namespace,
    runtime: Runtime,
    rule: UpdateRule,
    loss: torch.nn.Module,
    updates: int,
    decreasing: bool,
) -> tuple[Learner, WeightMap]:
    model = make.make_model(args, Role.MOTIVATED)
    make.announce(model, args.motivated_model, runtime)
    model = make.place_model(model, args, runtime)
    task = make.make_task(model, loss, args, runtime, teacher=getattr(base.task, "teacher", None))
    optimizer = make.make_optimizer(task.get_trainable_module(), args, runtime)
    if args.model_ema:
        make.add_ema(task, args)
    weights_map = task_map(args.model, args.motivated_model, base.task, task)
    make.finish_task(task, args, runtime)
    schedule, _ = make.make_schedule(optimizer, args, updates, decreasing)
    return Learner(Role.MOTIVATED, task, optimizer, schedule, rule), weights_map


def task_map(base_name: str, motivated_name: str, base_task: Any, motivated_task: Any) -> WeightMap:
    """The models' map in the names of the tasks' trainable modules.

    Feature distillation trains the model as a child ``student`` beside a projection; where both tasks have one, the
    base's is the leading slice of the motivated model's.
    """
    base, motivated = unwrap_model(base_task.get_eval_model()), unwrap_model(motivated_task.get_eval_model())
    weights_map = find_map(base_name, motivated_name, base, motivated)
    whole = unwrap_model(base_task.get_trainable_module())
    if whole is base:
        return weights_map
    prefix = next(f"{name}." for name, child in whole.named_children() if child is base)
    weights_map = weights_map.prefixed(prefix)
    small = shapes_of(whole)
    large = shapes_of(unwrap_model(motivated_task.get_trainable_module()))
    links, unmapped = list(weights_map.links), dict(weights_map.unmapped)
    for name, shape in small.items():
        if name.startswith(prefix):
            continue
        if name in large and all(a <= b for a, b in zip(shape, large[name], strict=True)):
            links.append(Link(name, name, leading(shape)))
        else:
            unmapped[name] = "the motivated model has no such projection"
    return WeightMap(tuple(links), unmapped)


def _resume_base(task: Any, optimizer: Any, args: Namespace, runtime: Runtime) -> tuple[dict[str, Any], int | None]:
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


def _restore(run: Run, ours: dict[str, Any], args: Namespace, runtime: Runtime) -> None:
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


def _start_schedules(run: Run, args: Namespace) -> None:
    """Move the schedules to the first epoch."""
    if run.start_epoch == 0:
        return
    for schedule in run.clock.schedules:
        if args.sched_on_updates:
            schedule.step_update(run.start_epoch * run.clock.updates_per_epoch)
        else:
            schedule.step(run.start_epoch)


def _add_outputs(run: Run, args: Namespace, args_text: str, config: dict[str, Any]) -> None:
    """The run's folder, its checkpoints and logs; on the primary rank only."""
    name = args.experiment or "-".join(
        [datetime.now().strftime("%Y%m%d-%H%M%S"), safe_model_name(args.model), str(config["input_size"][-1])]
    )
    folder = Path(args.output or "./output/train") / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.yaml").write_text(args_text)
    run.folder = folder
    decreasing = run.ranking == "loss"
    for learner in run.switcher.learners:
        place = folder if learner.role is Role.BASE else folder / learner.role.value
        place.mkdir(exist_ok=True)
        run.savers[learner.role] = Saver(place, _contents(run, learner, args), decreasing, args.checkpoint_hist)

    hooks: list[Hook] = [
        ConsoleLog(args.log_interval, folder if args.save_images else None),
        UpdatesCsv(folder / "updates.csv", run.start_epoch),
        SummaryCsv(folder / "summary.csv", run.start_epoch, run.flops),
    ]
    if on_terminal():
        hooks.append(ProgressBar())
    if args.log_wandb:
        hooks += _wandb_hooks(args, name, run)
    run.hooks = HookList(hooks)


def _contents(run: Run, learner: Learner, args: Namespace) -> Any:
    arch = make.model_name(args, learner.role)

    def contents(epoch: int, metric: float | None, update: int | None = None) -> dict[str, Any]:
        state = timm_contents(learner, args, arch, epoch, metric)
        if learner.role is Role.BASE:
            state[OUR_KEY] = {
                "format": 1,
                "update": update,
                "switcher": run.switcher.state_dict(),
                "condition": run.condition.state_dict(),
                "savers": {role.value: saver.state_dict() for role, saver in run.savers.items()},
                "running_statistics": run.judge.running_statistics,
                "random": random_states(),
            }
        return state

    return contents


def _wandb_hooks(args: Namespace, name: str, run: Run) -> list[Hook]:
    try:
        import wandb
    except ImportError:
        _logger.warning("--log-wandb: the package wandb is not installed, so nothing is logged to it.")
        return []
    wandb.init(
        project=args.wandb_project,
        name=name,
        config=vars(args),
        tags=args.wandb_tags,
        resume="must" if args.wandb_resume_id else None,
        id=args.wandb_resume_id or None,
    )
    return [WandbLog(wandb.log, run.flops)]


def _announce_plan(run: Run, args: Namespace, data: Data, runtime: Runtime) -> None:
    if not runtime.primary:
        return
    unit = "update" if args.sched_on_updates else "epoch"
    _logger.info(f"{run.epochs} epochs of {run.clock.updates_per_epoch} updates; the learning rate moves per {unit}.")
    share = run.condition.expected_share
    if run.switcher.motivated is None or share is None:
        return
    total = run.epochs * run.clock.updates_per_epoch
    _logger.info(f"About {share * total:.0f} of {total} updates should be motivated (share {share:.4f}).")
    if 0 < share < 0.01:
        _logger.warning(
            "With fewer than 1 % motivated updates the differential part hardly trains; a smaller --motivation-k "
            "trains it more."
        )
