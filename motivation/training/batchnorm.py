"""BatchNorm in evaluation: on a batch's own statistics, and with statistics that are re-estimated (ours)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import SplitBatchNorm2d
from timm.utils import distribute_bn
from torch import Tensor, nn

from motivation.method.random_states import fork_rng
from motivation.method.switch import running_statistics


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorm layers that keep running statistics, without timm's auxiliary ones, which only train."""
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
    """Put every module in evaluation mode, and each back in its own mode afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def on_batch_statistics(model: nn.Module, update: bool = False) -> Iterator[None]:
    """Let BatchNorm normalise by the batch, with all else in evaluation mode; afterwards all is as before.

    timm's SplitBatchNorm2d sees the whole batch in its first layer, the one that is evaluated.

    Args:
        model: its modes are put back.
        update: True to update the running statistics, with the momentum that the layers are given inside.
    """
    layers = batchnorms(model)
    settings = [(layer, layer.momentum, layer.track_running_stats) for layer in layers]
    split = [layer for layer in layers if isinstance(layer, SplitBatchNorm2d)]
    for layer in layers:
        layer.track_running_stats = update
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
    """Run a SplitBatchNorm2d on a batch that is not split."""
    output = nn.BatchNorm2d.forward(layer, images)  # type: ignore[arg-type]
    for name in ("drop", "act"):  # there if it stands for timm's BatchNormAct2d
        if hasattr(layer, name):
            output = getattr(layer, name)(output)
    return output


@dataclass
class Recalibration:
    """Re-estimate BatchNorm statistics on training images (ours; the weights are not touched).

    Attributes:
        loader: training images without mixup, cutmix or erasing, ``([B, C, H, W], targets)``.
        batches: number of batches to use; all of a shorter loader.
        prepare: brings a batch of images to the device, dtype and layout of the model.
        autocast: makes the context of a forward pass.
        world_size: number of ranks, each with batches of its own; the statistics are averaged over them.
    """

    loader: Any
    batches: int
    prepare: Callable[[Any], Any]
    autocast: Callable[[], AbstractContextManager]
    world_size: int = 1

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Give the model re-estimated statistics inside the context, which yields its own; they are put back after it.

        All batches count the same. Everything but the BatchNorm layers is in evaluation mode, so the statistics are
        those of the function that is evaluated.
        """
        buffers = dict(model.named_buffers())
        statistics = {name: buffers[name] for name in running_statistics(model)}
        kept = {name: value.clone() for name, value in statistics.items()}
        try:
            with on_batch_statistics(model, update=True):
                for layer in batchnorms(model):
                    layer.reset_running_stats()
                self._observe(model)
            with in_evaluation_mode(model):
                yield kept
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    statistics[name].copy_(value)

    @torch.no_grad()
    def _observe(self, model: nn.Module) -> None:
        layers = batchnorms(model)
        with fork_rng():
            for done, (images, _) in enumerate(itertools.islice(self.loader, self.batches)):
                for layer in layers:
                    # a cumulative average; with momentum None each layer would wait for its counter on the device
                    layer.momentum = 1 / (done + 1)
                with self.autocast():
                    model(self.prepare(images))
        if self.world_size > 1:
            distribute_bn(model, self.world_size, reduce=True)
