"""What DistributedDataParallel costs in memory: each of the models has a reducer, with buckets for its gradients."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.models import create_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from motivation.tools.benchmark.timing import table

MODELS = ("resnet18", "resnet50", "resnet101", "vit_small_patch16_224", "vit_base_patch16_224")


def memory_table(models: Sequence[str], device: torch.device) -> str:
    """For each model: megabytes of parameters, and of what DDP adds after some updates."""
    lines = []
    for name in models:
        (parameters, alone), (_, wrapped) = (_in_new_process(name, device, ddp) for ddp in (False, True))
        added = (wrapped - alone) / 1e6
        lines.append((name, f"{parameters / 1e6:.0f}", f"{added:.0f}", f"{added * 1e6 / parameters:.2f}"))
    return table(["model", "parameters MB", "DDP adds MB", "of the parameters"], lines)


def _in_new_process(*what: Any) -> tuple[int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, what)


def _measure(name: str, device: torch.device, ddp: bool) -> tuple[int, int]:
    """Bytes of a model's parameters, and in use between two updates."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        bare: Any = create_model(name).to(device)
        model: nn.Module = bare
        if ddp:
            model = DistributedDataParallel(bare, device_ids=None if device.type == "cpu" else [device])
        for _ in range(3):  # the first ones make the buckets, and make them anew in the order of the backward pass
            model(torch.randn(2, *bare.default_cfg["input_size"], device=device)).sum().backward()
            model.zero_grad()
        used = _used(device)
        dist.destroy_process_group()
    return sum(parameter.numel() * parameter.element_size() for parameter in bare.parameters()), used


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # what was freed is not in use
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
