"""Measure the memory that DistributedDataParallel costs: buckets for the gradients of each model that it wraps."""

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
from torch.nn.parallel import DistributedDataParallel

from motivation.tools.benchmark.timing import synchronize
from motivation.tools.tables import markdown_table

MODELS = ("resnet18", "resnet50", "resnet101", "vit_small_patch16_224", "vit_base_patch16_224")


def memory_table(models: Sequence[str], device: torch.device) -> str:
    """Return megabytes of the parameters of each model, and of what DDP adds after some updates."""
    rows = [["model", "parameters MB", "DDP adds MB", "of the parameters"]]
    for name in models:
        (parameters, alone), (_, wrapped) = (_measure_in_new_process(name, device, ddp) for ddp in (False, True))
        added = wrapped - alone
        rows.append([name, f"{parameters / 1e6:.0f}", f"{added / 1e6:.0f}", f"{added / parameters:.2f}"])
    return markdown_table(rows)


def _measure_in_new_process(*arguments: Any) -> tuple[int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, arguments)


def _measure(name: str, device: torch.device, ddp: bool) -> tuple[int, int]:
    """Return the bytes of a model's parameters, and the bytes in use between two updates."""
    torch.set_num_threads(1)
    model: Any = create_model(name).to(device)
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    shape = 2, *model.default_cfg["input_size"]
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        if ddp:
            model = DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])
        for _ in range(3):  # DDP makes its buckets in the first two, the second time in the order of the backward pass
            model(torch.randn(shape, device=device)).sum().backward()
            model.zero_grad()
        used = _bytes_in_use(device)
        dist.destroy_process_group()
    return parameters, used


def _bytes_in_use(device: torch.device) -> int:
    if device.type == "cuda":
        synchronize(device)
        return torch.cuda.memory_allocated(device)
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # gives freed memory back to the system
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
