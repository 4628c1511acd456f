"""Where BatchNorm layers keep their running statistics."""

from __future__ import annotations

from torch import nn


def running_statistics(model: nn.Module) -> list[str]:
    """Return the names of all running_mean, running_var and num_batches_tracked of a model's normalisation layers."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if getattr(module, "running_mean", None) is not None
        for name in ("running_mean", "running_var", "num_batches_tracked")
        if getattr(module, name, None) is not None
    ]
