"""Train a model: its task, optimizer, schedule and EMA. One call of `Learner.train` is one optimizer update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.utils import dispatch_clip_grad
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.data.update_loader import MicroBatch
from motivation.method.optimizer_state import load_optimizer
from motivation.method.records import DeferredScalar, Role
from motivation.method.side import Side
from motivation.training.finite import refusing_overflow
from motivation.training.loss_message import LossMessage
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
        measures_gradients: True to report the norm of the gradients in each outcome.
        exact_loss: True to report the loss in float32 of float32 logits although the model computes in less. The 8
            bits of a bfloat16 loss would tie neighbouring updates, and a tie ends a streak.
    """

    autocast: Callable[[], AbstractContextManager] = nullcontext
    scaler: torch.amp.GradScaler | None = None
    clip_grad: float | None = None
    clip_mode: str = "norm"
    batch_scale: Callable[[int], float | Tensor] | None = None
    world_size: int = 1
    synchronize: Callable[[], None] | None = None
    measures_gradients: bool = False
    exact_loss: bool = False


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """Return the Euclidean norm of all gradients of a model as one vector (paper, section 4.4.2), a 0-d tensor."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    # in half precision neighbouring updates would tie
    return torch.nn.utils.get_total_norm([gradient.float() for gradient in gradients])


class Learner(Side):
    """Train one model: hold it together with its task, optimizer, schedule and EMA.

    Args:
        role: base or motivated.
        task: a timm training task around the model, complete: with EMA, compiled and wrapped as it will be trained.
        optimizer: over the task's trainable module.
        schedule: a timm scheduler over that optimizer, or None.
        rule: see `UpdateRule`.
        eval_model: the model that validation runs; default the task's. With DDP it must be taken before wrapping: a
            forward pass through DDP broadcasts rank 0's buffers.
    """

    def __init__(
        self, role: Role, task: Any, optimizer: Optimizer, schedule: Any, rule: UpdateRule, eval_model: Any = None
    ):
        super().__init__(task.get_trainable_module(), optimizer, ema=task.get_trainable_module(ema=True))
        self.role, self.task, self.schedule, self.rule = role, task, schedule, rule
        self._eval_model = eval_model
        self._second_order = bool(getattr(optimizer, "is_second_order", False))

    @property
    def eval_model(self) -> Any:
        """The model that validation runs."""
        return self.task.get_eval_model() if self._eval_model is None else self._eval_model

    def eval_models(self) -> dict[str, Any]:
        """Return the models to evaluate, by name: the model (``base``), then its EMA if there is one (``base:ema``)."""
        models = {self.role.value: self.eval_model}
        if self.ema is not None:
            models[f"{self.role.value}:ema"] = self.task.get_eval_model(ema=True)
        return models

    @property
    def lr(self) -> float:
        """Mean learning rate over the parameter groups."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return sum(rates) / len(rates)

    def start_epoch(self) -> None:
        """Put the model in training mode and clear its gradients."""
        self.task.get_trainable_module().train()
        self.optimizer.zero_grad()

    def train(self, micro_batches: Iterable[MicroBatch], stop_vote: bool = False) -> Outcome | None:
        """Do one update.

        Args:
            micro_batches: the micro-batches of the update; they are pulled one at a time.
            stop_vote: True if this rank has been asked to stop; the outcome says how many ranks have.

        Returns:
            The outcome, or None if the data ended before the update was complete.

        Raises:
            NotFiniteError: a factor of the optimizer is more than the dtype of the weights holds.
        """
        local_losses: list[tuple[DeferredScalar, int]] = []
        loss_sum: Tensor | None = None
        images, data_time_s = 0, 0.0
        for batch in micro_batches:
            with nullcontext() if batch.is_last else self.task.no_sync():
                # both over accum_steps, so that the sum over micro-batches is the mean
                loss, reported = self._forward(batch)
                loss_sum = reported if loss_sum is None else loss_sum + reported
                local = DeferredScalar(loss, batch.accum_steps)
                local_losses.append((local, batch.size))
                is_mean = batch.accum_steps == 1 and not self.rule.exact_loss
                send = partial(self._send, loss_sum, local if is_mean else None, stop_vote)
                if batch.is_last and not self.rule.measures_gradients:
                    receive = send()
                self._backward(loss, batch.size)
            images += batch.size * self.rule.world_size
            data_time_s += batch.data_time_s
            if batch.is_last:
                if self.rule.measures_gradients:
                    receive = send(self._measure_gradients())
                mean_loss, stop_votes, norm = receive()
                with refusing_overflow():
                    self._step()
                return Outcome(mean_loss, local_losses, images, data_time_s, batch, norm, stop_votes)
        return None

    def rehearse(self, batch: MicroBatch) -> None:
        """Do the forward and backward pass of a micro-batch, and nothing that ranks do together; see `trial`.

        The gradient scaler is left out: it changes the gradients' scale, and itself when it is first used.
        """
        with self.task.no_sync():
            loss, _ = self._forward(batch)
            loss.backward(create_graph=self._second_order)

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the loss to train with and the loss to report, each over the number of micro-batches."""
        with self.rule.autocast():
            result = self.task(batch.images, batch.targets)
        loss = result["loss"]
        reported = self._exact_loss(result, batch.targets) if self.rule.exact_loss else loss.detach()
        if batch.accum_steps > 1:
            return loss / batch.accum_steps, reported / batch.accum_steps
        return loss, reported

    @torch.no_grad()
    def _exact_loss(self, result: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Return the loss in float32 of float32 logits; a teacher's part stays in the precision of the model."""
        targets = targets.float() if targets.is_floating_point() else targets  # soft ones, of Mixup
        loss = self.task.criterion(result["output"].float(), targets)
        for teaching in result.keys() & {"kd_loss", "distill_loss"}:
            loss = self.task.task_loss_weight * loss + self.task.distill_loss_weight * result[teaching].float()
        return loss

    def _send(
        self, loss: Tensor, local: DeferredScalar | None, stop_vote: bool, norm: Tensor | None = None
    ) -> Callable[[], tuple[DeferredScalar, DeferredScalar | None, DeferredScalar | None]]:
        """Start the loss on its way to the host and to other ranks, so that the backward pass overlaps it.

        A norm that is wanted goes with it, which is then sent after the backward pass.

        Args:
            loss: mean over the images of this rank.
            local: the same, if it is on its way already.
            stop_vote: see `train`.
            norm: of the gradients; None if it is not wanted.

        Returns:
            A function to call after the backward pass: it returns the mean of the loss over ranks, the number of ranks
            that want to stop, and the norm, the same on all ranks.
        """
        if self.rule.world_size > 1:
            return LossMessage(loss, stop_vote, self.rule.world_size, norm).receive
        mean_loss = DeferredScalar(loss) if local is None else local
        return lambda: (mean_loss, None, None if norm is None else DeferredScalar(norm))

    def _backward(self, loss: Tensor, images: int) -> None:
        if self.rule.batch_scale is not None:
            loss = self.rule.batch_scale(images) * loss
        if self.rule.scaler is not None:
            loss = self.rule.scaler.scale(loss)
        loss.backward(create_graph=self._second_order)

    def _measure_gradients(self) -> Tensor:
        if self.rule.scaler is not None:
            self.rule.scaler.unscale_(self.optimizer)
        return gradient_norm(self.task.get_trainable_module())

    def _step(self) -> None:
        """Clip the gradients and step the optimizer."""
        rule = self.rule
        if rule.clip_grad is not None:
            if rule.scaler is not None and not rule.measures_gradients:  # else they were unscaled to be measured
                rule.scaler.unscale_(self.optimizer)
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

    def end_epoch(self) -> None:
        """Do what some optimizers need after their last update of an epoch."""
        if hasattr(self.optimizer, "sync_lookahead"):
            self.optimizer.sync_lookahead()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs of this learner, under timm's keys."""
        state = {"optimizer": self.optimizer.state_dict(), "pending_decay": self.pending_decay}
        state.update(self.task.get_checkpoint_state())
        state.update(self.task.get_checkpoint_state(ema=True))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Without an entry ``optimizer`` the optimizer stays as it is; a missing EMA starts from the weights.
        """
        if "optimizer" in state:
            load_optimizer(self.optimizer, state["optimizer"])
        self.task.load_checkpoint_state(state["state_dict"], state.get("task_state"))
        if self.ema is not None and "state_dict_ema" in state:
            self.task.load_checkpoint_state(state["state_dict_ema"], state.get("task_state_ema"), ema=True)
            self.pending_decay = state["pending_decay"]
        elif self.ema is not None:
            self.ema.set(self.model)
            self.pending_decay = 1.0
