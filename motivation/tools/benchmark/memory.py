"""Measure the memory that DistributedDataParallel costs: buckets for the gradients of each model that it wraps.

Runs make the gradients views into the buckets; without that they are a copy of them while the model trains.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Return megabytes of the parameters of each model, and of what DDP adds to it between and in updates."""
    rows = [["model", "parameters MB", "idle: DDP adds MB", "after the backward pass MB", "without views MB"]]
    for name in models:
        alone, views, copied = (
            _measure_in_new_process(name, device, **options)
            for options in ({"ddp": False}, {"views": True}, {"views": False})
        )
        figures = [
            alone.parameters, views.idle - alone.idle, views.training - alone.training, copied.training - alone.training
        ]  # fmt: skip
        rows.append([name, *(f"{figure / 1e6:.0f}" for figure in figures)])
    return markdown_table(rows)


@dataclass(frozen=True)
class _Bytes:
    """Bytes of a model's parameters, and in use between two updates and between a backward pass and the next step."""

    parameters: int
    idle: int
    training: int


def _measure_in_new_process(*arguments: Any, **options: bool) -> _Bytes:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, arguments, options)


def _measure(name: str, device: torch.device, ddp: bool = True, views: bool = True) -> _Bytes:
    """Train a model for three updates; ``views`` makes the gradients views into DDP's buckets."""
    torch.set_num_threads(1)
    model: Any = create_model(name).to(device)
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    shape = 2, *model.default_cfg["input_size"]
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        if ddp:
            devices = None if device.type == "cpu" else [device]
            model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=views)
        for _ in range(3):  # DDP makes its buckets in the first two, the second time in the order of the backward pass
            model(torch.randn(shape, device=device)).sum().backward()
            training = _bytes_in_use(device)
            model.zero_grad()
        idle = _bytes_in_use(device)
        dist.destroy_process_group()
    return _Bytes(parameters, idle, training)


def _bytes_in_use(device: torch.device) -> int:
    if device.type == "cuda":
        synchronize(device)
        return torch.cuda.memory_allocated(device)
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # gives freed memory back to the system
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
