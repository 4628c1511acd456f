"""Validation of the base and of the motivated model, with training left as it was."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import AverageMeter, accuracy, distribute_bn, reduce_tensor, unwrap_model
from torch import Tensor, nn

from motivation.method.pair import MotivatedPair
from motivation.method.random_states import fork_rng
from motivation.method.records import DeferredScalar
from motivation.training.batchnorm import Recalibration, on_batch_statistics
from motivation.training.learner import Learner
from motivation.training.records import Metrics

_logger = logging.getLogger("train")


def over_ranks(value: Tensor, world_size: int) -> Tensor:
    """Return the mean of a value over all ranks."""
    return value if world_size == 1 else reduce_tensor(value, world_size)


@dataclass
class Validator:
    """Measure a model on the validation data.

    Attributes:
        loader: yields ``(images [B, C, H, W], targets [B])`` on any device.
        device, dtype: of the images that the model is given; None leaves their dtype.
        autocast: makes the context of a forward pass.
        channels_last: memory layout of the images.
        needs_device_transfer: True if the loader leaves the images on the host.
        tta: number of consecutive images that are views of the same one; 0 or 1 for none.
        world_size: number of ranks; metrics are averaged over them.
        log_interval: batches between log lines, on the primary rank.
        primary: True on the rank that logs.
        limit: number of batches to measure on; None for all.
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
    limit: int | None = None

    @property
    def batches(self) -> int:
        """Number of batches that are measured on."""
        return len(self.loader) if self.limit is None else min(self.limit, len(self.loader))

    def validate(self, model: nn.Module, label: str = "") -> Metrics:
        """Return the mean cross-entropy, and the top-1 and top-5 accuracy in percent."""
        loss_fn = nn.CrossEntropyLoss().to(self.device)
        meters = {"loss": AverageMeter(), "top1": AverageMeter(), "top5": AverageMeter()}
        seconds = AverageMeter()
        model.eval()
        last = self.batches - 1
        since = time.time()
        # TorchScript keeps tensors of its first calls for backward passes, which inference mode forbids
        with torch.no_grad() if isinstance(model, torch.jit.ScriptModule) else torch.inference_mode():
            for index, (images, targets) in enumerate(itertools.islice(self.loader, self.limit)):
                images, targets = self.prepare(images, targets)
                output = self.forward(model, images)
                if self.tta > 1:
                    with self.autocast():
                        output = output.unfold(0, self.tta, self.tta).mean(dim=2)
                    targets = targets[:: self.tta][: output.shape[0]]
                with self.autocast():
                    loss = loss_fn(output, targets)
                top1, top5 = accuracy(output, targets, topk=(1, 5))
                for name, value in (("loss", loss), ("top1", top1), ("top5", top5)):
                    meters[name].update(over_ranks(value, self.world_size).item(), output.shape[0])
                seconds.update(time.time() - since)
                since = time.time()
                if self.primary and (index == last or index % self.log_interval == 0):
                    self._log(label, index, last, seconds, meters)
        return {name: float(meter.avg) for name, meter in meters.items()}

    def prepare(self, images: Any, targets: Tensor) -> tuple[Any, Tensor]:
        """Bring a batch to the device, dtype and layout of the model."""
        if self.needs_device_transfer:
            images = images.to(device=self.device, dtype=self.dtype, non_blocking=True)
            targets = targets.to(device=self.device, non_blocking=True)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, targets

    def forward(self, model: nn.Module, images: Any) -> Tensor:
        """Return the logits of a batch that is prepared, ``[B, num_classes]``."""
        with self.autocast():
            output = model(images)
        return output if isinstance(output, Tensor) else output[0]  # several heads: the first is the classifier

    def _log(self, label: str, index: int, last: int, seconds: AverageMeter, meters: dict[str, AverageMeter]) -> None:
        loss, top1, top5 = meters["loss"], meters["top1"], meters["top5"]
        _logger.info(
            f"Test{label}: [{index:>4d}/{last}]  Time: {seconds.val:.3f} ({seconds.avg:.3f})  "
            f"Loss: {loss.val:>7.3f} ({loss.avg:>6.3f})  Acc@1: {top1.val:>7.3f} ({top1.avg:>7.3f})  "
            f"Acc@5: {top5.val:>7.3f} ({top5.avg:>7.3f})"
        )


