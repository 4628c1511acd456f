"""Copy many tensors at a time."""

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
    """Group ``(source, target)`` pairs of equal shape such that one multi-tensor copy can do each group.

    Slices are kept apart from whole tensors: torch copies all tensors of a group one by one if one of them is a slice.
    """
    groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for source, target in pairs:
        same_dense_layout = _axes(source) == _axes(target) and _is_dense(source)
        sources, targets = groups[source.device, target.device, source.dtype, target.dtype, same_dense_layout]
        sources.append(source)
        targets.append(target)
    return list(groups.values())


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """Return stride and size of all axes but those of one element, whose stride means nothing."""
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]


def _is_dense(tensor: Tensor) -> bool:
    """Return True if the elements fill a contiguous piece of memory, in any order of the axes."""
    expected = 1
    for stride, size in sorted(_axes(tensor)):
        if stride != expected:
            return False
        expected *= size
    return True


@torch.no_grad()
def copy_all(copies: Copies) -> None:
    """Copy every source into its target, in place."""
    for sources, targets in copies:
        torch._foreach_copy_(targets, sources)
