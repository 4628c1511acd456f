"""Derive values that depend on the options alone."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import torch

AUTO_DEVICE = "auto"


def device_of(args: Namespace) -> str:
    """Return the device to train on, as timm takes it: for ``auto``, the accelerator that is there, or the CPU."""
    if args.device != AUTO_DEVICE:
        return str(args.device)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def mixes(args: Namespace) -> bool:
    """Return True if mixup or cutmix is on, so that targets are dense."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def channels(args: Namespace) -> int:
    """Return the number of channels of the input images."""
    if args.in_chans is not None:
        return args.in_chans
    return args.input_size[0] if args.input_size is not None else 3


def accum_steps(args: Namespace) -> int:
    """Return the number of micro-batches of one update; 0 is 1, as in timm."""
    return max(1, args.grad_accum_steps)


def holds_images_out(args: Namespace) -> bool:
    """Return True if the condition watches images of the training split, which are then not trained on."""
    from motivation.method.condition_registry import needs_of

    return bool(args.motivated_model) and "validation_loss" in needs_of(args.motivation_condition)


def pins_memory(args: Namespace, device_type: str) -> bool:
    """Return True if batches are copied to the device from pinned memory.

    From other memory the host may have to wait for the copy, and so for the whole update before it.
    """
    return (args.pin_mem or device_type == "cuda") and not args.no_pin_mem


def data_folder(args: Namespace) -> str | None:
    """Return the folder of the data set; timm has two flags for it."""
    return args.data_dir or args.data


def output_folder(args: Namespace) -> Path:
    """Return the folder in which runs have their folders."""
    return Path(args.output or "./output/train")


def world_size() -> int:
    """Return the number of processes, from the variables of the environment that timm reads."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
