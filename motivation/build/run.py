"""Make a `Run` from the options."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from timm.utils import unwrap_model

from motivation.build import learners as make
from motivation.build import models
from motivation.build.conditions import build_condition, build_hooks
from motivation.build.datasets import DATA_FLAGS, DataSets, open_datasets
from motivation.build.feasible import model_faults, startup_faults
from motivation.build.loaders import Data, make_loaders
from motivation.build.maps import task_map
from motivation.build.outputs import add_outputs, claim_folder, run_folder, take_folder
from motivation.build.ranks import Ranks, facts_of_options, restart_faults
from motivation.build.resume import Resumed, load_base, load_ema, open_resumed, restore
from motivation.build.runtime import Runtime, announce_runtime, start_runtime
from motivation.build.trial import blank_batch, needs_trial, try_updates
from motivation.build.without_effect import without_effect
from motivation.data.datasets import label_names
from motivation.method.conditions import Condition, Never
from motivation.method.pair import MotivatedPair
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.derived import accum_steps, data_folder
from motivation.options.faults import blaming
from motivation.training.agreement import DecisionCheck
from motivation.training.batchnorm import batchnorms
from motivation.training.evaluate import Evaluator
from motivation.training.finite import NonFiniteLossGuard
from motivation.training.flops import forward_flops
from motivation.training.hooks import HookList, hooks_of
from motivation.training.learner import Learner
from motivation.training.numerics import CheckedLearner
from motivation.training.plugin_errors import is_users
from motivation.training.run import Clock, Run
from weight_maps import WeightMap, begin_as_identity, map_for

_logger = logging.getLogger("train")


NEEDED_AT_ONCE = ("--device", "--device-modules", "--seed", "--model-dtype")
"""With a fault of one of these flags nothing further can be tried."""


class Prepared(NamedTuple):
    """The ground of a run.

    Attributes:
        runtime: of this rank.
        datasets: the open data sets.
        plugins: the modules of ``--motivation-plugins``.
    """

    runtime: Runtime
    datasets: DataSets
    plugins: list[ModuleType]


def build_run(args: Namespace, args_text: str, ranks: Ranks | None = None) -> Run:
    """Make everything a run needs, in timm's order.

    Args:
        args: options; they stay as they are.
        args_text: for ``args.yaml``.
        ranks: the processes of the run; they are compared before anything is made that waits for all of them.

    Raises:
        StartupError: the options cannot be run; all reasons that can be known together are listed.
    """
    ranks = ranks or Ranks()
    prepared = prepare(args, ranks)
    with ExitStack() as undo:
        run = assemble(args, args_text, ranks, prepared, undo)
        undo.pop_all()
    return run


def prepare(args: Namespace, ranks: Ranks) -> Prepared:
    """Check the options, join the other ranks and open the data sets: the first half of `build_run`."""
    ranks.require_launcher()
    plugins, faults = startup_faults(args)
    is_over = any(fault.flag in NEEDED_AT_ONCE for fault in faults)
    ranks.compare(facts_of_options(args), restart_faults() + (faults if is_over else []))
    runtime = start_runtime(args, ranks)
    announce_runtime(args, runtime)
    faults += model_faults(args, runtime.device)
    datasets = DataSets(None, None)
    if not any(fault.flag in DATA_FLAGS for fault in faults):
        datasets, found = open_datasets(args, runtime.world_size)
        faults += found
    ranks.compare(datasets.facts(), faults)
    if runtime.primary:
        for note in (*without_effect(args), *dict.fromkeys(datasets.notes)):
            _logger.warning(note)
    return Prepared(runtime, datasets, plugins)


def assemble(args: Namespace, args_text: str, ranks: Ranks, prepared: Prepared, undo: ExitStack) -> Run:
    """Make models, loaders and outputs: the second half of `build_run`.

    Args:
        args: options.
        args_text: for ``args.yaml``.
        ranks: the processes of the run.
        prepared: see `prepare`.
        undo: is given what removes the new folders again; see `claim_folder`.
    """
    runtime, datasets, plugins = prepared
    condition = build_condition(args)
    base_model: Any = models.make_model(args, Role.BASE, verbose=runtime.primary)
    num_classes = args.num_classes or base_model.num_classes
    models.announce(base_model, args.model, runtime)
    config = models.data_config(args, base_model, runtime.primary)
    named = run_folder(args, config["input_size"][-1])
    folder, lock = claim_folder(named, runtime, undo, is_scratch=args.limit_batches is not None)
    resumed = open_resumed(args, named, runtime, ranks)
    patch_size = models.patch_size(base_model)
    base_model = models.place_model(base_model, args, runtime)
    data = make_loaders(args, runtime, config, patch_size, num_classes, datasets)
    ranking = args.eval_metric if data.validator is not None else "loss"
    facts = {
        "the number of the model's parameters": sum(parameter.numel() for parameter in base_model.parameters()),
        "the number of updates in an epoch": data.feed.updates_per_epoch,
        "the number of validation batches": len(data.validator.loader) if data.validator is not None else 0,
        "the place in the resumed training": "" if resumed is None else resumed.place,
        "the signals that the condition needs": ", ".join(sorted(condition.needs)),
        "the hooks of the plugins": ", ".join(hook.__name__ for hook in hooks_of(plugins)),
    }
    ranks.compare(facts, is_last=True)
    lr, lr_base_scale = make.learning_rate(args, runtime, data.reference_batch)
    resolved = make.Resolved(num_classes, lr, lr_base_scale, data.feed.updates_per_epoch, ranking)
    base, epochs = _make_base(base_model, args, runtime, resolved, data, resumed)
    base.rule.measures_gradients = "gradient_norm" in condition.needs

    with blaming("--motivation-condition", args.motivation_condition, errors=ValueError):
        condition.start_run(epochs, resolved.updates_per_epoch)
    if data.held_out is not None:  # a batch that does not fit into memory is said now
        with blaming("--motivation-valloss-images", args.motivation_valloss_images, errors=RuntimeError):
            data.held_out.loss(base)
    flops = None
    if not args.motivated_model:
        pair = MotivatedPair(base, None, None, condition)
    else:
        with fork_rng():
            motivated, weights_map = _make_motivated(base, args, runtime, resolved, data, config)
            with blaming("--opt", args.opt, errors=ValueError):  # an optimizer whose state cannot be carried over
                pair = MotivatedPair(base, motivated, weights_map, condition, args.motivation_bn)
            pair.confirm = _decision_check(condition, runtime)
            _announce_map(pair, weights_map, args, runtime)
            size = tuple(config["input_size"])
            if runtime.primary:
                flops = {learner.role: forward_flops(unwrap_model(learner.eval_model), size) for learner in pair.sides}

    for learner in pair.sides:
        if isinstance(learner, CheckedLearner):
            learner.place = lambda: f"epoch {pair.epoch}, update {pair.update} ({pair.role.value} model)"
    evaluator = Evaluator(
        pair=pair,
        validator=data.validator,
        evaluates_motivated=args.motivated_eval == "synced",
        evaluates_ema=not args.model_ema_force_cpu,
        dist_bn=_dist_bn(args, runtime),
        world_size=runtime.world_size,
        recalibration=data.recalibration,
    )
    run = Run(
        pair=pair,
        feed=data.feed,
        held_out=data.held_out,
        clock=Clock(
            [learner.schedule for learner in pair.sides if learner.schedule is not None], resolved.updates_per_epoch
        ),
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
        guard=NonFiniteLossGuard(args.max_nonfinite, delay=_guard_delay(args, runtime)),
        folder=folder if runtime.primary else None,
        lock=lock,
    )
    recorded = recorded_args(args, runtime, resolved, "" if resumed is None else str(resumed.path))
    if runtime.primary:
        own_hooks = build_hooks(args, plugins)
        with blaming("--output", args.output, errors=OSError):
            add_outputs(run, recorded, own_hooks)
    restore(run, resumed, recorded, runtime)
    if needs_trial(pair, runtime.device):
        batch = blank_batch(args, runtime, config["input_size"], num_classes, data.feed.loader)
        try_updates(pair.sides, batch, args, runtime)
    if runtime.primary:
        with blaming("--output", args.output, errors=OSError):
            take_folder(run, args_text, label_names(datasets.train), resumed)
    _announce_plan(run, args, runtime)
    return run


def recorded_args(args: Namespace, runtime: Runtime, resolved: make.Resolved, resume: str) -> Namespace:
    """Return the options with what the run has found out in their place, as timm's script leaves them in checkpoints.

    Args:
        args: options, which stay as they are.
        runtime: of this rank.
        resolved: values that they leave open.
        resume: the checkpoint that ``--resume`` stands for.
    """
    found = {
        "num_classes": resolved.num_classes,
        "lr": resolved.lr,
        "lr_base_scale": resolved.lr_base_scale,
        "resume": resume,
        "data_dir": data_folder(args),
        "grad_accum_steps": accum_steps(args),
        "prefetcher": not args.no_prefetcher,
        "dist_bn": _dist_bn(args, runtime),
        "device": str(runtime.device),
        "rank": runtime.rank,
        "local_rank": runtime.local_rank,
        "world_size": runtime.world_size,
        "distributed": runtime.distributed,
    }
    return Namespace(**{**vars(args), **found})


def _decision_check(condition: Condition, runtime: Runtime) -> Callable[[bool], bool]:
    """Return what compares the decisions of a user's own condition over ranks; ours cannot differ."""
    if not runtime.distributed or not is_users(condition):
        return bool
    group = dist.group.WORLD if runtime.device.type == "cpu" else dist.new_group(backend="gloo")
    return DecisionCheck(condition.name, runtime.world_size, group)


