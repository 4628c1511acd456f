"""Every fault of the options that can be known before training, found together (house rule: fail once, at start-up)."""

from __future__ import annotations

import importlib.util
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from PIL import ImageMode
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from timm.optim import list_optimizers

from motivation.data.datasets import CIFAR_POLICY
from motivation.data.device_data import unsupported
from motivation.errors import InputError
from motivation.method.condition_registry import condition_names
from motivation.options.config_files import nearest
from motivation.options.file_checks import file_faults
from motivation.options.ranges import number_faults
from weight_maps import WeightMapError, map_named

SCHEDULES = ("cosine", "tanh", "step", "multistep", "plateau", "poly", "wsd", "rsqrt", "constant", "none")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
LONGEST_REASON = 600
"""Characters of what a library says; it may list every tensor of a model."""


class StartupError(InputError):
    """Options that cannot be run. ``faults`` has a line for each."""

    def __init__(self, faults: Sequence[str]):
        super().__init__(*faults)


def one_line(error: object) -> str:
    """What a library says, on one line.

    >>> one_line(ValueError("two\\n  lines"))
    'two lines'
    """
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + " ..."


@contextmanager
def blaming(flags: str) -> Iterator[None]:
    """Turn what a library raises inside into a `StartupError` that names the options behind it."""
    try:
        yield
    except StartupError:
        raise
    except LIBRARY_ERRORS as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise StartupError([f"{' '.join(flags.split())}: {kind}{one_line(error)}"]) from error


LIBRARY_ERRORS = (
    ValueError, AssertionError, RuntimeError, TypeError, LookupError, OSError, ImportError, EOFError, AttributeError,
)  # fmt: skip
"""What libraries raise for options and files that they were not made for."""


def option_faults(args: Namespace) -> list[str]:
    """What is wrong with the options by themselves: names, numbers, files, combinations."""
    found = (
        *_name_faults(args),
        *number_faults(args),
        *_motivation_faults(args),
        *_combination_faults(args),
        *file_faults(args),
        *_device_faults(args),
    )
    return [one_line(fault) for fault in found]


def _name_faults(args: Namespace) -> Iterator[str]:
    if not args.model:
        yield "--model: give the name of a timm model"
    yield from _unknown_model("--model", args.model)
    yield from _unknown_model("--kd-model-name", args.kd_model_name)
    optimizer = args.opt.lower().removeprefix("lookahead_").replace("_", "")
    known_optimizers = [str(name) for name in list_optimizers()]
    if optimizer not in known_optimizers:
        yield f"--opt: timm has no optimizer {args.opt!r}{nearest(optimizer, known_optimizers)}"
    for flag, value, known in (
        ("--sched", args.sched, SCHEDULES),
        ("--eval-metric", args.eval_metric, ("top1", "top5", "loss")),
        ("--clip-mode", args.clip_mode, ("norm", "value", "agc")),
        ("--amp-dtype", args.amp_dtype, ("float16", "bfloat16")),
        ("--model-dtype", args.model_dtype or "float32", ("float32", "float16", "bfloat16")),
        ("--worker-seeding", args.worker_seeding, ("all", "part")),
        ("--mixup-mode", args.mixup_mode, ("batch", "pair", "elem")),
        ("--remode", args.remode, ("const", "rand", "pixel")),
        ("--train-crop-mode", args.train_crop_mode or "rrc", ("rrc", "rkrc", "rkrr")),
        ("--interpolation", args.interpolation or "bicubic", INTERPOLATIONS),
        ("--train-interpolation", args.train_interpolation or "random", ("random", *INTERPOLATIONS)),
        ("--lr-base-scale", args.lr_base_scale or "linear", ("linear", "sqrt")),
        ("--dist-bn", args.dist_bn or "reduce", ("reduce", "broadcast")),
        ("--torchcompile-mode", args.torchcompile_mode or "default", COMPILE_MODES),
    ):
        if value not in known:
            yield f"{flag}: {value!r} is not one of {', '.join(known)}"
    if args.aa and args.aa != CIFAR_POLICY and not _is_policy(args.aa):
        yield f"--aa: {args.aa!r} is not rand-..., augmix-..., original, originalr, v0, v0r, 3a or {CIFAR_POLICY}"
    if args.torchcompile:
        backends = torch._dynamo.list_backends(exclude_tags=())
        if args.torchcompile not in backends:
            yield f"--torchcompile: {args.torchcompile!r} is not one of {', '.join(backends)}"


