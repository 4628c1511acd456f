"""A model with everything it takes to train it: task, optimizer, schedule, EMA. One call is one update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import dispatch_clip_grad, unwrap_model
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.data.update_loader import MicroBatch
from motivation.method.copies import execute, grouped
from motivation.method.optimizer_probe import load_optimizer
from motivation.method.records import DeferredScalar, Role
from motivation.method.side import Side
from motivation.training.records import Outcome


@dataclass
class UpdateRule:
    """How gradients become an update; the same for both learners of a run.

    Attributes:
        autocast: makes the context of a forward pass.
        scaler: gradient scaler of float16 AMP, shared by both learners.
        clip_grad, clip_mode: as timm's flags; None for no clipping.
        batch_scale: factor on the loss for a micro-batch of n images, for batches of varying size.
        world_size: number of ranks.
        synchronize: waits for the device after a step; None not to wait.
        measures_gradients: whether an outcome tells the norm of the gradients.
    """

    autocast: Callable[[], AbstractContextManager] = nullcontext
    scaler: torch.amp.GradScaler | None = None
    clip_grad: float | None = None
    clip_mode: str = "norm"
    batch_scale: Callable[[int], float | Tensor] | None = None
    world_size: int = 1
    synchronize: Callable[[], None] | None = None
    measures_gradients: bool = False


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of all gradients of a model, as one vector (paper, section 4.4.2); a 0-dimensional tensor."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    # in half precision neighbouring updates would tie
    return torch.nn.utils.get_total_norm([gradient.float() for gradient in gradients])


class Learner(Side):
    """A model in training.

    Args:
        role: base or motivated.
        task: a timm training task around the model.
        optimizer: over the task's trainable module.
        schedule: a timm scheduler over that optimizer, or None.
        rule: see `UpdateRule`.
        eval_model: what validation runs; default the task's. With DDP it must be taken before wrapping: a forward pass
            through DDP sends rank 0's buffers around.
    """

    def __init__(
        self, role: Role, task: Any, optimizer: Optimizer, schedule: Any, rule: UpdateRule, eval_model: Any = None
    ):
        super().__init__(role, task.get_trainable_module(), optimizer)
        self.task, self.schedule, self.rule = task, schedule, rule
        self._eval_model = eval_model
        self._second_order = bool(getattr(optimizer, "is_second_order", False))

    @property
    def model(self) -> nn.Module:
        """The trainable module without its DDP and compile wrappers."""
        return unwrap_model(self.task.get_trainable_module())

    def eval_model(self, ema: bool = False) -> Any:
        """What validation runs: the model, or its EMA; None if there is no EMA."""
        if self._eval_model is not None and not ema:
            return self._eval_model
        return self.task.get_eval_model(ema=ema)

    @property
    def ema(self) -> Any:
        """The EMA of the trainable module, or None."""
        return self.task.get_trainable_module(ema=True)

    @property
    def lr(self) -> float:
        """Mean learning rate over the parameter groups."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return sum(rates) / len(rates)

    def start_epoch(self) -> None:
        """Training mode and no gradients."""
        self.task.get_trainable_module().train()
        self.optimizer.zero_grad()

    def train(self, micro_batches: Iterable[MicroBatch], wants_to_stop: bool = False) -> Outcome | None:
        """One update.

        Args:
            micro_batches: the micro-batches of the update; they are pulled one at a time.
            wants_to_stop: whether this rank has been asked to stop; the outcome tells how many have.

        Returns:
            The outcome, or None if the data ended before the update was complete.
        """
        losses: list[tuple[DeferredScalar, int]] = []
        share_sum: Tensor | None = None
        images, data_time_s = 0, 0.0
        for batch in micro_batches:
            with nullcontext() if batch.is_last else self.task.no_sync():
                share = self._forward(batch)
                share_sum = share.detach() if share_sum is None else share_sum + share.detach()
                own = DeferredScalar(share, batch.accum_steps)
                losses.append((own, batch.size))
                if batch.is_last:  # before the backward pass, which hides the way of the number to the host
                    single = self.rule.world_size == 1 and batch.accum_steps == 1
                    loss, votes = (own, None) if single else self._over_ranks(share_sum, wants_to_stop)
                self._backward(share, batch.size)
            images += batch.size * self.rule.world_size
            data_time_s += batch.data_time_s
            if batch.is_last:
                norm = self._step()
                return Outcome(loss, losses, images, data_time_s, batch, norm, votes)
        return None

    def _forward(self, batch: MicroBatch) -> Tensor:
        with self.rule.autocast():
            loss = self.task(batch.images, batch.targets)["loss"]
        return loss / batch.accum_steps if batch.accum_steps > 1 else loss

    def _over_ranks(self, loss: Tensor, wants_to_stop: bool) -> tuple[DeferredScalar, DeferredScalar | None]:
        """Mean of the loss, and how many ranks want to stop: one message for both."""
        if self.rule.world_size == 1:
            return DeferredScalar(loss), None
        message = torch.stack([loss, loss.new_full((), float(wants_to_stop))])
        dist.all_reduce(message)
        return DeferredScalar(message[0] / self.rule.world_size), DeferredScalar(message[1])

    def _backward(self, loss: Tensor, images: int) -> None:
        if self.rule.batch_scale is not None:
            loss = self.rule.batch_scale(images) * loss
        if self.rule.scaler is not None:
            loss = self.rule.scaler.scale(loss)
        loss.backward(create_graph=self._second_order)

    def _step(self) -> DeferredScalar | None:
        """The optimizer's step; returns the norm of the gradients if it is asked for."""
        rule = self.rule
        norm = None
        if rule.scaler is not None and (rule.clip_grad is not None or rule.measures_gradients):
            rule.scaler.unscale_(self.optimizer)
        if rule.measures_gradients:
            norm = DeferredScalar(gradient_norm(self.task.get_trainable_module()))
        if rule.clip_grad is not None:
            parameters = self.task.get_clip_parameters(exclude_head="agc" in rule.clip_mode)
            dispatch_clip_grad(parameters, value=rule.clip_grad, mode=rule.clip_mode)
        if rule.scaler is None:
            self.optimizer.step()
        else:
            rule.scaler.step(self.optimizer)
            rule.scaler.update()
        self.optimizer.zero_grad()
        if rule.synchronize is not None:
            rule.synchronize()
        return norm

    def end_epoch(self) -> None:
        """What some optimizers do after their last update of an epoch."""
        if hasattr(self.optimizer, "sync_lookahead"):
            self.optimizer.sync_lookahead()

    def update_ema(self, step: int) -> None:
        """The EMA takes the weights that update number ``step`` has made."""
        self.task.update_ema(step=step)

    def skip_ema(self, step: int) -> None:
        """The other model made update number ``step``: this EMA will be brought up to it when it is next used."""
        if self.ema is not None:
            self.idle_decay *= self.ema.get_decay(step)

    @torch.no_grad()
    def settle_ema(self) -> None:
        """Bring the EMA to the present after idle updates.

        The weights stood still meanwhile, so n updates with decays d are one with their product (live + d^n
        (ema - live)). What is shared with the other model is carried over it by the switch.
        """
        if self.ema is None or self.idle_decay == 1.0:
            return
        averages, lives = (list(model.state_dict().values()) for model in (self.ema.module, self.model))
        moving = [average.is_floating_point() for average in averages]
        targets = list(compress(averages, moving))
        sources = [live.to(average) for live, average in zip(compress(lives, moving), targets, strict=True)]
        if targets:
            torch._foreach_lerp_(targets, sources, 1.0 - self.idle_decay)
        execute(
            grouped((live, average) for live, average, moves in zip(lives, averages, moving, strict=True) if not moves)
        )
        self.idle_decay = 1.0

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs of this learner."""
        state = {"optimizer": self.optimizer.state_dict(), "idle_decay": self.idle_decay}
        state.update(self.task.get_checkpoint_state())
        state.update(self.task.get_checkpoint_state(ema=True))
        return state

    def load_state_dict(self, state: dict[str, Any], optimizer: bool = True) -> None:
        """The inverse of `state_dict`.

        Args:
            optimizer: without it the optimizer keeps its present state.
        """
        if optimizer:
            load_optimizer(self.optimizer, state["optimizer"])
        self.task.load_checkpoint_state(state["state_dict"], state.get("task_state"))
        if self.ema is not None and "state_dict_ema" in state:
            self.task.load_checkpoint_state(state["state_dict_ema"], state.get("task_state_ema"), ema=True)
            self.idle_decay = state["idle_decay"]
        elif self.ema is not None:
            self.ema.set(self.model)
            self.idle_decay = 1.0