LABELS = {"base": "", "base:ema": " (EMA)", "motivated": " (motivated)", "motivated:ema": " (motivated EMA)"}
"""Words in the log lines of an evaluation, by the names of `Learner.eval_models`."""


@dataclass
class Evaluator:
    """Evaluate both models of a run after an epoch.

    The motivated model is evaluated with the base's current weights in it. All of this happens in a fork of the random
    states, and re-estimated BatchNorm statistics are put back once the checkpoint is written.

    Attributes:
        pair: both models; the base is active whenever they are evaluated.
        validator: over the validation data; None if there are none.
        evaluates_motivated: True if the motivated model is evaluated.
        evaluates_ema: True if an EMA is evaluated in place of the weights (timm: not if it is kept on the CPU).
        dist_bn: how ranks share running statistics: ``'reduce'``, ``'broadcast'`` or ``''`` for not at all.
        recalibration: re-estimates BatchNorm before a model is evaluated; None to leave the running statistics.
        training_statistics: inside `evaluate_both` the running statistics that training has gathered, where others
            were re-estimated, by the names of `Learner.eval_models`.
    """

    pair: MotivatedPair[Learner]
    validator: Validator | None
    evaluates_motivated: bool = True
    evaluates_ema: bool = True
    dist_bn: str = ""
    world_size: int = 1
    recalibration: Recalibration | None = None
    training_statistics: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def sync_statistics(self) -> None:
        """Average or broadcast the running statistics over ranks, after every epoch."""
        for learner in self.pair.sides:
            self._distribute(learner.task.get_trainable_module())

    def _distribute(self, model: nn.Module) -> None:
        if self.world_size > 1 and self.dist_bn in ("broadcast", "reduce"):
            distribute_bn(model, self.world_size, self.dist_bn == "reduce")

    @contextmanager
    def evaluate_both(self) -> Iterator[tuple[Metrics | None, Metrics | None]]:
        """Evaluate the base and the motivated model; yield the metrics of both.

        Inside the context the models hold what was evaluated, which is what a checkpoint must hold; afterwards they
        hold what training left.
        """
        base, motivated = self.pair.base, self.pair.motivated
        with ExitStack() as restored:
            base_metrics, motivated_metrics = self._evaluate(base, restored), None
            with fork_rng():
                if motivated is not None:
                    motivated.apply_deferred_ema()
                    self.pair.sync_idle_model()
                if motivated is not None and self.evaluates_motivated:
                    motivated_metrics = self._evaluate(motivated, restored)
            yield base_metrics, motivated_metrics

    def _evaluate(self, learner: Learner, restored: ExitStack) -> Metrics | None:
        """Evaluate one model; its EMA's metrics take the place of its own."""
        metrics = None
        for name, model in learner.eval_models().items():
            if name.endswith(":ema"):
                if not self.evaluates_ema:
                    break
                self._distribute(learner.ema)
            if self.recalibration is not None:
                kept = restored.enter_context(self.recalibration.applied_to(unwrap_model(model)))
                self.training_statistics[name] = kept
                restored.callback(self.training_statistics.pop, name)
            if self.validator is not None:
                metrics = self.validator.validate(model, LABELS[name])
        return metrics


@dataclass
class HeldOut:
    """Measure the loss on one batch that is not trained on (paper, section 4.4.2: the condition valloss).

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
        """Return the loss of this learner's model, which is run without its compile and DDP wrappers."""
        model = unwrap_model(learner.eval_model)
        with fork_rng(), on_batch_statistics(model), self.autocast():
            output = model(self.images)
            output = output[0] if isinstance(output, (tuple, list)) else output
            loss = nn.functional.cross_entropy(output.float(), self.targets)
        return DeferredScalar(over_ranks(loss, self.world_size))
