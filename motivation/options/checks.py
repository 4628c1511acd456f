"""Check what the parser cannot: names that libraries or plugins register, and options that do not go together.

Nothing is opened, made or allocated. All faults are found at once, so that a user corrects them once.
"""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from collections.abc import Iterator, Sequence

import timm
import torch
from timm.optim import list_optimizers

from motivation.method.condition_registry import condition_names
from motivation.options.config_files import nearest
from motivation.options.derived import channels, device_of, mixes, world_size
from motivation.options.faults import Fault, one_line
from motivation.options.file_checks import file_faults
from motivation.options.flags import FLAGS
from weight_maps import WeightMapError, map_named


def option_faults(args: Namespace) -> list[Fault]:
    """Return what is wrong with the options by themselves: names, combinations, files, the device.

    Args:
        args: from the parser, which has checked each value on its own; the plugins are loaded.
    """
    found = (
        *_name_faults(args),
        *_combination_faults(args),
        *_size_faults(args),
        *file_faults(args),
        *_device_faults(args),
    )
    return [Fault(fault.flag, one_line(fault.text), fault.value) for fault in found]


def _name_faults(args: Namespace) -> Iterator[Fault]:
    if not args.model:
        yield Fault("--model", "give the name of a timm model")
    for flag, name in (
        ("--model", args.model), ("--kd-model-name", args.kd_model_name), ("--motivated-model", args.motivated_model),
    ):  # fmt: skip
        if name and ":" not in name and not timm.is_model(name):  # a colon: hf-hub:..., local-dir:...
            known = [str(model) for model in timm.list_models()]
            yield Fault(flag, f"timm has no model {name!r}{nearest(name.split('.')[0], known)}")
    optimizer, optimizers = args.opt.lower().removeprefix("lookahead_").replace("_", ""), map(str, list_optimizers())
    if optimizer not in (known := list(optimizers)):
        yield Fault("--opt", f"timm has no optimizer {args.opt!r}{nearest(optimizer, known)}")
    if args.torchcompile:
        yield from _unknown("--torchcompile", args.torchcompile, torch._dynamo.list_backends(exclude_tags=()))
    yield from _unknown("--motivation-condition", args.motivation_condition, condition_names())
    if args.motivation_map:
        try:
            map_named(args.motivation_map)
        except WeightMapError as error:
            yield Fault("--motivation-map", f"{error.title}; {error.faults[0]}")


def _unknown(flag: str, name: str, known: Sequence[str]) -> Iterator[Fault]:
    if name not in known:
        yield Fault(flag, f"there is no {name!r}{nearest(name, known)}; there are {', '.join(known)}")


