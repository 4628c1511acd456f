"""One of the two models, with its optimizer: what a switch carries weights and optimizer state between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from motivation.method.optimizer_probe import load_optimizer
from motivation.method.records import Role


class Side:
    """A model and its optimizer; ``model, optimizer = side`` unpacks them.

    Args:
        role: base or motivated.
        model: any module; also compiled, or wrapped for distributed data parallel training.
        optimizer: over its parameters.
    """

    ema: Any = None
    """Moving average of the weights, where one is kept (`motivation.training.learner.Learner`)."""
    idle_decay: float = 1.0
    """Product of the decays of the updates that the EMA has not taken part in."""

    def __init__(self, role: Role, model: nn.Module, optimizer: Optimizer):
        self.role, self._model, self.optimizer = role, model, optimizer

    def __iter__(self) -> Iterator[Any]:
        return iter((self._model, self.optimizer))

    @property
    def model(self) -> nn.Module:
        """The model without its wrappers, whose names the weights map uses."""
        return without_wrappers(self._model)

    def update_ema(self, step: int) -> None:
        """Update number ``step`` was this model's."""

    def skip_ema(self, step: int) -> None:
        """Update number ``step`` was the other model's."""

    def settle_ema(self) -> None:
        """Bring the EMA to the present after idle updates."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimizer."""
        return {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], optimizer: bool = True) -> None:
        """The inverse of `state_dict`.

        Args:
            optimizer: without it the optimizer keeps its present state.
        """
        self.model.load_state_dict(state["state_dict"])
        if optimizer:
            load_optimizer(self.optimizer, state["optimizer"])


def without_wrappers(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile`` and DistributedDataParallel."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