def _dist_bn(args: Namespace, runtime: Runtime) -> str:
    """Return how ranks share BatchNorm statistics; with ``--sync-bn`` all have the same already."""
    return "" if runtime.distributed and args.sync_bn else args.dist_bn


def _guard_delay(args: Namespace, runtime: Runtime) -> int:
    """Return how many updates later losses are looked at, so that a plain run on a GPU waits for none of them."""
    return 10 if runtime.device.type != "cpu" and not args.motivated_model else 0


def _make_base(
    model: Any, args: Namespace, runtime: Runtime, resolved: make.Resolved, data: Data, resumed: Resumed | None
) -> tuple[Learner, int]:
    """Make the learner of the base; returns it and the number of epochs."""
    loss = make.make_loss(args, data.mixes, runtime.device)
    task = make.make_task(model, loss, args, runtime)
    optimizer = make.make_optimizer(task.get_trainable_module(), args, resolved.lr, runtime.primary)
    if resumed is not None:
        load_base(resumed, task, optimizer, args, runtime)
    if args.model_ema:
        make.add_ema(task, args)
        if resumed is not None:
            load_ema(resumed, task)
    eval_model = make.finish_task(task, args, runtime)
    rule = make.make_rule(args, runtime, data.reference_batch)
    schedule, epochs = make.make_schedule(optimizer, args, resolved.updates_per_epoch, resolved.ranking == "loss")
    learner = make.make_learner(args, Role.BASE, task, optimizer, schedule, rule, eval_model)
    if resumed is None:
        _begin_ema_alike(learner, runtime)
    return learner, epochs


