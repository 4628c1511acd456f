"""Two models that take turns (paper, Algorithm 1): the method without any training program around it.

::

    pair = MotivatedPair(base, motivated, base_optimizer, motivated_optimizer, weights_map, condition)
    for epoch in range(epochs):
        pair.start_epoch(epoch, updates_per_epoch)
        for batch in batches:
            model, optimizer = pair.active
            loss = ...                          # forward, backward and step of this model with this optimizer
            pair.observe(loss)
        pair.end_epoch()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.method.conditions import Condition, Never
from motivation.method.plugin_errors import blaming_plugin, state_of
from motivation.method.records import Counts, DeferredScalar, Role, UpdateRecord
from motivation.method.side import Side
from motivation.method.switcher import Switcher
from weight_maps import WeightMap, find_map

S = TypeVar("S", bound=Side)
Scalar = DeferredScalar | Tensor | float


class MotivatedPair(Generic[S]):
    """A base model, a motivated model, the weights map and the condition; it says which model trains the next update.

    Args:
        base: any module.
        motivated: a larger module that contains it.
        base_optimizer, motivated_optimizer: of the same class, over the parameters of each. A schedule must move both.
        weights_map: where the base lies in the motivated model; None to find it by names and shapes (the map ``auto``).
        condition: see `motivation.method.conditions.make_condition`.
        batchnorm: ``'copy'`` carries running statistics at a switch (the paper), ``'separate'`` leaves each model its
            own (ours).

    Raises:
        ValueError: the motivated model does not contain the base, the optimizers' state cannot be carried, or an
            argument is not what it should be; the error lists the reasons.
    """

    switcher: Switcher[S]

    def __init__(
        self,
        base: nn.Module,
        motivated: nn.Module,
        base_optimizer: Optimizer,
        motivated_optimizer: Optimizer,
        weights_map: WeightMap | None,
        condition: Condition,
        batchnorm: str = "separate",
    ):
        if faults := _faults(base, motivated, base_optimizer, motivated_optimizer, condition):
            raise ValueError("; ".join(faults))
        one: Any = Side(Role.BASE, base, base_optimizer)
        other: Any = Side(Role.MOTIVATED, motivated, motivated_optimizer)
        small, large = one.model, other.model
        if weights_map is None:
            weights_map = find_map(type(small).__name__, type(large).__name__, small, large, map_name="auto")
        weights_map.check(small, large)
        self._set_up(Switcher(one, other, weights_map, batchnorm), condition)

    @classmethod
    def of(cls, switcher: Switcher[S], condition: Condition | None = None) -> MotivatedPair[S]:
        """A pair around learners that a switcher holds already; without a second one, a plain run."""
        pair = cls.__new__(cls)
        pair._set_up(switcher, condition or Never())
        return pair

    def _set_up(self, switcher: Switcher[S], condition: Condition) -> None:
        self.switcher, self.condition = switcher, condition
        self.epoch = self.update = self.step = 0
        self._between_epochs = False

    @property
    def active(self) -> S:
        """The side that trains the next update; ``model, optimizer = pair.active``.

        If the condition has changed its mind since the last update, the shared weights and the optimizer's state are
        handed over now. Between `end_epoch` and `start_epoch` it is the base.
        """
        if self._between_epochs:
            return self.switcher.active
        if bool(self.condition.motivated) != self.switcher.is_motivated:
            self.switcher.switch()
        return self.switcher.active

    def observe(
        self, loss: Scalar, gradient_norm: Scalar | None = None, validation_loss: Scalar | None = None
    ) -> UpdateRecord:
        """Tell the pair of the update that the active side has done.

        Args:
            loss: its training loss; in a distributed run the mean over ranks, so that all of them decide alike. A
                tensor is read only when the condition wants it.
            gradient_norm, validation_loss: for a condition that names them in its ``needs``.

        Returns:
            The record that the condition was shown.
        """
        given = {"loss": loss, "gradient_norm": gradient_norm, "validation_loss": validation_loss}
        signals = {
            name: value if isinstance(value, DeferredScalar) else DeferredScalar(value)
            for name, value in given.items()
            if value is not None
        }
        self.step += 1
        self.switcher.count_update(self.step)
        record = UpdateRecord(self.epoch, self.update, self.step, self.switcher.active.role, signals)
        self.update += 1
        self._between_epochs = False
        with blaming_plugin(self.condition, "observe"):
            self.condition.observe(record)
        return record

    def start_epoch(self, epoch: int, updates: int | None = None) -> None:
        """An epoch begins, on the base.

        Args:
            epoch: counted from 0.
            updates: how many the epoch has, as all of this run; None if that is not known.
        """
        self.epoch, self.update, self._between_epochs = epoch, 0, False
        if updates is not None:
            self.step = epoch * updates
        self.condition.start_epoch(epoch, updates)
        self.switcher.activate(Role.BASE)

    def go_to(self, position: Sequence[int]) -> None:
        """Go on inside an epoch, at the ``position`` of a state dict; `start_epoch` is not called for it."""
        self.epoch, self.update, self.step, self._between_epochs = (*map(int, position[:3]), bool(position[3]))

    def end_epoch(self) -> None:
        """An epoch is over, or training: the base has the shared weights, and is active until the next epoch."""
        self.switcher.activate(Role.BASE)
        self._between_epochs = True

    def bring_up_to_date(self) -> None:
        """Give the idle model the shared weights of the other, to evaluate or save it; training is not disturbed."""
        self.switcher.bring_up_to_date()

    @property
    def counts(self) -> Counts:
        """Updates of each model, switches, and the share of motivated updates."""
        return self.switcher.counts

    def state_dict(self, with_base: bool = True) -> dict[str, Any]:
        """Everything that it takes to go on after any update: models, optimizers, condition, counts.

        Args:
            with_base: without it the base's weights and optimizer are left out, for who saves them elsewhere.
        """
        state: dict[str, Any] = {
            "position": [self.epoch, self.update, self.step, self._between_epochs],
            "condition": {"name": self.condition.name, "state": state_of(self.condition)},
            "switcher": self.switcher.state_dict(),
        }
        return state | {"base": self.switcher.base.state_dict()} if with_base else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, for a pair of the same models, optimizers and condition.

        Raises:
            ValueError: the state is of another condition.
        """
        if state["condition"]["name"] != self.condition.name:
            raise ValueError(
                f"the state is of the condition {state['condition']['name']!r}, not {self.condition.name!r}"
            )
        if "base" in state:
            self.switcher.base.load_state_dict(state["base"])
        self.switcher.load_state_dict(state["switcher"])
        self.go_to(state["position"])
        self.condition.load_state_dict(state["condition"]["state"])


def _faults(
    base: nn.Module, motivated: nn.Module, base_optimizer: Optimizer, motivated_optimizer: Optimizer, condition: Any
) -> list[str]:
    """What is wrong with the arguments of a pair by themselves."""
    faults = []
    if base is motivated:
        faults.append("base and motivated are the same module; the motivated model is another, with the base inside it")
    if type(base_optimizer) is not type(motivated_optimizer):
        kinds = f"{type(base_optimizer).__name__} and {type(motivated_optimizer).__name__}"
        faults.append(f"the optimizers are {kinds}; their state can be carried only if they are of one class")
    for name, model, optimizer in (("base", base, base_optimizer), ("motivated", motivated, motivated_optimizer)):
        own = set(map(id, model.parameters()))
        if any(id(parameter) not in own for group in optimizer.param_groups for parameter in group["params"]):
            faults.append(f"{name}_optimizer has parameters that are not those of the {name} model")
    if not isinstance(condition, Condition):
        faults.append(
            f"condition is {condition!r}; make one with make_condition(name, k=...), or derive yours from Condition or "
            "register it with @register_condition"
        )
    return faults
