"""Accuracy per FLOPs and its ratio (paper, section 4, equations 1 to 3), mean and standard deviation.

Accuracies are percentages, FLOPs those of one image's forward pass; both are differences against Arch-X-C.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit of accuracy per FLOPs.

    Attributes:
        name: as it stands in a header.
        per_flop: how many of it are one percentage point per FLOP.
    """

    name: str
    per_flop: float


PER_MFLOP = Unit("10^-2 % per MFLOP", 1e2 * 1e6)
PER_GFLOP = Unit("% per GFLOP", 1e9)
HUNDREDTHS_PER_GFLOP = Unit("10^-2 % per GFLOP", 1e2 * 1e9)
"""The paper's unit for vision transformers."""


def unit_for(base_flops: float | None) -> Unit:
    """The unit that suits a base model of this size.

    >>> unit_for(82.8e6).name, unit_for(3.8e9).name
    ('10^-2 % per MFLOP', '% per GFLOP')
    """
    return PER_MFLOP if base_flops is not None and base_flops < 1e9 else PER_GFLOP


def acc_per_flops(
    accuracy: float | None, flops: float | None, accuracy_c: float | None, flops_c: float | None
) -> float | None:
    """Accuracy gained per FLOP added, ``(A - A_C) / (F - F_C)``.

    Args:
        accuracy: of Arch-X-Y-B or Arch-Y-C, in percent.
        flops: average forward FLOPs of that training.
        accuracy_c: of Arch-X-C.
        flops_c: of Arch-X-C.

    Returns:
        Percentage points per FLOP; None where a figure is missing or nothing was added.

    >>> round(acc_per_flops(92.83, 92.47e6, 92.62, 82.82e6) * PER_MFLOP.per_flop, 2)  # Table 1, Res-20-32B
    2.18
    """
    if accuracy is None or flops is None or accuracy_c is None or flops_c is None or flops == flops_c:
        return None
    return (accuracy - accuracy_c) / (flops - flops_c)


def acc_f_ratio(of_base: float | None, of_larger: float | None) -> float | None:
    """ACC/F_Ratio, `acc_per_flops` of Arch-X-Y-B over that of Arch-Y-C; None where one is missing or the second 0."""
    if of_base is None or of_larger is None or of_larger == 0:
        return None
    return of_base / of_larger


def mean(values: Sequence[float | None]) -> float | None:
    """Of what is there; None of nothing.

    >>> mean([1.0, None, 3.0])
    2.0
    """
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def sample_sd(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation (n - 1 in the denominator); None of fewer than two values, NaN if one is not finite."""
    there = [value for value in values if value is not None]
    if not all(map(math.isfinite, there)):
        return math.nan
    return statistics.stdev(there) if len(there) > 1 else None
