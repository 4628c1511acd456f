"""Every fault of the options that can be known before training, found together (house rule: fail once, at start-up)."""

from __future__ import annotations

import importlib.util
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from timm.optim import list_optimizers

from motivation.conditions import condition_names
from motivation.options import nearest
from weight_maps import WeightMapError, map_named

SCHEDULES = ("cosine", "tanh", "step", "multistep", "plateau", "poly", "wsd", "rsqrt", "constant", "none")

RESUME_NEWEST = "auto"
"""Value of ``--resume`` for the newest whole checkpoint of the experiment."""


class StartupError(ValueError):
    """Options that cannot be run. ``faults`` has a line for each."""

    def __init__(self, faults: Sequence[str]):
        self.faults = list(faults)
        super().__init__("; ".join(faults))


@contextmanager
def blaming(flags: str) -> Iterator[None]:
    """Turn what a library raises inside into a `StartupError` that names the options behind it."""
    try:
        yield
    except StartupError:
        raise
    except (ValueError, AssertionError, RuntimeError, TypeError, LookupError, OSError, ImportError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise StartupError([f"{flags}: {kind}{error}"]) from error


def option_faults(args: Namespace) -> list[str]:
    """What is wrong with the options by themselves: names, numbers, files, combinations."""
    return [
        *_name_faults(args),
        *_motivation_faults(args),
        *_combination_faults(args),
        *_file_faults(args),
        *_device_faults(args),
    ]


def _name_faults(args: Namespace) -> Iterator[str]:
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
    ):
        if value not in known:
            yield f"{flag}: {value!r} is not one of {', '.join(known)}"


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
    if args.tta > (args.validation_batch_size or args.batch_size):
        yield f"--tta: {args.tta} views do not fit into a validation batch"
    if not 0 <= args.seed + _world_size() - 1 < 2**32 or args.seed < 0:
        yield f"--seed: from 0 to {2**32 - _world_size()}, not {args.seed}"
    at_least_one = ("batch_size", "epochs", "val_interval", "checkpoint_hist", "log_interval")
    for name, least in [*((name, 1) for name in at_least_one), ("start_epoch", 0), ("workers", 0), ("train_pad", 0)]:
        number = getattr(args, name)
        if number is not None and number < least:
            yield f"--{name.replace('_', '-')}: at least {least}, not {number}"


def _file_faults(args: Namespace) -> Iterator[str]:
    for flag, path in (
        ("--resume", "" if args.resume == RESUME_NEWEST else args.resume),
        ("--initial-checkpoint", args.initial_checkpoint),
        ("--pretrained-path", args.pretrained_path),
        ("--motivated-initial-checkpoint", args.motivated_initial_checkpoint if args.motivated_model else ""),
    ):
        if path and not os.path.isfile(path):
            yield f"{flag}: there is no file {path}"
    if args.resume == RESUME_NEWEST and not args.experiment:
        yield "--resume auto: give --experiment, the name of the run to go on with"
    yield from _data_faults(args)
    folder = Path(args.output or "./output/train").absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield f"--output: {folder} cannot be written"


def _data_faults(args: Namespace) -> Iterator[str]:
    kind = args.dataset.partition("/")[0].lower() if "/" in args.dataset else ""
    folder = args.data_dir or args.data
    if kind in ("sklearn", "hfds", "hfids", "tfds", "wds"):
        return
    if not folder:
        yield "--data-dir: say where the data are"
    elif not os.path.exists(folder):
        if not args.dataset_download:
            yield f"--data-dir: there is no folder {folder}"
    elif not kind and os.path.isdir(folder):
        yield from _split_faults(args, Path(folder))


def _split_faults(args: Namespace, folder: Path) -> Iterator[str]:
    """Where one split is a folder and the other is not, timm would read all of ``folder`` for the latter."""
    from timm.data.dataset_factory import _search_split

    splits = {"--train-split": args.train_split, "--val-split": args.val_split if args.folds is None else None}
    found = {flag: _search_split(str(folder), name) != str(folder) for flag, name in splits.items() if name}
    if any(found.values()):
        there = ", ".join(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())) or "nothing"
        for flag, is_there in found.items():
            if not is_there:
                yield f"{flag}: {folder} has no split {splits[flag]!r}; it has {there}"


def _device_faults(args: Namespace) -> Iterator[str]:
    if args.device.startswith("cuda") and not torch.cuda.is_available() and not args.device_modules:
        yield f"--device: {args.device} is not available; use --device cpu"
    if args.sync_bn and args.device == "cpu" and _world_size() > 1:
        yield "--sync-bn: torch has it on accelerators only, not on the CPU"


def _world_size() -> int:
    """As timm reads it from the environment."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
