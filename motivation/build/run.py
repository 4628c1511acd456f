"""One `Run` from the options."""

from __future__ import annotations

import logging
from argparse import Namespace
from types import ModuleType
from typing import Any

import torch
from timm.data import resolve_data_config
from timm.utils import unwrap_model

from motivation.build import learners as make
from motivation.build.conditions import build_condition, build_hooks
from motivation.build.datasets import DataSets, open_datasets
from motivation.build.feasible import model_faults, startup_faults
from motivation.build.loaders import make_loaders
from motivation.build.maps import task_map
from motivation.build.outputs import add_outputs, claim_folder, take_folder
from motivation.build.resume import load_base, load_ema, open_resumed, restore
from motivation.build.runtime import Runtime, start_runtime
from motivation.method.pair import MotivatedPair
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.checks import StartupError, blaming
from motivation.training.batchnorm import batchnorms
from motivation.training.evaluate import Evaluator
from motivation.training.finite import NonFiniteLossGuard
from motivation.training.flops import forward_flops
from motivation.training.hooks import HookList, hooks_of
from motivation.training.learner import Learner, UpdateRule
from motivation.training.run import Clock, Run
from weight_maps import WeightMap, map_for

_logger = logging.getLogger("train")


def build_run(args: Namespace, args_text: str) -> Run:
    """Make everything a run needs, in timm's order.

    Args:
        args: options; what they leave open (``lr``, ``num_classes``, ``device``) is filled in.
        args_text: for ``args.yaml``.

    Raises:
        StartupError: the options cannot be run; all reasons that can be known together are listed.
    """
    plugins, faults = startup_faults(args)
    if any(fault.startswith(("--device", "--seed", "--model-dtype")) for fault in faults):
        raise StartupError(faults)  # nothing further can be tried
    with blaming("--device"):
        runtime = start_runtime(args)
    faults += model_faults(args)
    datasets = open_datasets(args, faults)
    if faults:
        raise StartupError(faults)
    return _build(args, args_text, runtime, datasets, plugins)


def _build(args: Namespace, args_text: str, runtime: Runtime, datasets: DataSets, plugins: list[ModuleType]) -> Run:
    condition = build_condition(args)
    with blaming(f"--initial-checkpoint {args.initial_checkpoint}" if args.initial_checkpoint else "--model"):
        base_model = make.make_model(args, Role.BASE)
    if args.num_classes is None:
        args.num_classes = base_model.num_classes
    make.announce(base_model, args.model, runtime)
    with blaming("data options"):
        config = resolve_data_config(vars(args), model=base_model, verbose=runtime.primary)
    folder, lock = claim_folder(args, config, runtime)
    resumed = open_resumed(args, folder, runtime)
    patch_size = make.patch_size(base_model)
    base_model = make.place_model(base_model, args, runtime)
    with blaming("data options"):
        data = make_loaders(args, runtime, config, patch_size, datasets)
    make.resolve_lr(args, runtime, data.reference_batch)
    rule = make.make_rule(args, runtime, data.reference_batch)
    rule.measures_gradients = "gradient_norm" in condition.needs

    loss = make.make_loss(args, data.mixes, runtime.device)
    with blaming("distillation options"):
        task = make.make_task(base_model, loss, args, runtime)
    with blaming(f"--opt {args.opt}"):
        optimizer = make.make_optimizer(task.get_trainable_module(), args, runtime)
    if resumed is not None:
        load_base(resumed, task, optimizer, args, runtime)
    if args.model_ema:
        make.add_ema(task, args)
        if resumed is not None:
            load_ema(resumed, task)
    eval_model = make.finish_task(task, args, runtime)

    ranking = args.eval_metric if data.validator is not None else "loss"
    updates = data.feed.updates_per_epoch
    with blaming(f"--sched {args.sched}"):
        schedule, epochs = make.make_schedule(optimizer, args, updates, ranking == "loss")
    base = Learner(Role.BASE, task, optimizer, schedule, rule, eval_model)

    with blaming(f"--motivation-condition {args.motivation_condition}"):
        condition.start_run(epochs, updates)
        if data.held_out is not None:
            data.held_out.loss(base)  # a batch that cannot be measured is said now
    pair, flops = MotivatedPair(base, None, None, condition), None
    if args.motivated_model:
        with fork_rng(), blaming(f"--motivated-model {args.motivated_model}"):
            motivated, weights_map = _make_motivated(base, args, runtime, rule, loss, updates, ranking == "loss")
            pair = MotivatedPair(base, motivated, weights_map, condition, args.motivation_bn)
            _announce_map(pair, weights_map, args, runtime)
            flops = {
                learner.role: forward_flops(_plain_model(learner), tuple(config["input_size"]))
                for learner in pair.sides
            }

    evaluator = Evaluator(
        pair=pair,
        validator=data.validator,
        evaluates_motivated=args.motivated_eval == "synced",
        evaluates_ema=not args.model_ema_force_cpu,
        dist_bn=args.dist_bn,
        world_size=runtime.world_size,
        recalibration=data.recalibration,
        model_dtype=runtime.dtype,
    )
    run = Run(
        pair=pair,
        feed=data.feed,
        held_out=data.held_out,
        clock=Clock([learner.schedule for learner in pair.sides if learner.schedule is not None], updates),
        hooks=HookList(),
        evaluator=evaluator,
        savers={},
        start_epoch=args.start_epoch or 0,
        epochs=epochs,
        val_interval=args.val_interval,
        recovery_interval=args.recovery_interval,
        world_size=runtime.world_size,
        ranking=ranking,
        device=runtime.device,
        flops=flops,
        can_be_stopped=bool(hooks_of(plugins)),
        guard=NonFiniteLossGuard(args.max_nonfinite, delay=late_by(runtime, args)),
        folder=folder if runtime.primary else None,
        lock=lock,
    )
    if runtime.primary:
        with blaming("--motivation-plugins"):
            own_hooks = build_hooks(args, plugins)
        with blaming("--output"):
            add_outputs(run, args, own_hooks)
    restore(run, resumed, args, runtime)
    if runtime.primary:
        with blaming("--output"):
            take_folder(run, args_text, resumed)
    _announce_plan(run, args, runtime)
    return run


