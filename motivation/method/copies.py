"""Copies of many tensors at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

TensorPair = tuple[Tensor, Tensor]
Copies = list[tuple[list[Tensor], list[Tensor]]]
"""Groups of ``(sources, targets)``, each of one dtype and device on either side."""


def grouped(pairs: Iterable[TensorPair]) -> Copies:
    """Collect ``(source, target)`` pairs that one multi-tensor copy can do together.

    Slices stand apart: with one of them among its tensors, torch copies all of a group one by one.
    """
    groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for source, target in pairs:
        alike = source.stride() == target.stride() and _is_dense(source)
        sources, targets = groups[source.device, target.device, source.dtype, target.dtype, alike]
        sources.append(source)
        targets.append(target)
    return list(groups.values())


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor fills its part of the memory, in any order of its axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


@torch.no_grad()
def execute(copies: Copies) -> None:
    """Copy every source over its target, in place."""
    for sources, targets in copies:
        torch._foreach_copy_(targets, sources)