def _is_policy(name: str) -> bool:
    """Whether timm can make an augmentation of it."""
    make: Any = auto_augment_transform
    if name.startswith("rand"):
        make = rand_augment_transform
    elif name.startswith("augmix"):
        make = augment_and_mix_transform
    try:
        make(name, {})
    except (AssertionError, ValueError, LookupError):
        return False
    return True


def _unknown_model(flag: str, name: str | None) -> Iterator[str]:
    if name and ":" not in name and not timm.is_model(name):  # a colon: hf-hub:..., local-dir:...
        known = [str(model) for model in timm.list_models()]
        yield f"{flag}: timm has no model {name!r}{nearest(name.split('.')[0], known)}"


def _motivation_faults(args: Namespace) -> Iterator[str]:
    if args.motivation_condition not in condition_names():
        hint = nearest(args.motivation_condition, condition_names())
        yield (
            f"--motivation-condition: there is no {args.motivation_condition!r}{hint}; "
            f"there are {', '.join(condition_names())}"
        )
    if args.motivation_k < 1:
        yield f"--motivation-k: a streak has at least one update, not {args.motivation_k}"
    if args.motivation_bn_recalibrate < 0:
        yield f"--motivation-bn-recalibrate: a number of batches, not {args.motivation_bn_recalibrate}"
    if args.motivation_map:
        try:
            map_named(args.motivation_map)
        except WeightMapError as error:
            yield f"--motivation-map: {error.title}; {error.faults[0]}"
    if not args.motivated_model:
        return
    yield from _unknown_model("--motivated-model", args.motivated_model)
    if args.naflex_loader:
        yield (
            "--naflex-loader: not with --motivated-model: batches of varying size and sequence length make the losses "
            "of successive updates incomparable"
        )
    if args.torchscript:
        yield "--torchscript: not with --motivated-model: a scripted module's weights are copied when it is scripted"
    if args.layer_decay is not None:
        yield (
            "--layer-decay: not with --motivated-model: one shared weight would have two learning rates, because its "
            "depth differs in the two models"
        )


def _combination_faults(args: Namespace) -> Iterator[str]:
    splits, mixes = args.aug_splits, args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None
    if splits == 1 or splits < 0:
        yield f"--aug-splits: 0 or at least 2, not {splits}"
    if args.jsd_loss and splits < 2:
        yield "--jsd-loss: needs --aug-splits of 2 or more"
    if args.split_bn and splits < 2 and not args.resplit:
        yield "--split-bn: needs --aug-splits of 2 or more, or --resplit"
    if mixes and splits > 1 and not args.no_prefetcher and not args.naflex_loader:
        yield "--aug-splits: mixup and cutmix with augmentation splits need --no-prefetcher"
    if args.naflex_loader:
        if args.train_img_sizes is not None:
            yield "--train-img-sizes: not with --naflex-loader; choose one of them"
        if args.use_multi_epochs_loader:
            yield "--use-multi-epochs-loader: not with --naflex-loader"
        if splits > 1:
            yield "--aug-splits: not with --naflex-loader"
    if args.naflex_patch_size_probs and len(args.naflex_patch_size_probs) != len(args.naflex_patch_sizes or ()):
        yield "--naflex-patch-size-probs: as many numbers as --naflex-patch-sizes"
    if args.amp and args.model_dtype not in (None, "float32"):
        yield f"--model-dtype: with --amp the weights are float32, not {args.model_dtype}"
    if args.data_on_device:
        yield from unsupported(args)
    if args.sync_bn and args.split_bn:
        yield "--sync-bn: not with --split-bn"
    if args.sync_bn and args.torchscript:
        yield "--sync-bn: not with --torchscript"
    if args.sched == "plateau" and args.sched_on_updates:
        yield "--sched plateau: follows the validation metric, so not with --sched-on-updates"
    if args.log_tensorboard and importlib.util.find_spec("tensorboard") is None:
        yield "--log-tensorboard: needs the package tensorboard: pip install tensorboard"
    if args.wandb_resume_id and not args.resume:
        yield "--wandb-resume-id: needs --resume"
    if args.aug_repeats and args.aug_repeats < 1:
        yield f"--aug-repeats: 0 for none, or at least 1, not {args.aug_repeats}"
    if args.aug_repeats and args.train_img_sizes is not None:
        yield "--aug-repeats: not with --train-img-sizes, whose sampler makes the batches"
    if (args.folds is None) != (args.fold is None):
        yield "--folds: give --folds N and --fold I together"
    elif args.folds is not None and (args.folds < 2 or not 0 <= args.fold < args.folds):
        yield f"--fold: from 0 to --folds minus 1, of at least 2 folds, not {args.fold} of {args.folds}"
    if args.train_pad and (args.no_aug or args.train_crop_mode not in (None, "rrc") or args.naflex_loader):
        yield "--train-pad: replaces the random resized crop; not with --no-aug, --train-crop-mode, --naflex-loader"
    if args.sched == "step" and args.decay_epochs <= 0:
        yield f"--decay-epochs: more than 0 for --sched step, not {args.decay_epochs}"
    if mixes and args.batch_size % 2 and not args.naflex_loader:
        yield f"--batch-size: mixup and cutmix mix pairs, so an even number, not {args.batch_size}"
    yield from _size_faults(args)