def _combination_faults(args: Namespace) -> Iterator[Fault]:
    naflex, splits, sizes = args.naflex_loader, args.aug_splits, args.train_img_sizes is not None
    crops = not (args.no_aug or args.train_crop_mode not in (None, "", "rrc") or naflex)
    rules = (
        ("--jsd-loss", args.jsd_loss and splits < 2, "needs --aug-splits of 2 or more"),
        ("--split-bn", args.split_bn and splits < 2 and not args.resplit, "needs --aug-splits of 2 or more, or "
         "--resplit"),
        ("--aug-splits", mixes(args) and splits > 1 and not naflex, "not with mixup and cutmix"),
        ("--aug-splits", args.no_prefetcher and splits > 1, "not with --no-prefetcher, which puts the splits together"),
        ("--aug-splits", naflex and splits > 1, "not with --naflex-loader"),
        ("--train-img-sizes", naflex and sizes, "not with --naflex-loader"),
        ("--no-prefetcher", naflex and args.no_prefetcher, "not with --naflex-loader"),
        ("--naflex-loader", naflex and channels(args) != 3, "takes images of 3 channels only"),
        ("--use-multi-epochs-loader", naflex and args.use_multi_epochs_loader, "not with --naflex-loader"),
        ("--naflex-patch-size-probs", _lengths_differ(args.naflex_patch_size_probs, args.naflex_patch_sizes or ()),
         "as many numbers as --naflex-patch-sizes"),
        ("--model-dtype", args.amp and args.model_dtype not in (None, "", "float32"),
         f"with --amp the weights are float32, not {args.model_dtype}"),
        ("--sync-bn", args.sync_bn and args.split_bn, "not with --split-bn"),
        ("--sync-bn", args.sync_bn and args.torchscript, "not with --torchscript"),
        ("--sched", args.sched == "plateau" and args.sched_on_updates,
         "plateau follows the validation metric, so not with --sched-on-updates"),
        ("--decay-epochs", args.sched == "step" and args.decay_epochs <= 0,
         f"more than 0 for --sched step, not {args.decay_epochs}"),
        ("--lr-cycle-mul", args.sched in ("cosine", "tanh", "poly") and args.lr_cycle_mul <= 0,
         f"more than 0 for --sched {args.sched}, not {args.lr_cycle_mul}"),
        ("--opt-kwargs", args.motivated_model and args.opt_kwargs.get("update_each", 1) != 1,
         "with --motivated-model no update_each: AdaHessian's trace cannot be carried from one model to the other"),
        ("--log-tensorboard", args.log_tensorboard and importlib.util.find_spec("tensorboard") is None,
         "needs the package tensorboard: pip install tensorboard"),
        ("--check-numerics", args.check_numerics and (args.torchcompile or args.torchscript),
         "not with --torchcompile or --torchscript: compiled modules cannot be looked into"),
        ("--wandb-resume-id", args.wandb_resume_id and not args.resume, "needs --resume"),
        ("--aug-repeats", args.aug_repeats and sizes, "not with --train-img-sizes, whose sampler makes the batches"),
        ("--folds", (args.folds is None) != (args.fold is None), "give --folds N and --fold I together"),
        ("--fold", None not in (args.folds, args.fold) and args.fold >= args.folds,
         f"from 0 to --folds minus 1, not {args.fold} of {args.folds}"),
        ("--train-pad", args.train_pad and not crops,
         "replaces the random resized crop; not with --no-aug, --train-crop-mode, --naflex-loader"),
        ("--batch-size", mixes(args) and args.batch_size % 2 and not naflex,
         f"mixup and cutmix mix pairs, so an even number, not {args.batch_size}"),
        ("--data-on-device", args.data_on_device and not args.train_pad,
         "give --train-pad: timm's random resized crop needs each image at its own size"),
    )  # fmt: skip
    yield from (Fault(flag, text) for flag, wrong, text in rules if wrong)
    for flag in FLAGS.values():
        value = getattr(args, flag.dest)
        if args.motivated_model and flag.not_motivated and value not in (None, False):
            yield Fault(flag.option, f"not with --motivated-model: {flag.not_motivated}")
        if args.data_on_device and flag.per_image and value:
            given = "" if value is True else f" {value}"
            yield Fault("--data-on-device", f"not with {flag.option}{given}; it crops, flips, erases and mixes only")


def _lengths_differ(numbers: Sequence[float] | None, others: Sequence[float]) -> bool:
    return bool(numbers) and len(numbers or ()) != len(others)


