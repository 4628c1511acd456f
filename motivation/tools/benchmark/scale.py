"""What a long run would take on more machines, from the throughputs of its two models: arithmetic, no measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from motivation.tools.benchmark.timing import table

A3_EPOCHS, A3_IMAGES = 100, 1_281_167
"""Of the A3 recipe of "ResNet strikes back" on ImageNet-1k."""


@dataclass(frozen=True)
class Throughput:
    """Training images per second of one GPU."""

    base: float
    larger: float

    def of_share(self, share: float) -> float:
        """Of a run that trains the larger model at this share of its updates."""
        return 1 / ((1 - share) / self.base + share / self.larger)


def rows(
    throughput: Throughput, gpus: Sequence[int], ks: Sequence[int], price: float, efficiency: float
) -> Iterator[tuple[str, list[float], float]]:
    """``(run, hours for each number of GPUs, cost)``: the base alone, motivated runs, the larger model alone.

    The share of a run is 1 / (k + 1)!, the law of the condition ``loss`` for losses that are noise (paper, 3.4).

    Args:
        price: of a GPU for an hour.
        efficiency: speed of n GPUs over n times that of one.
    """
    runs = [("base", 0.0), *((f"motivated, k = {k}", 1 / math.factorial(k + 1)) for k in ks), ("larger", 1.0)]
    for name, share in runs:
        seconds = A3_EPOCHS * A3_IMAGES / throughput.of_share(share)
        hours = [seconds / 3600 / count / (efficiency if count > 1 else 1.0) for count in gpus]
        yield name, hours, hours[-1] * gpus[-1] * price


def scale_table(
    throughput: Throughput, gpus: Sequence[int], ks: Sequence[int], price: float, efficiency: float = 1.0
) -> str:
    """Hours of the A3 run, and what it costs on the most GPUs."""
    columns = [
        "run",
        *(f"hours, {count} GPU{'s' * (count > 1)}" for count in gpus),
        "GPU hours",
        "cost",
        "of the larger",
    ]
    found = list(rows(throughput, gpus, ks, price, efficiency))
    whole = found[-1][2]
    lines = [
        (name, *(f"{one:.1f}" for one in hours), f"{hours[-1] * gpus[-1]:.0f}", f"{cost:.0f}",
         f"{100 * cost / whole:.0f} %" if whole else "")
        for name, hours, cost in found
    ]  # fmt: skip
    return table(columns, lines)
