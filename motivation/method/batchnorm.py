"""BatchNorm layers: where their running statistics are, and how to see a batch without changing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from timm.layers import SplitBatchNorm2d
from torch import Tensor, nn


def running_statistics(model: nn.Module) -> list[str]:
    """Names of the buffers in which normalisation layers gather statistics."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if getattr(module, "running_mean", None) is not None
        for name in ("running_mean", "running_var", "num_batches_tracked")
        if getattr(module, name, None) is not None
    ]


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers that keep running statistics and are evaluated: not timm's auxiliary ones."""
    auxiliary = {aux for layer in model.modules() if isinstance(layer, SplitBatchNorm2d) for aux in layer.aux_bn}
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module not in auxiliary
    ]


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in evaluation mode; afterwards each is in its own again."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def on_batch_statistics(model: nn.Module, update: bool = False) -> Iterator[None]:
    """Inside, BatchNorm normalises by the batch and all else is in evaluation mode; afterwards all is as before.

    timm's SplitBatchNorm2d sees the whole batch in its first layer, the one that is evaluated.

    Args:
        model: its modes are put back.
        update: let the running statistics follow; without it they stay.
    """
    layers = batchnorms(model)
    settings = [(layer, layer.momentum, layer.track_running_stats) for layer in layers]
    split = [layer for layer in layers if isinstance(layer, SplitBatchNorm2d)]
    for layer in layers:
        layer.track_running_stats = update
        if update:
            layer.momentum = None  # torch: a cumulative average
    for layer in split:
        layer.forward = partial(_unsplit, layer)  # type: ignore[method-assign]
    try:
        with in_evaluation_mode(model):
            for layer in layers:
                layer.training = True
            yield
    finally:
        for layer in split:
            del layer.forward
        for layer, momentum, track in settings:
            layer.momentum, layer.track_running_stats = momentum, track


def _unsplit(layer: nn.Module, images: Tensor) -> Tensor:
    """A SplitBatchNorm2d on a batch that is not split."""
    output = nn.BatchNorm2d.forward(layer, images)  # type: ignore[arg-type]
    for name in ("drop", "act"):  # there if it stands for timm's BatchNormAct2d
        if hasattr(layer, name):
            output = getattr(layer, name)(output)
    return output