LEAST_RECOMPILE_LIMIT = 16
"""Twice torch's, behind which it no longer compiles."""


def _make_motivated(
    base: Learner, args: Namespace, runtime: Runtime, resolved: make.Resolved, data: Data, config: dict[str, Any]
) -> tuple[Learner, WeightMap]:
    """Make the learner of the motivated model; returns it and the weights map."""
    loss = make.make_loss(args, data.mixes, runtime.device)
    model = models.make_model(args, Role.MOTIVATED, resolved.num_classes, runtime.primary)
    models.announce(model, args.motivated_model, runtime)
    model = models.place_model(model, args, runtime)
    task = make.make_task(model, loss, args, runtime, teacher=getattr(base.task, "teacher", None))
    optimizer = make.make_optimizer(task.get_trainable_module(), args, resolved.lr, runtime.primary)
    with blaming("--motivated-model", args.motivated_model, errors=ValueError):
        weights_map = task_map(args, base.task, task)
    if args.motivated_init == "zero":
        _begin_at_zero(task.get_trainable_module(), weights_map, config["input_size"], runtime)
    if args.model_ema:
        make.add_ema(task, args)
    eval_model = make.finish_task(task, args, runtime)
    if args.torchcompile:  # torch counts graphs by the code they are made of; that is often the same for both models
        torch._dynamo.config.recompile_limit = max(LEAST_RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
    groups = base.optimizer.param_groups
    for index, group in enumerate(optimizer.param_groups):
        of_base = groups[min(index, len(groups) - 1)]
        group["initial_lr"] = of_base.get("initial_lr", of_base["lr"])  # a resumed base has that of its file
    schedule, _ = make.make_schedule(optimizer, args, resolved.updates_per_epoch, resolved.ranking == "loss")
    learner = make.make_learner(args, Role.MOTIVATED, task, optimizer, schedule, base.rule, eval_model)
    _begin_ema_alike(learner, runtime)
    return learner, weights_map


def _begin_ema_alike(learner: Learner, runtime: Runtime) -> None:
    """Begin the EMA with the weights of rank 0: it was made of this rank's own, before DDP sent those."""
    if learner.ema is not None and runtime.distributed:
        learner.ema.set(learner.model)


def _begin_at_zero(model: Any, weights_map: WeightMap, size: tuple[int, ...], runtime: Runtime) -> None:
    parameter = next(model.parameters())
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)).to(parameter)
    with blaming("--motivated-init", "zero", errors=ValueError):
        blocks = begin_as_identity(weights_map, model, images)
    if runtime.primary:
        _logger.info(f"Begin as the identity: {', '.join(blocks)}.")


