"""Evaluation of both models after an epoch, with training left as it was.

The motivated model is judged with the base's present weights in their place (*synced*). All of it happens in a fork of
the random states, and re-estimated BatchNorm statistics are put back after the checkpoint is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from timm.utils import distribute_bn, unwrap_model
from torch import nn

from motivation.method.random_states import fork_rng
from motivation.method.records import Role
from motivation.method.switcher import Switcher
from motivation.training.evaluate import Evaluator, Recalibration
from motivation.training.learner import Learner
from motivation.training.records import Metrics


@dataclass
class Judge:
    """Evaluates the learners of a run.

    Attributes:
        switcher: holds them; the base is active whenever this is called.
        evaluator: over the validation data; None if there are none.
        judges_motivated: whether the motivated model is evaluated.
        judges_ema: whether an EMA is evaluated in place of the weights (timm: not if it is kept on the CPU).
        dist_bn: ``'reduce'``, ``'broadcast'`` or ``''``: how ranks share running statistics.
        recalibration: re-estimates BatchNorm before a model is judged; None to leave the running statistics.
        model_dtype: of the models' weights, None for float32.
    """

    switcher: Switcher
    evaluator: Evaluator | None
    judges_motivated: bool = True
    judges_ema: bool = True
    dist_bn: str = ""
    world_size: int = 1
    recalibration: Recalibration | None = None
    model_dtype: torch.dtype | None = None
    running_statistics: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    """While a verdict holds: what training had of the statistics that were re-estimated, by ``role[:ema]``."""

    def share_statistics(self) -> None:
        """Average or broadcast the running statistics over ranks, after every epoch."""
        if self.world_size > 1 and self.dist_bn in ("broadcast", "reduce"):
            for learner in self.switcher.sides:
                distribute_bn(learner.task.get_trainable_module(), self.world_size, self.dist_bn == "reduce")

    @contextmanager
    def verdict(self) -> Iterator[tuple[Metrics | None, Metrics | None]]:
        """Evaluate base and motivated model.

        Inside the context the models hold what was evaluated, which is what a checkpoint must hold; afterwards they
        hold what training left.
        """
        base, motivated = self.switcher.base, self.switcher.motivated
        with ExitStack() as restored:
            base_metrics = self._judge(base, restored)
            motivated_metrics = None
            with fork_rng():
                if motivated is not None:
                    self.switcher.expand(optimizer_state=False)
                if motivated is not None and self.judges_motivated:
                    motivated_metrics = self._judge(motivated, restored)
            yield base_metrics, motivated_metrics

    def _judge(self, learner: Learner, restored: ExitStack) -> Metrics | None:
        self._reestimate(learner.role.value, learner.eval_model(), restored)
        name = "" if learner.role is Role.BASE else f" ({learner.role.value})"
        metrics = None
        if self.evaluator is not None:
            metrics = self.evaluator(learner.eval_model(), name, self.model_dtype)
        if learner.ema is None or not self.judges_ema:
            return metrics
        if self.world_size > 1 and self.dist_bn in ("broadcast", "reduce"):
            distribute_bn(learner.ema, self.world_size, self.dist_bn == "reduce")
        self._reestimate(f"{learner.role.value}:ema", learner.eval_model(ema=True), restored)
        if self.evaluator is None:
            return None
        ema_name = " (EMA)" if learner.role is Role.BASE else f" ({learner.role.value} EMA)"
        return self.evaluator(learner.eval_model(ema=True), ema_name, self.model_dtype)

    def _reestimate(self, key: str, model: nn.Module, restored: ExitStack) -> None:
        if self.recalibration is not None:
            kept = restored.enter_context(self.recalibration.applied_to(unwrap_model(model)))
            self.running_statistics[key] = kept
            restored.callback(self.running_statistics.pop, key)
