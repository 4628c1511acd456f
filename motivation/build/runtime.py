"""Start a process of a run: ranks, device, precision and seeds."""

from __future__ import annotations

import logging
import os
import warnings
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from timm import utils
from timm.layers import set_fast_norm

from motivation.build.ranks import Ranks
from motivation.options.derived import AUTO_DEVICE, device_of
from motivation.options.faults import blaming
from motivation.training.allocator import keep_freed_memory
from motivation.versions import usable_cores

_logger = logging.getLogger("train")

NONE_SUCH = "torch.use_deterministic_algorithms(True)"
"""Stands in torch's errors about operations that are not deterministic."""


@dataclass(frozen=True)
class Runtime:
    """Device, ranks and precision of a run.

    Attributes:
        local_rank: the rank among those of this machine.
        dtype: of the weights; None for float32.
        autocast: makes the context of a forward pass.
        scaler: of gradients in float16 AMP, else None.
    """

    device: torch.device
    rank: int
    local_rank: int
    world_size: int
    dtype: torch.dtype | None
    autocast: Callable[[], AbstractContextManager]
    scaler: torch.amp.GradScaler | None

    @property
    def primary(self) -> bool:
        """True on the rank that logs and writes files."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """True if there are other ranks."""
        return self.world_size > 1


def start_runtime(args: Namespace, ranks: Ranks) -> Runtime:
    """Join the other ranks, choose the device and its kernels, seed everything.

    Raises:
        StartupError: the device is not there.
    """
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if args.deterministic:
        _choose_deterministic_kernels()
    joined = Namespace(device=device_of(args), dist_url=ranks.address())
    with blaming("--device", args.device):
        utils.init_distributed_device(joined)
        device = torch.device(joined.device)
        torch.get_device_module(device)
        torch.zeros(1, device=device)
        _make_current(device)
    if device.type == "cpu":
        keep_freed_memory()
    dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    autocast: Callable[[], AbstractContextManager] = nullcontext
    scaler = None
    if args.amp:
        amp_dtype = torch.bfloat16 if args.amp_dtype == "bfloat16" else torch.float16
        autocast = partial(torch.autocast, device_type=device.type, dtype=amp_dtype)
        if device.type == "cuda" and amp_dtype == torch.float16:
            scaler = torch.amp.GradScaler(device=device.type)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # `announce_runtime` says it in our words
    utils.random_seed(seed=args.seed, rank=joined.rank)
    if args.fuser:
        with blaming("--fuser", args.fuser):
            utils.set_jit_fuser(args.fuser)
    if args.fast_norm:
        set_fast_norm()

    return Runtime(device, joined.rank, joined.local_rank, joined.world_size, dtype, autocast, scaler)


def announce_runtime(args: Namespace, runtime: Runtime) -> None:
    """Log on what a training runs, and in which precision."""
    if runtime.primary:
        precision = f"AMP in {args.amp_dtype}" if args.amp else str(runtime.dtype or torch.float32)
        chosen = f" (--device {AUTO_DEVICE})" if args.device == AUTO_DEVICE else ""
        processes = f"{runtime.world_size} process(es)"
        _logger.info(f"Training on {runtime.device}{chosen} in {precision.removeprefix('torch.')}, {processes}.")
        if args.workers > (cores := usable_cores()):
            _logger.info(f"--workers {args.workers}: this process has {cores} CPU core(s), so {cores} may do as well.")


def _choose_deterministic_kernels() -> None:
    """Keep to kernels that give the same bits each time; torch raises where an operation has none (`NONE_SUCH`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # is read when cuBLAS is first used
    torch.backends.cudnn.benchmark = False  # it times kernels, and may choose others the next time
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
    # nothing here reads uninitialized memory, and to fill it takes as long as half an update on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _make_current(device: torch.device) -> None:
    """Make a device the current one, whose random states are saved; timm does so for CUDA and Ascend only."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and device.type == accelerator.type and device.index is not None:
        torch.accelerator.set_device_index(device)
