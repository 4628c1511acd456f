"""A model with its optimizer and, where one is kept, the EMA of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from motivation.method.ema import apply_decay
from motivation.method.optimizer_probe import inner_optimizer
from motivation.method.optimizer_state import load_optimizer


class Side:
    """Hold a model of a `MotivatedPair` together with its optimizer and EMA.

    ``model, optimizer = side`` unpacks it.

    Args:
        model: any module; also compiled, or wrapped for distributed data parallel training.
        optimizer: over its parameters.
        ema: a moving average of the weights with the interface of timm's ``ModelEmaV3``, or None. The pair updates it.

    Attributes:
        pending_decay: product of the EMA decays of the updates at which this model was idle, see
            `motivation.method.ema`; 1 if there were none.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, ema: Any = None):
        self._wrapped_model, self.optimizer, self.ema = model, optimizer, ema
        self.pending_decay = 1.0

    def __iter__(self) -> Iterator[Any]:
        return iter((self._wrapped_model, self.optimizer))

    @property
    def model(self) -> nn.Module:
        """The model without its wrappers; the weights map uses the names of its tensors."""
        return without_wrappers(self._wrapped_model)

    @property
    def ema_model(self) -> nn.Module:
        """The module that holds the EMA, without its wrappers; only for a side with an EMA."""
        return without_wrappers(self.ema.module)

    def update_ema(self, step: int) -> None:
        """Move the EMA towards the weights that update number ``step`` has made; this model was the active one."""
        if self.ema is not None:
            self.ema.update(self.model, step=step)

    def defer_ema_update(self, step: int) -> None:
        """Remember that the EMA is one more update behind; the other model was active at update number ``step``."""
        if self.ema is not None:
            self.pending_decay *= self.ema.get_decay(step)

    def apply_deferred_ema(self) -> None:
        """Apply all EMA updates that were skipped."""
        if self.ema is not None and self.pending_decay != 1.0:
            if getattr(self.ema, "stochastic_rounding", False) and _has_bfloat16(self.ema_model):
                self.ema.apply_update_(self.model, self.pending_decay)  # to the nearest, most of it would be lost
            else:
                apply_decay(self.ema_model, self.model, self.pending_decay)
        self.pending_decay = 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, buffers, optimizer state, EMA and states of private generators."""
        state: dict[str, Any] = {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["generators"] = self.generator_states()
        if self.ema is not None:
            state |= {"state_dict_ema": self.ema_model.state_dict(), "pending_decay": self.pending_decay}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; without an entry ``optimizer`` the optimizer stays as it is."""
        self.model.load_state_dict(state["state_dict"])
        if "optimizer" in state:
            load_optimizer(self.optimizer, state["optimizer"])
        if self.ema is not None:
            self.ema_model.load_state_dict(state["state_dict_ema"])
            self.pending_decay = state["pending_decay"]
        self.load_generator_states(state.get("generators", {}))

    def _generator_owners(self) -> list[tuple[Any, torch.device]]:
        """Return the optimizer and the EMA, each with the device of its tensors."""
        owners = [(inner_optimizer(self.optimizer), self.model)]
        if self.ema is not None:
            owners.append((self.ema, self.ema_model))
        return [(owner, next(model.parameters()).device) for owner, model in owners]

    def generator_states(self) -> dict[str, Tensor]:
        """Return the states of random generators that the optimizer and the EMA have of their own.

        In timm these are AdaHessian's, and the one by which `ModelEmaV3` rounds averages in bfloat16.
        """
        return {
            name: value.get_state()
            for owner, _ in self._generator_owners()
            for name, value in vars(owner).items()
            if isinstance(value, torch.Generator)
        }

    def load_generator_states(self, states: Mapping[str, Tensor]) -> None:
        """Restore `generator_states`; those of generators that are not here, or on another kind of device, are left."""
        for owner, device in self._generator_owners():
            for name in states.keys() & vars(owner).keys():
                # AdaHessian begins with one on the CPU and replaces it at the first step by one on the device
                for generator in (getattr(owner, name), torch.Generator(device)):
                    if generator.get_state().shape == states[name].shape:
                        generator.set_state(states[name])
                        setattr(owner, name, generator)
                        break


def _has_bfloat16(model: nn.Module) -> bool:
    return any(parameter.dtype is torch.bfloat16 for parameter in model.parameters())


def without_wrappers(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and DistributedDataParallel."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