def _announce_map(pair: MotivatedPair[Learner], weights_map: WeightMap, args: Namespace, runtime: Runtime) -> None:
    if not runtime.primary:
        return
    small, large = (sum(p.numel() for p in learner.model.parameters()) for learner in pair.sides)
    name = args.motivation_map or map_for(args.model, args.motivated_model).name
    _logger.info(
        f"Weights map {name!r}, placement {args.motivation_placement!r}: {len(weights_map.links)} tensors of "
        f"{args.model} lie in {args.motivated_model}, {100 * small / large:.1f} % of its parameters; the rest, its "
        f"differential part, has {large - small:,}."
    )


def _announce_plan(run: Run, args: Namespace, runtime: Runtime) -> None:
    if not runtime.primary:
        return
    unit = "update" if args.sched_on_updates else "epoch"
    images = args.batch_size * runtime.world_size * accum_steps(args)
    _logger.info(
        f"{run.epochs} epochs of {run.clock.updates_per_epoch} updates, {images} images each; the learning rate moves "
        f"per {unit}."
    )
    warmup = args.warmup_epochs if run.clock.schedules else 0
    if 5 * warmup > run.epochs and run.start_epoch < warmup:
        _logger.info(f"Warm-up takes {min(warmup, run.epochs)} of these epochs; --warmup-epochs 0 leaves it out.")
    is_resumed = args.resume and (run.start_epoch or run.resumed_mid_epoch)
    if is_resumed and run.start_epoch < run.epochs and run.stopped_by is None:
        update = run.pair.update if run.resumed_mid_epoch else 0
        _logger.info(f"Training goes on with update {update} of epoch {run.start_epoch}, both counted from 0.")
    if run.start_epoch >= run.epochs:
        _logger.warning(f"Nothing to train: epoch {run.start_epoch} would be the next of {run.epochs}.")
    share, total = run.expected_share, run.epochs * run.clock.updates_per_epoch
    if run.pair.motivated is None or share is None or isinstance(run.pair.condition, Never):
        return
    _logger.info(f"About {share * total:.0f} of {total} updates should be motivated (share {share:.4f}).")
    if share < 0.05 and not args.motivation_bn_recalibrate and batchnorms(run.pair.motivated.model):
        _logger.warning(
            "The motivated model is trained so rarely that its BatchNorm statistics will be old when it is judged; "
            "--motivation-bn-recalibrate 50 re-estimates them."
        )
    if share < 0.01:
        _logger.warning(
            "With fewer than 1 % motivated updates the differential part hardly trains; a smaller --motivation-k "
            "trains it more."
        )
