"""Time calls in turns, and say which machine it was."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import timm
import torch

from motivation.versions import device_name


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # without an argument it would be the current device
    else:
        torch.get_device_module(device).synchronize()


def median_ms(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warmup: int = 2
) -> dict[str, float]:
    """Time each call once a round, so that a machine that slows down slows all of them; return the medians in ms.

    Args:
        device: that the calls work on.
        warmup: rounds that do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup + rounds):
        for name, call in calls.items():
            synchronize(device)
            since = time.perf_counter()
            call()
            synchronize(device)
            seconds[name].append(time.perf_counter() - since)
    return {name: 1000 * statistics.median(values[warmup:]) for name, values in seconds.items()}


def machine(device: torch.device) -> str:
    """Return a line that says where a figure was measured."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    return f"{device_name(device)}; {versions}"
