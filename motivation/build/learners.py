"""Models, tasks, optimizers and schedules, made as timm's script makes them."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model, safe_model_name
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import ClassificationTask, FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask
from torch import Tensor, nn

from motivation.build.runtime import Runtime
from motivation.build.transfer import left_random, misfit, transfer_weights
from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.options.checks import blaming
from motivation.training.learner import UpdateRule

_logger = logging.getLogger("train")


def channels(args: Namespace) -> int:
    """Channels of the input images."""
    if args.in_chans is not None:
        return args.in_chans
    return args.input_size[0] if args.input_size is not None else 3


def model_name(args: Namespace, role: Role) -> str:
    """timm name of the base or the motivated model."""
    return args.model if role is Role.BASE else args.motivated_model


def make_model(args: Namespace, role: Role) -> nn.Module:
    """A timm model, on the CPU (or the device of a ``torch.device`` context).

    Raises:
        Exception: whatever the model's constructor raises for its arguments.
    """

    def of_motivated(value: Any, default: Any) -> Any:
        return default if role is Role.BASE or value is None else value

    options = dict(args.model_kwargs)
    pretrained, checkpoint = args.pretrained, args.initial_checkpoint
    if role is Role.MOTIVATED:
        options.update(args.motivated_model_kwargs)
        pretrained, checkpoint = args.motivated_pretrained, args.motivated_initial_checkpoint
    elif args.pretrained_path:
        # timm: a file goes before url and hub; -1 classes make the head adapt
        options["pretrained_cfg_overlay"] = {"file": args.pretrained_path, "num_classes": -1}
    settings: dict[str, Any] = dict(
        pretrained=pretrained,
        in_chans=channels(args),
        num_classes=args.num_classes,
        drop_rate=of_motivated(args.motivated_drop, args.drop),
        drop_path_rate=of_motivated(args.motivated_drop_path, args.drop_path),
        drop_block_rate=of_motivated(args.motivated_drop_block, args.drop_block),
        global_pool=args.gp,
        bn_momentum=args.bn_momentum,
        bn_eps=args.bn_eps,
        scriptable=args.torchscript,
        checkpoint_path=checkpoint,
    )
    try:
        model: Any = create_model(model_name(args, role), **{**settings, **options})
    except Exception:
        _blame_file(args, role, checkpoint)
        raise
    if role is Role.BASE and pretrained and args.pretrained_path:
        _tell_left_random(model, args)
    if file := getattr(args, "transfer", {}).get(role.value):  # fine-tuning
        with blaming("--checkpoint"):
            said = transfer_weights(model, file)
        if said and getattr(args, "rank", 0) == 0:
            _logger.info(said)
    head = model.get_classifier() if args.head_init_scale is not None or args.head_init_bias is not None else None
    if head is not None and args.head_init_scale is not None:
        with torch.no_grad():
            head.weight.mul_(args.head_init_scale)
            head.bias.mul_(args.head_init_scale)
    if head is not None and args.head_init_bias is not None:
        nn.init.constant_(head.bias, args.head_init_bias)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    return model


def _blame_file(args: Namespace, role: Role, checkpoint: str) -> None:
    """Say what is wrong with the file of weights, if a model could not be made because of it."""
    if checkpoint and (fault := misfit(meta_model(args, role), checkpoint)):
        raise ValueError(fault)
    if role is Role.BASE and args.pretrained and args.pretrained_path:
        with blaming("--pretrained-path"):
            left_random(meta_model(args, role), args.pretrained_path)


def _tell_left_random(model: nn.Module, args: Namespace) -> None:
    """timm leaves what is not in such a file as it was initialised, and says nothing."""
    with blaming("--pretrained-path"):
        missing = left_random(model, args.pretrained_path)
    if missing and getattr(args, "rank", 0) == 0:
        _logger.warning(
            f"--pretrained-path: {len(missing)} tensors are not in {args.pretrained_path} ({missing[0]} ...); they "
            "begin at random."
        )


def without_files(args: Namespace) -> Namespace:
    """The options of the same models with random weights: nothing is read or fetched for them."""
    blank = copy.copy(args)
    blank.pretrained = blank.motivated_pretrained = blank.torchscript = False
    blank.initial_checkpoint = blank.motivated_initial_checkpoint = blank.pretrained_path = ""
    blank.transfer = {}
    return blank


def meta_model(args: Namespace, role: Role) -> Any:
    """The model without weights, which costs neither memory nor random numbers."""
    blank = without_files(args)
    blank.head_init_scale = blank.head_init_bias = None
    with fork_rng():
        try:
            with torch.device("meta"):
                return make_model(blank, role)
        except Exception:  # noqa: BLE001  (some constructors read values, which meta tensors do not have)
            return make_model(blank, role)


def announce(model: nn.Module, name: str, runtime: Runtime) -> None:
    """Say how large a model is."""
    if runtime.primary:
        count = sum(parameter.numel() for parameter in model.parameters())
        _logger.info(f"Model {safe_model_name(name)} has {count:,} parameters.")


def place_model(model: nn.Module, args: Namespace, runtime: Runtime) -> nn.Module:
    """Device, dtype, layout, and the BatchNorm variants of timm."""
    if args.split_bn:
        model = convert_splitbn_model(model, max(args.aug_splits, 2))
    model.to(device=runtime.device, dtype=runtime.dtype)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if runtime.distributed and args.sync_bn:
        args.dist_bn = ""  # all ranks have the same statistics already
        model = convert_sync_batchnorm(model)
    if args.torchscript:
        model = torch.jit.script(model)
    return model


def make_loss(args: Namespace, mixes: bool, device: torch.device) -> nn.Module:
    """The training loss; smoothing is done by the mixing, where there is one."""
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
    """timm's training task: classification, or distillation from a teacher.

    Args:
        teacher: of another task, to share; None to make it from ``--kd-model-name``.
    """
    common: dict[str, Any] = dict(criterion=loss, device=runtime.device, dtype=runtime.dtype, verbose=runtime.primary)
    if args.kd_model_name is None:
        return ClassificationTask(model=model, **common)
    common |= dict(
        student_model=model,
        teacher_model=teacher or args.kd_model_name,
        distill_loss_weight=args.distill_loss_weight,
        task_loss_weight=args.task_loss_weight,
    )
    if args.kd_distill_type == "feature":
        widths: dict[str, Any] = dict(
            student_feature_dim=args.kd_student_feature_dim, teacher_feature_dim=args.kd_teacher_feature_dim
        )
        return FeatureDistillationTask(**common, **widths)
    common["temperature"] = args.kd_temperature
    if args.kd_distill_type == "token":
        return TokenDistillationTask(distill_type=args.kd_token_distill_type, **common)
    return LogitDistillationTask(loss_type=args.kd_loss_type, **common)


def make_optimizer(module: nn.Module, args: Namespace, runtime: Runtime) -> torch.optim.Optimizer:
    """timm's optimizer over a trainable module."""
    optimizer = create_optimizer_v2(module, **optimizer_kwargs(cfg=args), **args.opt_kwargs)
    if runtime.primary:
        settings = copy.copy(optimizer.defaults) | {"weight_decay": args.weight_decay}
        listing = ", ".join(f"{name}={value}" for name, value in settings.items())
        _logger.info(f"Optimizer {type(optimizer).__name__} ({args.opt}): {listing}")
    return optimizer