def _size_faults(args: Namespace) -> Iterator[Fault]:
    count = args.input_size[0] if args.input_size else channels(args)
    yield from _image_mode_faults(args, count)
    if args.in_chans is not None and args.in_chans != count:
        yield Fault("--in-chans", f"{args.in_chans}, but --input-size has {count} channels")
    if args.val_input_size and args.val_input_size[0] != count:
        yield Fault("--val-input-size", f"{args.val_input_size[0]} channels, but training images have {count}")
    for flag, numbers in (("--mean", args.mean), ("--std", args.std)):
        if numbers and len(numbers) not in (1, count):
            yield Fault(flag, f"{len(numbers)} numbers for {count} channels")
    for flag, numbers in (("--scale", args.scale), ("--ratio", args.ratio), ("--cutmix-minmax", args.cutmix_minmax)):
        if _lengths_differ(numbers, (0, 1)):
            yield Fault(flag, f"two numbers, lowest and highest, not {len(numbers)}")
    if args.cutmix_minmax and len(args.cutmix_minmax) == 2 and args.cutmix_minmax[0] >= args.cutmix_minmax[1]:
        yield Fault("--cutmix-minmax", f"the lowest number, then a higher one, not {args.cutmix_minmax}")
    sizes = args.train_img_sizes
    for flag, numbers in (
        ("--train-batch-sizes", args.train_batch_sizes), ("--train-size-probs", args.train_size_probs),
    ):  # fmt: skip
        if sizes and _lengths_differ(numbers, sizes):
            yield Fault(flag, f"as many numbers as --train-img-sizes, {len(sizes)}, not {len(numbers)}")
    if args.tta > (args.validation_batch_size or args.batch_size):
        yield Fault("--tta", f"{args.tta} views do not fit into a validation batch")
    if args.seed + world_size() > 2**32:
        yield Fault("--seed", f"from 0 to {2**32 - world_size()}, not {args.seed}")


IMAGE_MODES = {
    "L": 1, "LA": 2, "RGB": 3, "YCbCr": 3, "LAB": 3, "HSV": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4,
}  # fmt: skip
"""PIL's modes whose pixels are one byte per channel, with the number of channels.

Pixels of others do not survive: those of ``1`` become black, those of ``P`` are numbers of colours, those of ``I;16``,
``I`` and ``F`` are taken modulo 256.
"""
GREY_OR_RGB = ("L", "RGB")
"""Modes that PIL's operations of automatic augmentation take."""


def _image_mode_faults(args: Namespace, count: int) -> Iterator[Fault]:
    if args.dataset.lower().startswith("torch/"):  # timm's torch/ sets do not look at it
        return
    fitting = [mode for mode, number in IMAGE_MODES.items() if number == count]
    mode = args.input_img_mode or next((mode for mode in GREY_OR_RGB if mode in fitting), None)
    if mode is None:
        text = f"say which mode images of {count} channels have: {' or '.join(fitting)}"
        yield Fault("--input-img-mode", text) if fitting else Fault("--in-chans", f"PIL has no {count} channels")
    elif mode not in IMAGE_MODES:
        hint = "L" if count == 1 else "RGB"
        text = f"use one of {', '.join(IMAGE_MODES)} ({hint}?); pixels of other modes are not one byte per channel"
        yield Fault("--input-img-mode", text, mode)
    elif mode not in fitting:
        text = f"{mode} has {IMAGE_MODES[mode]} channels, the models take {count} (--in-chans)"
        yield Fault("--input-img-mode", text)
    elif args.no_aug:
        return
    elif mode == "LAB" and args.color_jitter:
        yield Fault("--color-jitter", "not for images of mode LAB; give --color-jitter 0")
    elif mode not in GREY_OR_RGB and args.aa:
        yield Fault("--aa", f"augments images of the modes L and RGB, not of {mode}; give --aa ''", args.aa)
    elif count not in (1, 3) and args.grayscale_prob:
        yield Fault("--grayscale-prob", f"not for images of {count} channels")


def _device_faults(args: Namespace) -> Iterator[Fault]:
    if args.device.startswith("cuda") and not torch.cuda.is_available() and not args.device_modules:
        yield Fault("--device", f"{args.device} is not available; use --device cpu, or auto")
    if args.sync_bn and device_of(args) == "cpu" and world_size() > 1:
        yield Fault("--sync-bn", "torch has it on accelerators only, not on the CPU")
    if args.opt.lower().endswith("adahessian") and world_size() > 1:
        yield Fault("--opt", "needs second derivatives, which torch does not have for several processes", args.opt)