LEAST_RECOMPILE_LIMIT = 16
"""Twice torch's, behind which it no longer compiles."""


def late_by(runtime: Runtime, args: Namespace) -> int:
    """How many updates later losses are looked at, so that a plain run on a GPU waits for none of them."""
    return 10 if runtime.device.type != "cpu" and not args.motivated_model else 0


def _plain_model(learner: Learner) -> Any:
    return unwrap_model(learner.eval_model())


def _make_motivated(
    base: Learner,
    args: Namespace,
    runtime: Runtime,
    rule: UpdateRule,
    loss: torch.nn.Module,
    updates: int,
    decreasing: bool,
) -> tuple[Learner, WeightMap]:
    file = args.motivated_initial_checkpoint
    with blaming(f"--motivated-initial-checkpoint {file}" if file else f"--motivated-model {args.motivated_model}"):
        model = make.make_model(args, Role.MOTIVATED)
    make.announce(model, args.motivated_model, runtime)
    model = make.place_model(model, args, runtime)
    task = make.make_task(model, loss, args, runtime, teacher=getattr(base.task, "teacher", None))
    optimizer = make.make_optimizer(task.get_trainable_module(), args, runtime)
    if args.model_ema:
        make.add_ema(task, args)
    weights_map = task_map(args, base.task, task)
    eval_model = make.finish_task(task, args, runtime)
    if args.torchcompile:  # torch counts graphs by the code they are made of; that is often the same for both models
        torch._dynamo.config.recompile_limit = max(LEAST_RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    groups = base.optimizer.param_groups
    for index, group in enumerate(optimizer.param_groups):
        of_base = groups[min(index, len(groups) - 1)]
        group["initial_lr"] = of_base.get("initial_lr", of_base["lr"])  # a resumed base has that of its file
    schedule, _ = make.make_schedule(optimizer, args, updates, decreasing)
    return Learner(Role.MOTIVATED, task, optimizer, schedule, rule, eval_model), weights_map


def _announce_map(pair: MotivatedPair[Learner], weights_map: WeightMap, args: Namespace, runtime: Runtime) -> None:
    if not runtime.primary:
        return
    small, large = (sum(p.numel() for p in learner.model.parameters()) for learner in pair.sides)
    name = args.motivation_map or map_for(args.model, args.motivated_model).name
    _logger.info(
        f"Weights map {name!r}, placement {args.motivation_placement!r}: {len(weights_map.links)} tensors of "
        f"{args.model} lie in {args.motivated_model}, {100 * small / large:.1f} % of its parameters; the differential "
        f"part has {large - small:,}."
    )


def _announce_plan(run: Run, args: Namespace, runtime: Runtime) -> None:
    if not runtime.primary:
        return
    unit = "update" if args.sched_on_updates else "epoch"
    images = args.batch_size * runtime.world_size * args.grad_accum_steps
    _logger.info(
        f"{run.epochs} epochs of {run.clock.updates_per_epoch} updates, {images} images each; the learning rate moves "
        f"per {unit}."
    )
    if run.start_epoch >= run.epochs:
        _logger.warning(f"Nothing to train: epoch {run.start_epoch} would be the next of {run.epochs}.")
    share, total = run.condition.expected_share, run.epochs * run.clock.updates_per_epoch
    count = run.condition.expected_updates(run.epochs, run.clock.updates_per_epoch)
    if run.pair.motivated is None or share is None or count is None or not total:
        return
    less = " without the first updates of each epoch" if count < share * total else ""
    _logger.info(f"About {count:.0f} of {total} updates should be motivated (share {share:.4f}{less}).")
    if 0 < share < 0.05 and not args.motivation_bn_recalibrate and batchnorms(run.pair.motivated.model):
        _logger.warning(
            "The motivated model is trained so rarely that its BatchNorm statistics will be old when it is judged; "
            "--motivation-bn-recalibrate 50 re-estimates them."
        )
    if 0 < share < 0.01:
        _logger.warning(
            "With fewer than 1 % motivated updates the differential part hardly trains; a smaller --motivation-k "
            "trains it more."
        )
