"""Time a switch beside a flat copy of as many bytes (the hardware's limit) and a copy tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import create_model
from timm.optim import create_optimizer_v2

from motivation.method.side import Side
from motivation.method.switch import Switch
from motivation.tools.benchmark.launches import LaunchCounter
from motivation.tools.benchmark.timing import median_ms
from motivation.tools.tables import markdown_table
from weight_maps import find_map

PAIRS = (
    ("resnet20_cifar", "resnet32_cifar"),
    ("resnet50", "resnet101"),
    ("vit_tiny_patch16_224", "vit_small_patch16_224"),
    ("efficientnet_b1", "efficientnet_b2"),
)
"""Pairs of the paper: deeper models, of which whole tensors are copied, and wider ones, of which slices are."""

OPTIMIZERS = ("sgd", "adamw", "lamb")


def trained_side(name: str, optimizer: str, device: torch.device) -> Side:
    """Return a model after one update with random gradients, so that its optimizer has its state."""
    model = create_model(name).to(device)
    side = Side(model, create_optimizer_v2(model, optimizer, lr=1e-3, momentum=0.9))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    side.optimizer.step()
    side.optimizer.zero_grad()
    return side


def switch_row(base: str, motivated: str, optimizer: str, device: torch.device, rounds: int) -> list[str]:
    """Time both switches of a pair and the two copies that they are compared with.

    Returns:
        The pair, the optimizer, what one switch copies (tensors, 10^6 bytes) with how many kernels of a GPU and how
        many copies of single numbers on the host (expand; see `LaunchCounter`), four medians in milliseconds (one
        tensor with as many bytes; ``copy_`` for each tensor; expand; extract), and the bandwidth of a switch over that
        of the flat copy.
    """
    small = trained_side(base, optimizer, device)
    large = trained_side(motivated, optimizer, device)
    switch = Switch(small, large, find_map(base, motivated, small.model, large.model))
    groups = switch.prepare_copies(to_motivated=True)
    copies = [copy for sources, targets in groups for copy in zip(sources, targets, strict=True)]
    size = sum(source.numel() * source.element_size() for source, _ in copies)
    flat_source, flat_target = (torch.ones(size // 4, device=device) for _ in range(2))

    def one_by_one() -> None:
        with torch.no_grad():
            for source, target in copies:
                target.copy_(source)

    with LaunchCounter() as counter:
        switch.expand()
    calls = {
        "flat": lambda: flat_target.copy_(flat_source),
        "one by one": one_by_one,
        "expand": switch.expand,
        "extract": switch.extract,
    }
    times = median_ms(calls, rounds, device)
    of_flat = 2 * times["flat"] / (times["expand"] + times["extract"])
    milliseconds = [f"{one:.3f}" for one in times.values()]
    copied = str(len(copies)), f"{size / 1e6:.1f}", str(counter.kernels), str(counter.host)
    return [f"{base} in {motivated}", optimizer, *copied, *milliseconds, f"{100 * of_flat:.0f} %"]


def switch_table(device: torch.device, rounds: int, optimizers: Sequence[str] = OPTIMIZERS) -> str:
    """Return a table with a row for each of `PAIRS` with each optimizer."""
    copied = ["tensors", "MB", "kernels", "on host"]
    columns = ["pair", "optimizer", *copied, "flat copy", "one by one", "expand", "extract", "of flat"]
    rows = [switch_row(*pair, optimizer, device, rounds) for pair in PAIRS for optimizer in optimizers]
    return markdown_table([columns, *rows], left=2)
