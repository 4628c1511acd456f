"""Device, ranks, precision and seeds."""

from __future__ import annotations

import importlib
import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from timm import utils
from timm.layers import set_fast_norm

from motivation.checks import blaming

_logger = logging.getLogger("train")


@dataclass(frozen=True)
class Runtime:
    """Where and in what precision a run computes.

    Attributes:
        dtype: of the weights; None for float32.
        autocast: makes the context of a forward pass.
        scaler: of gradients in float16 AMP, else None.
    """

    device: torch.device
    rank: int
    world_size: int
    dtype: torch.dtype | None
    autocast: Callable[[], AbstractContextManager]
    scaler: torch.amp.GradScaler | None

    @property
    def primary(self) -> bool:
        """Whether this rank logs and writes files."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are other ranks."""
        return self.world_size > 1


def start_runtime(args: Namespace) -> Runtime:
    """Join the other ranks, choose the device, seed everything."""
    for module in args.device_modules or ():
        importlib.import_module(module)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    args.prefetcher = not args.no_prefetcher
    args.grad_accum_steps = max(1, args.grad_accum_steps)

    device = utils.init_distributed_device(args)
    with blaming("--model-dtype"):
        dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    autocast: Callable[[], AbstractContextManager] = nullcontext
    scaler = None
    if args.amp:
        amp_dtype = torch.bfloat16 if args.amp_dtype == "bfloat16" else torch.float16
        autocast = partial(torch.autocast, device_type=device.type, dtype=amp_dtype)
        if device.type == "cuda" and amp_dtype == torch.float16:
            scaler = torch.amp.GradScaler(device=device.type)
    utils.random_seed(seed=args.seed, rank=args.rank)
    if args.fuser:
        with blaming("--fuser"):
            utils.set_jit_fuser(args.fuser)
    if args.fast_norm:
        set_fast_norm()

    runtime = Runtime(device, args.rank, args.world_size, dtype, autocast, scaler)
    if runtime.primary:
        precision = f"AMP in {args.amp_dtype}" if args.amp else str(dtype or torch.float32).removeprefix("torch.")
        _logger.info(f"Training on {device} in {precision}, {args.world_size} process(es).")
    return runtime
