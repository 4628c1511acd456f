"""How long a switch takes, beside a flat copy of as many bytes (the hardware's limit) and a copy tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.models import create_model
from timm.optim import create_optimizer_v2
from torch import Tensor

from motivation.method.side import Side
from motivation.method.switch import Switch
from motivation.tools.benchmark.timing import in_turns, table, waiter
from weight_maps import find_map


@dataclass(frozen=True)
class Pair:
    """Two timm models and the optimizer whose state is carried."""

    base: str
    motivated: str
    optimizer: str


PAIRS = (
    Pair("resnet20_cifar", "resnet32_cifar", "momentum"),
    Pair("resnet50", "resnet101", "lamb"),
    Pair("vit_tiny_patch16_224", "vit_small_patch16_224", "adamw"),
    Pair("efficientnet_b0", "efficientnet_b1", "rmsproptf"),
)
"""Pairs of the paper: a deeper model (whole tensors are copied), and wider ones (slices of them)."""


@dataclass(frozen=True)
class SwitchTime:
    """Medians in milliseconds of both switches (to the motivated model, and back) and what they are compared with.

    Attributes:
        tensors, megabytes: what one switch copies (10^6 bytes).
        flat: a copy of one tensor with as many bytes.
        one_by_one: ``copy_`` for each tensor.
    """

    pair: Pair
    tensors: int
    megabytes: float
    flat: float
    one_by_one: float
    expand: float
    extract: float

    @property
    def of_flat(self) -> float:
        """Bandwidth of a switch over that of the flat copy, mean of both ways."""
        return 2 * self.flat / (self.expand + self.extract)


def trained_side(name: str, optimizer: str, device: torch.device) -> Side:
    """A model after one update with random gradients, so that its optimizer has its state."""
    model = create_model(name).to(device)
    side = Side(model, create_optimizer_v2(model, optimizer, lr=1e-3, momentum=0.9))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    side.optimizer.step()
    side.optimizer.zero_grad()
    return side


def measure(pair: Pair, device: torch.device, rounds: int) -> SwitchTime:
    """Time both switches of a pair."""
    base = trained_side(pair.base, pair.optimizer, device)
    motivated = trained_side(pair.motivated, pair.optimizer, device)
    small, large = base.model, motivated.model
    switch = Switch(base, motivated, find_map(pair.base, pair.motivated, small, large))
    copies = switch.copies(to_motivated=True)
    sources, targets = ([tensor for copy in copies for tensor in copy[side]] for side in (0, 1))
    count = sum(tensor.numel() * tensor.element_size() for tensor in sources)
    flat: list[Tensor] = [torch.ones(count // 4, device=device) for _ in range(2)]

    def one_by_one() -> None:
        with torch.no_grad():
            for source, target in zip(sources, targets, strict=True):
                target.copy_(source)

    calls = {
        "flat": lambda: flat[1].copy_(flat[0]),
        "one_by_one": one_by_one,
        "expand": switch.expand,
        "extract": switch.extract,
    }
    times = {name: one.median_ms for name, one in in_turns(calls, rounds, waiter(device)).items()}
    return SwitchTime(pair, len(sources), count / 1e6, **times)


def switch_table(times: Sequence[SwitchTime]) -> str:
    """A row for each pair; times in milliseconds."""
    columns = ["pair", "optimizer", "tensors", "MB", "flat copy", "one by one", "expand", "extract", "of flat"]
    rows = [
        (f"{one.pair.base} in {one.pair.motivated}", one.pair.optimizer, one.tensors, f"{one.megabytes:.1f}",
         f"{one.flat:.3f}", f"{one.one_by_one:.3f}", f"{one.expand:.3f}", f"{one.extract:.3f}",
         f"{100 * one.of_flat:.0f} %")
        for one in times
    ]  # fmt: skip
    return table(columns, rows)
