"""Validation of one model, and the statistics it is validated with."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import accuracy, unwrap_model
from torch import Tensor, nn

from motivation.method.batchnorm import batchnorms, in_evaluation_mode, on_batch_statistics, running_statistics
from motivation.method.random_states import fork_rng
from motivation.method.records import DeferredScalar
from motivation.training.learner import Learner
from motivation.training.records import Mean, Metrics

_logger = logging.getLogger("train")


@dataclass
class Evaluator:
    """Runs a model over a validation loader.

    Attributes:
        loader: yields ``(images [B, C, H, W], targets [B])`` on any device.
        device, dtype: where and as what the images are wanted; a dtype of None leaves them.
        autocast: makes the context of a forward pass.
        channels_last: memory layout of the images.
        needs_device_transfer: whether the loader leaves the images on the host.
        tta: how many consecutive images are views of the same one, 0 or 1 for none.
        world_size: number of ranks; metrics are averaged over them.
        log_interval: batches between log lines, on the primary rank.
        primary: whether this rank logs.
    """

    loader: Any
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    dtype: torch.dtype | None = None
    channels_last: bool = False
    needs_device_transfer: bool = False
    tta: int = 0
    world_size: int = 1
    log_interval: int = 50
    primary: bool = True

    def __call__(self, model: nn.Module, label: str = "", dtype: torch.dtype | None = None) -> Metrics:
        """Loss, top-1 and top-5 accuracy in percent."""
        loss_fn = nn.CrossEntropyLoss().to(self.device)
        means = {"loss": Mean(), "top1": Mean(), "top5": Mean()}
        seconds = Mean()
        model.eval()
        last = len(self.loader) - 1
        since = time.time()
        with torch.inference_mode():
            for index, (images, targets) in enumerate(self.loader):
                output, targets = self._forward(model, images, targets, dtype)
                with self.autocast():
                    loss = loss_fn(output, targets)
                top1, top5 = accuracy(output, targets, topk=(1, 5))
                for name, value in (("loss", loss), ("top1", top1), ("top5", top5)):
                    means[name].add(self._over_ranks(value).item(), output.shape[0])
                seconds.add(time.time() - since)
                since = time.time()
                if self.primary and (index == last or index % self.log_interval == 0):
                    self._log(label, index, last, seconds, means)
        return {name: mean.mean for name, mean in means.items()}

    def _forward(self, model: nn.Module, images: Any, targets: Tensor, dtype: torch.dtype | None) -> tuple[Any, Tensor]:
        if self.needs_device_transfer:
            images, targets = images.to(device=self.device, dtype=dtype), targets.to(device=self.device)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            output = model(images)
            if not isinstance(output, Tensor):  # several heads: the first is the classifier
                output = output[0]
            if self.tta > 1:
                output = output.unfold(0, self.tta, self.tta).mean(dim=2)
                targets = targets[:: self.tta][: output.shape[0]]
        return output, targets

    def _over_ranks(self, value: Tensor) -> Tensor:
        if self.world_size == 1:
            return value
        mean = value.clone()
        dist.all_reduce(mean)
        return mean / self.world_size

    def _log(self, label: str, index: int, last: int, seconds: Mean, means: dict[str, Mean]) -> None:
        loss, top1, top5 = means["loss"], means["top1"], means["top5"]
        _logger.info(
            f"Test{label}: [{index:>4d}/{last}]  Time: {seconds.last:.3f} ({seconds.mean:.3f})  "
            f"Loss: {loss.last:>7.3f} ({loss.mean:>6.3f})  Acc@1: {top1.last:>7.3f} ({top1.mean:>7.3f})  "
            f"Acc@5: {top5.last:>7.3f} ({top5.mean:>7.3f})"
        )


@dataclass
class HeldOut:
    """The loss on one batch that is not trained on (paper, section 4.4.2: the condition valloss).

    Ours: cross-entropy of the model as it is after the update, in evaluation mode, so without dropout and drop path;
    BatchNorm normalises by the batch's own statistics and keeps its running ones. Model and random streams are left as
    they were. All ranks have the same batch and take the mean of their losses.

    Attributes:
        images: ``[B, C, H, W]``, as the model wants them.
        targets: ``[B]`` class indices.
        autocast: makes the context of a forward pass.
        world_size: number of ranks.
    """

    images: Tensor
    targets: Tensor
    autocast: Callable[[], AbstractContextManager]
    world_size: int = 1

    @torch.no_grad()
    def loss(self, learner: Learner) -> DeferredScalar:
        """Of this learner's model, without its compile and DDP wrappers."""
        model = unwrap_model(learner.eval_model())
        with fork_rng(), on_batch_statistics(model), self.autocast():
            output = model(self.images)
            output = output[0] if isinstance(output, (tuple, list)) else output
            loss = nn.functional.cross_entropy(output.float(), self.targets)
        if self.world_size > 1:
            dist.all_reduce(loss)
            loss /= self.world_size
        return DeferredScalar(loss)


@dataclass
class Recalibration:
    """Re-estimates BatchNorm statistics on training images (ours; the weights are not touched).

    Attributes:
        loader: training images without mixup, cutmix or erasing, ``([B, C, H, W], targets)``.
        batches: how many batches to use; the loader is started over if it has fewer.
        prepare: brings a batch of images into the form the model wants.
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
        """Inside, the model has the re-estimated statistics; afterwards its own again, which the context yields.

        All batches count the same. Everything but the BatchNorm layers is in evaluation mode, so the statistics are
        those of the function that is evaluated.
        """
        layers = batchnorms(model)
        buffers = dict(model.named_buffers())
        statistics = {name: buffers[name] for name in running_statistics(model)}
        kept = {name: value.clone() for name, value in statistics.items()}
        try:
            with on_batch_statistics(model, update=True):
                for layer in layers:
                    layer.reset_running_stats()
                self._observe(model, layers)
            with in_evaluation_mode(model):
                yield kept
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    statistics[name].copy_(value)

    @torch.no_grad()
    def _observe(self, model: nn.Module, layers: list[nn.modules.batchnorm._BatchNorm]) -> None:
        with fork_rng():
            for images in itertools.islice(self._images(), self.batches):
                with self.autocast():
                    model(self.prepare(images))
        if self.world_size > 1:
            for layer in layers:
                statistics: list[Any] = [layer.running_mean, layer.running_var]
                for statistic in statistics:
                    dist.all_reduce(statistic)
                    statistic /= self.world_size

    def _images(self) -> Iterator[Any]:
        found = True
        while found:  # a loader of fewer batches is started over; an empty one ends this
            found = False
            for images, _ in self.loader:
                found = True
                yield images
