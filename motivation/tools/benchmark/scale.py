"""Compute how long a run would take on more machines from the throughputs of its two models; nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from motivation.tools.tables import markdown_table

A3_EPOCHS, A3_IMAGES = 100, 1_281_167
"""Length of the A3 recipe of "ResNet strikes back" on ImageNet-1k."""


def run_hours(base: float, larger: float, ks: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Yield the hours on one GPU of the base alone, of motivated runs, and of the larger model alone.

    A motivated run updates the larger model with a share of 1 / (k + 1)!, the law of the condition ``loss`` for losses
    that are noise (paper, 3.4).

    Args:
        base, larger: training images per second of one GPU.
    """
    runs = {"base": 0.0, **{f"motivated, k = {k}": 1 / math.factorial(k + 1) for k in ks}, "larger": 1.0}
    for name, share in runs.items():
        yield name, A3_EPOCHS * A3_IMAGES * ((1 - share) / base + share / larger) / 3600


def scale_table(
    base: float, larger: float, gpus: Sequence[int], ks: Sequence[int], price: float, efficiency: float = 1.0
) -> str:
    """Return hours of the A3 run, and its cost on the last of these numbers of GPUs.

    Args:
        price: of a GPU for an hour.
        efficiency: speed of n GPUs over n times that of one.
    """
    found = dict(run_hours(base, larger, ks))
    hours_columns = [f"hours, {count} GPU{'s' * (count > 1)}" for count in gpus]
    rows = [["run", *hours_columns, "GPU hours", "cost", "of the larger"]]
    for name, hours in found.items():
        gpu_hours = [hours / (efficiency if count > 1 else 1.0) for count in gpus]
        each = [f"{whole / count:.1f}" for whole, count in zip(gpu_hours, gpus, strict=True)]
        cost = f"{gpu_hours[-1]:.0f}", f"{gpu_hours[-1] * price:.0f}"
        rows.append([name, *each, *cost, f"{100 * hours / found['larger']:.0f} %"])
    return markdown_table(rows)