def finish_task(task: Any, args: Namespace, runtime: Runtime) -> Any:
    """Compile, then wrap for several ranks (timm's order: DDP stays outside the compiled graph).

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
        task.prepare_distributed(device_ids=devices, broadcast_buffers=not args.no_ddp_bb)
    return eval_model


def add_ema(task: Any, args: Namespace) -> None:
    """The moving average of the trainable module."""
    task.setup_ema(
        decay=args.model_ema_decay,
        use_warmup=args.model_ema_warmup,
        device="cpu" if args.model_ema_force_cpu else None,
    )


def make_schedule(optimizer: Any, args: Namespace, updates_per_epoch: int, decreasing: bool) -> tuple[Any, int]:
    """timm's schedule over one optimizer, and the number of epochs."""
    options = scheduler_kwargs(args, decreasing_metric=decreasing)
    schedule, epochs = create_scheduler_v2(optimizer, **options, updates_per_epoch=updates_per_epoch)
    return schedule, epochs if schedule is not None else args.epochs


def resolve_lr(args: Namespace, runtime: Runtime, images_per_batch: float) -> None:
    """Set ``args.lr`` from ``--lr-base`` unless it is given."""
    if args.lr:
        return
    images = images_per_batch * runtime.world_size * args.grad_accum_steps
    if not args.lr_base_scale:
        adaptive = any(name in args.opt.lower() for name in ("ada", "lamb"))
        args.lr_base_scale = "sqrt" if adaptive else "linear"
    ratio = images / args.lr_base_size
    args.lr = args.lr_base * (ratio**0.5 if args.lr_base_scale == "sqrt" else ratio)
    if runtime.primary:
        _logger.info(
            f"Learning rate {args.lr}: {args.lr_base} for {args.lr_base_size} images an update, "
            f"scaled ({args.lr_base_scale}) to {images:g} images."
        )


def make_rule(args: Namespace, runtime: Runtime, reference_batch: float) -> UpdateRule:
    """How gradients become an update."""
    rule = UpdateRule(
        autocast=runtime.autocast,
        scaler=runtime.scaler,
        clip_grad=args.clip_grad,
        clip_mode=args.clip_mode,
        world_size=runtime.world_size,
        synchronize=_synchronize(runtime.device) if args.synchronize_step else None,
    )
    mode = args.naflex_loss_scale if args.naflex_loader else args.variable_batch_loss_scale
    if args.naflex_loader or (args.train_img_sizes is not None and mode != "none"):
        rule.batch_scale = _BatchScale(mode, reference_batch, runtime, args.naflex_loader)
    return rule


def _synchronize(device: torch.device) -> Any:
    """What waits for the device; None for one that has nothing to wait for."""
    module = getattr(torch, device.type, None)
    return module.synchronize if device.type in ("cuda", "npu") and module is not None else None


class _BatchScale:
    """Weight of a micro-batch by its number of images, where that varies.

    Args:
        mode: ``'none'``, ``'sqrt'`` or ``'linear'`` in the number of images over ``reference``.
        ranks_differ: whether ranks have batches of different sizes, which DDP's plain mean must be corrected for.
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


def patch_size(model: nn.Module) -> Any:
    """The model's patch size, None if it has none."""
    with suppress(AttributeError):
        return model.get_patch_size()  # type: ignore[operator]
    return None
