"""Count the kernels that copies launch on a GPU; a model on the CPU shows it too, by the rules of torch's sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

MAX_TENSORS, MAX_CHUNKS, CHUNK = 64, 320, 65536
"""Tensors, and chunks of so many elements, in one launch of a copy of many tensors (ATen/native/cuda/
MultiTensorApply.cuh, two lists; torch built with CUDA 13 takes seven times as many)."""


class LaunchCounter(TorchDispatchMode):
    """Count what the operations inside this context do on a GPU.

    Attributes:
        kernels: operations on tensors, and launches of copies of many tensors.
        host: copies of single numbers on the CPU, where torch's optimizers keep their step counters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation, and do it."""
        if func is aten._foreach_copy_.default:
            pairs = [pair for pair in zip(*args[:2], strict=True) if not _is_on_host(pair[0])]
            self.host += len(args[0]) - len(pairs)
            self.kernels += launches(pairs)
        elif not func.is_view:
            self.kernels += 1
        return func(*args, **(kwargs or {}))


def launches(pairs: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Return how many kernels ``torch._foreach_copy_`` launches on a GPU for pairs ``(target, source)``.

    It copies many at a time if all tensors are dense and on one device, all targets of one dtype and all sources too,
    and each target has its source's sizes and strides, where a size is not 1. Otherwise it copies one by one
    (ATen/native/cuda/ForeachBinaryOpList.cu, ATen/native/ForeachUtils.h).
    """
    alike = all(_axes(target) == _axes(source) for target, source in pairs)
    dense = all(aten.is_non_overlapping_and_dense.default(one) for pair in pairs for one in pair)
    kinds = {(target.dtype, source.dtype) for target, source in pairs}
    devices = {one.device for pair in pairs for one in pair}
    if not (alike and dense and len(kinds) == len(devices) == 1):
        return len(pairs)
    done = in_launch = chunks = 0
    for target, _ in pairs:
        in_launch += 1
        for left in reversed(range(-(-target.numel() // CHUNK))):
            chunks += 1
            if chunks == MAX_CHUNKS or (in_launch == MAX_TENSORS and not left):
                done, chunks, in_launch = done + 1, 0, int(left > 0)
    return done + (chunks > 0)


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    return [axis for axis in zip(tensor.shape, tensor.stride(), strict=True) if axis[0] != 1]


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.dim() == 0 and tensor.device.type == "cpu"