def _size_faults(args: Namespace) -> Iterator[str]:
    channels = args.input_size[0] if args.input_size else args.in_chans or 3
    yield from _image_mode_faults(args, channels)
    if args.in_chans is not None and args.in_chans != channels:
        yield f"--in-chans: {args.in_chans}, but --input-size has {channels} channels"
    if args.val_input_size and args.val_input_size[0] != channels:
        yield f"--val-input-size: {args.val_input_size[0]} channels, but training images have {channels}"
    for flag, numbers in (("--mean", args.mean), ("--std", args.std)):
        if numbers and len(numbers) not in (1, channels):
            yield f"{flag}: {len(numbers)} numbers for {channels} channels"
    for flag, numbers in (("--scale", args.scale), ("--ratio", args.ratio), ("--cutmix-minmax", args.cutmix_minmax)):
        if numbers and len(numbers) != 2:
            yield f"{flag}: two numbers, lowest and highest, not {len(numbers)}"
    if args.cutmix_minmax and len(args.cutmix_minmax) == 2 and args.cutmix_minmax[0] >= args.cutmix_minmax[1]:
        yield f"--cutmix-minmax: the lowest number, then a higher one, not {args.cutmix_minmax}"
    for flag, numbers in (
        ("--train-batch-sizes", args.train_batch_sizes),
        ("--train-size-probs", args.train_size_probs),
    ):
        if numbers and args.train_img_sizes and len(numbers) != len(args.train_img_sizes):
            yield f"{flag}: as many numbers as --train-img-sizes, {len(args.train_img_sizes)}, not {len(numbers)}"
    if args.tta > max(args.validation_batch_size or args.batch_size, 0):
        yield f"--tta: {args.tta} views do not fit into a validation batch"
    if not 0 <= args.seed + _world_size() - 1 < 2**32 or args.seed < 0:
        yield f"--seed: from 0 to {2**32 - _world_size()}, not {args.seed}"


def _image_mode_faults(args: Namespace, channels: int) -> Iterator[str]:
    if not args.input_img_mode:
        return
    try:
        bands = len(ImageMode.getmode(args.input_img_mode).bands)
    except KeyError:
        yield f"--input-img-mode: there is no mode {args.input_img_mode!r}; RGB, L, RGBA and CMYK are usual"
        return
    if bands != channels and not args.dataset.lower().startswith("torch/"):  # timm's torch/ sets do not look at it
        yield f"--input-img-mode: {args.input_img_mode} has {bands} channels, the models take {channels} (--in-chans)"


def _device_faults(args: Namespace) -> Iterator[str]:
    if args.device.startswith("cuda") and not torch.cuda.is_available() and not args.device_modules:
        yield f"--device: {args.device} is not available; use --device cpu"
    if args.sync_bn and args.device == "cpu" and _world_size() > 1:
        yield "--sync-bn: torch has it on accelerators only, not on the CPU"


def _world_size() -> int:
    """As timm reads it from the environment."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
