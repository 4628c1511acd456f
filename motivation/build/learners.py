"""Make tasks, losses, optimizers and schedules as timm's script does."""

from __future__ import annotations

import logging
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.distributed as dist
from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import ClassificationTask, FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask
from torch import Tensor, nn

from motivation.build.runtime import Runtime
from motivation.options.derived import accum_steps
from motivation.options.faults import Fault, StartupError, blaming
from motivation.options.flag_types import LARGEST_FLOAT
from motivation.training.learner import Learner, UpdateRule
from motivation.training.numerics import CheckedLearner

_logger = logging.getLogger("train")


@dataclass(frozen=True)
class Resolved:
    """Values that the options leave open and that are found out while a run is built.

    Attributes:
        num_classes: outputs of the models' heads.
        lr: learning rate at the start.
        lr_base_scale: how it grows with the images of an update, ``''`` where ``--lr`` is given and it does not matter.
        updates_per_epoch: optimizer updates in an epoch.
        ranking: the metric by which checkpoints are ranked.
    """

    num_classes: int
    lr: float
    lr_base_scale: str
    updates_per_epoch: int
    ranking: str


def make_loss(args: Namespace, mixes: bool, device: torch.device) -> nn.Module:
    """Make the training loss; smoothing is done by the mixing, where there is one."""
    loss: nn.Module
    binary: dict[str, Any] = dict(
        target_threshold=args.bce_target_thresh, sum_classes=args.bce_sum, pos_weight=args.bce_pos_weight
    )
    if args.jsd_loss:
        loss = JsdCrossEntropy(num_splits=args.aug_splits, smoothing=args.smoothing)
    elif mixes:
        loss = BinaryCrossEntropy(**binary) if args.bce_loss else SoftTargetCrossEntropy()
    elif args.smoothing and args.bce_loss:
        loss = BinaryCrossEntropy(smoothing=args.smoothing, **binary)
    elif args.smoothing:
        loss = LabelSmoothingCrossEntropy(smoothing=args.smoothing)
    else:
        loss = nn.CrossEntropyLoss()
    return loss.to(device=device)


def make_task(model: nn.Module, loss: nn.Module, args: Namespace, runtime: Runtime, teacher: Any = None) -> Any:
    """Make timm's training task: classification, or distillation from a teacher.

    Args:
        model: the model to train.
        loss: on the labels.
        args: options.
        runtime: of this rank.
        teacher: of another task, to share; None to make it from ``--kd-model-name``.
    """
    common: dict[str, Any] = dict(criterion=loss, device=runtime.device, dtype=runtime.dtype, verbose=runtime.primary)
    if args.kd_model_name is None:
        return ClassificationTask(model=model, **common)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "logit": (LogitDistillationTask, {"loss_type": args.kd_loss_type, "temperature": args.kd_temperature}),
        "token": (
            TokenDistillationTask, {"distill_type": args.kd_token_distill_type, "temperature": args.kd_temperature},
        ),
        "feature": (
            FeatureDistillationTask,
            {"student_feature_dim": args.kd_student_feature_dim, "teacher_feature_dim": args.kd_teacher_feature_dim},
        ),
    }  # fmt: skip
    kind, options = kinds[args.kd_distill_type]
    options |= common
    with blaming("--kd-model-name", args.kd_model_name):
        return kind(
            student_model=model,
            teacher_model=teacher or args.kd_model_name,
            distill_loss_weight=args.distill_loss_weight,
            task_loss_weight=args.task_loss_weight,
            **options,
        )


def make_optimizer(module: nn.Module, args: Namespace, lr: float, verbose: bool = False) -> torch.optim.Optimizer:
    """Make timm's optimizer over a trainable module.

    Raises:
        StartupError: it does not take these options.
    """
    options = {**optimizer_kwargs(cfg=args), "lr": lr}
    if twice := sorted(options.keys() & args.opt_kwargs.keys()):
        raise StartupError([Fault("--opt-kwargs", f"{twice[0]!r} has a flag of its own")])
    options |= args.opt_kwargs
    with blaming("--opt", args.opt):
        optimizer = create_optimizer_v2(module, **options)
    if verbose:
        settings = optimizer.defaults | {"weight_decay": args.weight_decay}
        listing = ", ".join(f"{name}={value}" for name, value in settings.items())
        _logger.info(f"Optimizer {type(optimizer).__name__} ({args.opt}): {listing}")
    return optimizer


