"""Find options that were given but are not read: timm's script, like this program, reads them only beside others.

A run with such an option is still made, as timm makes it, so each is a warning and no fault.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from timm.optim import get_optimizer_info

from motivation.data.datasets import CIFAR_POLICY, TRANSFER_SETS
from motivation.method.condition_registry import takes
from motivation.options.derived import mixes, world_size
from motivation.options.flags import FLAGS

ITERABLE = ("tfds", "wds", "hfids")
WITH_FIELDS = (*ITERABLE, "hfds")
"""Kinds of data sets whose items have fields with names."""

CYCLIC = ("cosine", "tanh", "poly")
SCHEDULES = {
    "decay_milestones": ("multistep",),
    "decay_epochs": ("step", "wsd", "rsqrt"),
    "decay_rate": ("step", "multistep", "plateau", "poly"),
    "patience_epochs": ("plateau",),
    "lr_cycle_mul": CYCLIC,
    "lr_cycle_decay": CYCLIC,
    "lr_cycle_limit": CYCLIC,
    "lr_k_decay": ("cosine", "poly"),
    "min_lr": (*CYCLIC, "plateau", "wsd", "rsqrt"),
    "cooldown_epochs": (*CYCLIC, "wsd", "rsqrt"),
}
"""The schedules that read an option; all but ``none`` read the others."""
OF_ALL_SCHEDULES = "warmup_epochs warmup_lr warmup_prefix lr_noise sched_on_updates"


@dataclass(frozen=True)
class Rule:
    """Options that are not read under one circumstance.

    Attributes:
        options: their names, with spaces between them.
        applies: True if the circumstance is given.
        why: follows ``no effect``.
    """

    options: str
    applies: bool
    why: str


def without_effect(args: Namespace) -> list[str]:
    """Return a line for each option that has no effect, or another one than its value says.

    Options that have their default value, or are off, are not named.

    Args:
        args: without faults; the plugins are loaded.
    """
    lines = [f"{flag}: {text}" for flag, applies, text in _zeros(args) if applies]
    named: set[str] = set()
    for rule in (*_rules(args), *_rules_of_motivation(args)):
        if not rule.applies:
            continue
        for name in rule.options.split():
            if name not in named and _is_given(args, name):
                named.add(name)
                lines.append(f"{FLAGS[name].option} has no effect {rule.why}.")
    return lines


def _is_given(args: Namespace, name: str) -> bool:
    value = getattr(args, name)
    return bool(value) and value != FLAGS[name].default


def _zeros(args: Namespace) -> Iterator[tuple[str, bool, str]]:
    """Yield what timm makes of a zero, where that is not what it says."""
    yield (
        "--lr 0", args.lr == 0,
        f"as in timm, 0 counts as not given, and the rate comes from --lr-base ({args.lr_base} for "
        f"{args.lr_base_size} images); --lr-base 0 trains at 0.",
    )  # fmt: skip
    yield "--crop-pct 0", args.crop_pct == 0, "as in timm, 0 counts as not given: the model's own is used."
    yield "--grad-accum-steps 0", args.grad_accum_steps == 0, "as in timm, 0 is taken for 1."
    yield (
        "--clip-grad 0", args.clip_grad == 0,
        "all gradients are cut to 0 and nothing is learned; leave it out for no bound.",
    )  # fmt: skip


def _rules(args: Namespace) -> Iterator[Rule]:
    yield from _weights(args)
    yield from _data(args)
    yield from _augmentation(args)
    yield from _loss(args)
    yield from _optimizer(args)
    yield from _run(args)


def _weights(args: Namespace) -> Iterator[Rule]:
    yield Rule("pretrained_path", not args.pretrained, "without --pretrained: the file is not read")
    yield Rule("pretrained", bool(args.initial_checkpoint), "with --initial-checkpoint, which replaces the weights")
    yield Rule(
        "motivated_pretrained", bool(args.motivated_initial_checkpoint),
        "with --motivated-initial-checkpoint, which replaces the weights",
    )  # fmt: skip
    yield Rule("no_resume_opt", not args.resume, "without --resume")


def _data(args: Namespace) -> Iterator[Rule]:
    kind, name = args.dataset.partition("/")[0].lower() if "/" in args.dataset else "", args.dataset.lower()
    of_kind = f"with --dataset {args.dataset}" if name else "with a folder of images"
    yield Rule("data", bool(args.data_dir), "with --data-dir, which is read instead")
    yield Rule("train_num_samples val_num_samples epoch_repeats", kind not in ITERABLE, of_kind)
    yield Rule("input_key target_key", kind not in WITH_FIELDS, of_kind)
    yield Rule("dataset_trust_remote_code", kind not in ("hfds", "hfids"), of_kind)
    yield Rule("dataset_download", kind not in ("torch", "tfds", "hfids"), of_kind)
    yield Rule("input_img_mode", kind == "torch" and name not in TRANSFER_SETS, f"{of_kind}, as in timm")
    yield Rule("img_size", args.input_size is not None, "with --input-size, which is read instead")
    yield Rule("val_split", args.folds is not None, "with --folds")
    yield Rule(
        "eval_metric validation_batch_size val_input_size tta", not args.val_split and args.folds is None,
        "without validation data: the training loss ranks the checkpoints",
    )  # fmt: skip
    sizes = args.train_img_sizes is not None
    yield Rule(
        "train_batch_sizes train_size_probs train_size_schedule train_size_schedule_spread train_size_random_mix "
        "train_batches_per_epoch variable_batch_loss_scale",
        not sizes, "without --train-img-sizes",
    )  # fmt: skip
    yield Rule(
        "train_size_schedule_spread train_size_random_mix", args.train_size_schedule != "progressive",
        "without --train-size-schedule progressive",
    )  # fmt: skip
    naflex = " ".join(name for name in FLAGS if name.startswith("naflex_") and name != "naflex_loader")
    yield Rule(naflex, not args.naflex_loader, "without --naflex-loader")
    yield Rule("train_crop_mode mixup_mode cutmix_minmax", args.naflex_loader, "with --naflex-loader")
    yield Rule("worker_seeding", args.workers == 0, "with --workers 0")


def _augmentation(args: Namespace) -> Iterator[Rule]:
    yield Rule(
        "train_crop_mode scale ratio hflip vflip color_jitter color_jitter_prob grayscale_prob gaussian_blur_prob aa "
        "reprob remode recount train_interpolation",
        args.no_aug, "with --no-aug",
    )  # fmt: skip
    yield Rule("scale ratio", bool(args.train_pad), "with --train-pad, which replaces the random resized crop")
    replaced = bool(args.aa) and (args.aa == CIFAR_POLICY or "3a" not in args.aa)
    yield Rule("color_jitter color_jitter_prob", replaced, "with --aa, as in timm (but for the policy 3a)")
    yield Rule("color_jitter_prob", not args.color_jitter, "without --color-jitter")
    yield Rule("remode recount", not args.reprob, "without --reprob")
    yield Rule("resplit", not args.reprob and not args.split_bn, "without --reprob")
    yield Rule("mixup_prob mixup_switch_prob mixup_mode mixup_off_epoch", not mixes(args), "without mixup and cutmix")
    both = args.mixup > 0 and (args.cutmix > 0 or args.cutmix_minmax is not None)
    yield Rule("mixup_switch_prob", not both, "with only one of mixup and cutmix")
    minmax = args.cutmix_minmax is not None and args.cutmix != 1  # timm sets it to 1
    yield Rule("cutmix", minmax, "with --cutmix-minmax, which is read instead")


def _loss(args: Namespace) -> Iterator[Rule]:
    soft = mixes(args) or args.smoothing > 0
    binary = args.bce_loss and soft and not args.jsd_loss
    yield Rule("bce_loss", args.jsd_loss, "with --jsd-loss")
    yield Rule(
        "bce_loss", not soft,
        "without mixup, cutmix or a --smoothing above 0: as in timm, the loss is cross-entropy",
    )  # fmt: skip
    yield Rule("bce_sum bce_target_thresh bce_pos_weight", not binary, "because the loss is not binary cross-entropy")
    teaching = "distill_loss_weight task_loss_weight kd_distill_type kd_loss_type kd_temperature"
    dims = "kd_student_feature_dim kd_teacher_feature_dim"
    yield Rule(f"{teaching} {dims} kd_token_distill_type", args.kd_model_name is None, "without --kd-model-name")
    of_kind = f"with --kd-distill-type {args.kd_distill_type}"
    yield Rule("kd_temperature", args.kd_distill_type == "feature", of_kind)
    yield Rule(dims, args.kd_distill_type != "feature", of_kind)
    yield Rule("kd_token_distill_type", args.kd_distill_type != "token", of_kind)


def _optimizer(args: Namespace) -> Iterator[Rule]:
    info = get_optimizer_info(args.opt.lower().split("_")[-1])
    of_opt = f"with --opt {args.opt}"
    yield Rule("momentum", not info.has_momentum, of_opt)
    yield Rule("opt_eps", not info.has_eps, of_opt)
    yield Rule("opt_betas", not info.has_betas, of_opt)
    yield Rule("clip_mode", args.clip_grad is None, "without --clip-grad")
    yield Rule("layer_decay_min_scale layer_decay_no_opt_scale", args.layer_decay is None, "without --layer-decay")
    yield Rule("lr_base lr_base_size lr_base_scale", bool(args.lr), "with --lr")
    of_sched = f"with --sched {args.sched}"
    for name, schedules in SCHEDULES.items():
        yield Rule(name, args.sched not in schedules, of_sched)
    yield Rule(OF_ALL_SCHEDULES, args.sched == "none", of_sched)
    yield Rule("warmup_lr warmup_prefix", args.warmup_epochs == 0, "with --warmup-epochs 0")
    yield Rule("lr_cycle_mul lr_cycle_decay", args.lr_cycle_limit <= 1, "without a --lr-cycle-limit above 1")
    yield Rule("lr_noise_pct lr_noise_std", args.lr_noise is None or args.sched == "none", "without --lr-noise")


def _run(args: Namespace) -> Iterator[Rule]:
    yield Rule("drop_connect", True, "in timm; its newer name is --drop-path")
    yield Rule("model_ema_force_cpu model_ema_decay model_ema_warmup", not args.model_ema, "without --model-ema")
    yield Rule("amp_dtype", not args.amp, "without --amp")
    yield Rule("torchcompile_mode", not args.torchcompile, "without --torchcompile")
    yield Rule("fuser", not args.torchscript, "without --torchscript")
    yield Rule("sync_bn dist_bn no_ddp_bb", world_size() == 1, "in a single process")
    yield Rule("dist_bn", args.sync_bn, "with --sync-bn, which leaves the ranks the same statistics")
    yield Rule("wandb_project wandb_tags wandb_resume_id", not args.log_wandb, "without --log-wandb")


def _rules_of_motivation(args: Namespace) -> Iterator[Rule]:
    # plugins and their arguments are of hooks, models and maps too
    of_motivated = [
        flag.dest for flag in FLAGS.values() if flag.motivated and not flag.dest.startswith("motivation_plugin")
    ]
    yield Rule(" ".join(of_motivated), not args.motivated_model, "without --motivated-model")
    with_condition = f"with --motivation-condition {args.motivation_condition}"
    yield Rule("motivation_k", not takes(args.motivation_condition, "k"), with_condition)
    for flag in FLAGS.values():
        is_read = not flag.conditions or args.motivation_condition in flag.conditions
        yield Rule(flag.dest, not is_read, with_condition)
