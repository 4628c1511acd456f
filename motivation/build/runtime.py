"""Start a process of a run: ranks, device, precision and seeds."""

from __future__ import annotations

import importlib
import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm import utils
from timm.layers import set_fast_norm
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from motivation.options.faults import Fault, StartupError, blaming
from motivation.training.allocator import keep_freed_memory

_logger = logging.getLogger("train")


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


def start_runtime(args: Namespace) -> Runtime:
    """Join the other ranks, choose the device, seed everything.

    Raises:
        StartupError: the device, or a library for it, is not there.
    """
    for module in args.device_modules or ():
        with blaming("--device-modules", module):
            importlib.import_module(module)
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    joined = _join(args.device)
    device = torch.device(joined.device)
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
    utils.random_seed(seed=args.seed, rank=joined.rank)
    if args.fuser:
        with blaming("--fuser", args.fuser):
            utils.set_jit_fuser(args.fuser)
    if args.fast_norm:
        set_fast_norm()

    runtime = Runtime(device, joined.rank, joined.local_rank, joined.world_size, dtype, autocast, scaler)
    if runtime.primary:
        precision = f"AMP in {args.amp_dtype}" if args.amp else str(dtype or torch.float32).removeprefix("torch.")
        _logger.info(f"Training on {device} in {precision}, {runtime.world_size} process(es).")
    return runtime


def _join(device: str) -> Namespace:
    """Meet the other ranks, if there are any.

    torchrun's store outlives a restart on one machine, and with it the addresses of processes that are gone; so each
    attempt keeps its own part of it.

    Returns:
        What timm finds out: ``device``, ``rank``, ``local_rank``, ``world_size``.
    """
    _refuse_missing_launcher()
    joined = Namespace(device=device)
    if "TORCHELASTIC_RESTART_COUNT" in os.environ and os.environ.get("GROUP_WORLD_SIZE") == "1":
        with suppress(RuntimeError):  # registered already
            register_rendezvous_handler(_ATTEMPT, _meet_in_attempt)
        joined.dist_url = f"{_ATTEMPT}://"
    with blaming("--device", device):
        utils.init_distributed_device(joined)
    return joined


def _refuse_missing_launcher() -> None:
    """Refuse to wait for other processes where nothing has started any.

    Raises:
        StartupError: a variable announces them, as in a shell on a SLURM node, but no launcher has said how to meet.
    """
    if not utils.is_distributed_env():
        return
    needed = ["MASTER_ADDR", "MASTER_PORT"] + ["RANK"] * ("SLURM_PROCID" not in os.environ)
    if missing := [name for name in needed if name not in os.environ]:
        announced = "WORLD_SIZE" if "WORLD_SIZE" in os.environ else "SLURM_NTASKS"
        text = (
            f"several processes are announced, but without {', '.join(missing)}: start them with torchrun or srun, or "
            f"unset {announced} to train in this one"
        )
        raise StartupError([Fault(f"{announced}={os.environ[announced]}", text)])


_ATTEMPT = "torchrunattempt"


def _meet_in_attempt(url: str, **options: Any) -> Iterator[tuple[Any, int, int]]:
    for store, rank, world_size in rendezvous("env://", **options):
        yield PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store), rank, world_size