def finish_task(task: Any, args: Namespace, runtime: Runtime) -> Any:
    """Compile, then wrap for several ranks (timm's order: DDP stays outside the compiled graph).

    Gradients are views into DDP's buckets and no further copy of them. All of timm's optimizers and clipping modes give
    the same bits either way, because gradients are set to None after each update.

    Returns the model that validation runs, without DDP.
    """
    if args.torchcompile:
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
    eval_model = task.get_eval_model()
    if runtime.distributed:
        # DDP takes device ids for accelerators only
        devices = None if runtime.device.type == "cpu" else [runtime.device]
        task.prepare_distributed(device_ids=devices, broadcast_buffers=not args.no_ddp_bb, gradient_as_bucket_view=True)
    return eval_model


def add_ema(task: Any, args: Namespace) -> None:
    """Add the moving average of the trainable module to a task."""
    task.setup_ema(
        decay=args.model_ema_decay,
        use_warmup=args.model_ema_warmup,
        device="cpu" if args.model_ema_force_cpu else None,
    )


def make_schedule(optimizer: Any, args: Namespace, updates_per_epoch: int, decreasing: bool) -> tuple[Any, int]:
    """Make timm's schedule over one optimizer; returns it and the number of epochs.

    Args:
        optimizer: whose learning rate it moves.
        args: options.
        updates_per_epoch: optimizer updates in an epoch.
        decreasing: True if a lower metric is better, for schedules that follow it.

    Raises:
        StartupError: it does not take these options.
    """
    options = scheduler_kwargs(args, decreasing_metric=decreasing)
    with blaming("--sched", args.sched):
        schedule, epochs = create_scheduler_v2(optimizer, **options, updates_per_epoch=updates_per_epoch)
        if schedule is None and args.sched != "none":
            raise ValueError(f"timm {timm.__version__} has no such schedule; a newer one does")
    return schedule, epochs if schedule is not None else args.epochs


def learning_rate(args: Namespace, runtime: Runtime, images_per_batch: float) -> tuple[float, str]:
    """Return the learning rate, from ``--lr-base`` unless it is given, and how it was scaled."""
    if args.lr:
        return args.lr, args.lr_base_scale
    images = images_per_batch * runtime.world_size * accum_steps(args)
    is_adaptive = any(name in args.opt.lower() for name in ("ada", "lamb"))
    scale = args.lr_base_scale or ("sqrt" if is_adaptive else "linear")
    ratio = images / args.lr_base_size
    lr = args.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)
    if lr > LARGEST_FLOAT:
        raise StartupError([Fault("--lr-base", f"gives a learning rate of {lr}, which float32 cannot hold")])
    if runtime.primary:
        _logger.info(
            f"Learning rate {lr}: {args.lr_base} for {args.lr_base_size} images an update, "
            f"scaled ({scale}) to {images:g} images."
        )
    return lr, scale


def make_learner(args: Namespace, *parts: Any) -> Learner:
    """Make a learner of the arguments of `Learner`; with ``--check-numerics`` one that checks what it computes."""
    return CheckedLearner(*parts) if args.check_numerics else Learner(*parts)


def make_rule(args: Namespace, runtime: Runtime, reference_batch: float) -> UpdateRule:
    """Make the rule by which gradients become an update."""
    rule = UpdateRule(
        autocast=runtime.autocast,
        scaler=runtime.scaler,
        clip_grad=args.clip_grad,
        clip_mode=args.clip_mode,
        world_size=runtime.world_size,
        synchronize=_synchronize(runtime.device) if args.synchronize_step else None,
        exact_loss=bool(args.motivated_model) and runtime.dtype in (torch.float16, torch.bfloat16),
    )
    mode = args.naflex_loss_scale if args.naflex_loader else args.variable_batch_loss_scale
    if args.naflex_loader or (args.train_img_sizes is not None and mode != "none"):
        rule.batch_scale = _BatchScale(mode, reference_batch, runtime, args.naflex_loader)
    return rule


def _synchronize(device: torch.device) -> Any:
    """Return the function that waits for the device; None for one that has nothing to wait for."""
    module = getattr(torch, device.type, None)
    return module.synchronize if device.type in ("cuda", "npu") and module is not None else None


class _BatchScale:
    """Weighs a micro-batch by its number of images, where that varies.

    Args:
        mode: ``'none'``, ``'sqrt'`` or ``'linear'`` in the number of images over ``reference``.
        ranks_differ: True if ranks have batches of different sizes, for which DDP's plain mean must be corrected.
    """

    def __init__(self, mode: str, reference: float, runtime: Runtime, ranks_differ: bool):
        self.mode, self.reference, self.runtime = mode, reference, runtime
        self.ranks_differ = ranks_differ and runtime.distributed

    def __call__(self, images: int) -> float | Tensor:
        scale: float | Tensor = 1.0 if self.mode == "none" else images / self.reference
        if self.mode == "sqrt":
            scale = scale**0.5
        if self.ranks_differ:
            total = torch.tensor(float(images), device=self.runtime.device)
            dist.all_reduce(total)
            scale = scale * (self.runtime.world_size * images / total)
        return scale
