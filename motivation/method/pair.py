"""Two models that train in turns on shared weights: Algorithm 1 of the paper, for any training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from motivation.method.conditions import Condition, Never
from motivation.method.records import Counts, DeferredScalar, Role, UpdateRecord
from motivation.method.side import Side
from motivation.method.switch import Switch
from weight_maps import WeightMap, find_map

S = TypeVar("S", bound=Side)
Scalar = DeferredScalar | Tensor | float


class Position(NamedTuple):
    """The place of a training between two updates.

    Attributes:
        epoch: the current epoch, counted from 0.
        update: updates done in the current epoch.
        step: number of the update in the schedule; jumps forward after an epoch that ended early.
        is_between_epochs: True from the end of an epoch to the start of the next.
    """

    epoch: int
    update: int
    step: int
    is_between_epochs: bool


class MotivatedPair(Generic[S]):
    """A base model and a larger motivated model that train in turns on shared weights.

    The method has four parts, which are the first four arguments:

    - The **base** model (section 3.1) is the small network. It is what a run is for, and it is trained by every update.
    - The **motivated** model (3.2) is a larger network that contains the base: deeper, wider or both. What it has
      beyond the base is the differential part. To train the motivated model is to train the base inside it too.
    - The **weights map** (3.3) says where each tensor of the base lies inside the motivated model.
    - The **motivation condition** (3.4) chooses, after each update, the model that is trained in the next update. The
      paper's is: the training loss has fallen k times in a row.

    One of the two models is `active`: the base while the condition is not met, the motivated model while it is (3.5,
    Algorithm 1). Both stay in memory. Whenever the active model changes, the weights that
    the two share are copied to the one that takes over: *expand* copies base -> motivated, *extract* copies
    motivated -> base. Buffers, optimizer state and the EMA are copied too, all of it in place: no tensor is replaced.
    BatchNorm's running statistics are copied only with ``batchnorm='copy'``, as in the paper; by default each model
    keeps its own. The differential part is changed by the updates of the motivated model only. Every epoch begins and
    ends on the base.

    Make the pair after the models have been moved and cast, and load weights in place from then on: the pair keeps the
    tensors that it copies. A training loop calls four methods::

        base, motivated = Side(small, small_optimizer), Side(large, large_optimizer)
        pair = MotivatedPair(base, motivated, weights_map, make_condition("loss", k=2))
        pair.condition.start_run(epochs, len(batches))    # for conditions that need the length of the run: scheduled
        for epoch in range(epochs):
            pair.start_epoch(epoch, len(batches))     # on the base; the streak is forgotten
            for images, targets in batches:
                model, optimizer = pair.select()      # expand or extract, if the condition has changed
                loss = loss_fn(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                pair.observe(loss)                    # the condition sees the loss
            pair.end_epoch()                          # the base has the shared weights

    Args:
        base: the small model with its optimizer.
        motivated: the large model with an optimizer of the same class. A learning rate schedule must move both
            optimizers at every update. None for a plain run of the base alone, under the condition ``never``.
        weights_map: the base inside the motivated model; None to find it by names and shapes (the map ``auto``).
        condition: see `motivation.method.condition_registry.make_condition`.
        batchnorm: ``'copy'`` to carry BatchNorm's running statistics with the other buffers (the paper), ``'separate'``
            to let each model keep its own (ours, see docs/method.md).

    Attributes:
        base, motivated: as given.
        active: the side whose model is active. A plain attribute: reading it changes nothing.
        condition: as given.
        counts: updates of each model, switches, and the share of motivated updates.
        epoch, update, step: see `Position`.
        confirm: is called with each decision before it takes effect, and returns it; where several processes train, it
            may compare theirs.

    Raises:
        ValueError: the motivated model does not contain the base, the optimizers' state cannot be carried, or an
            argument is not what it should be; the error lists the reasons.
    """

    def __init__(
        self,
        base: S,
        motivated: S | None,
        weights_map: WeightMap | None,
        condition: Condition,
        batchnorm: str = "separate",
    ):
        if reasons := _argument_errors(base, motivated, condition):
            raise ValueError("; ".join(reasons))
        self.base, self.motivated, self.condition = base, motivated, condition
        self.active = base
        self.counts = Counts()
        self.epoch = self.update = self.step = 0
        self._between_epochs = False
        self.confirm: Callable[[bool], bool] = bool
        if motivated is not None:
            base_model, motivated_model = base.model, motivated.model
            if weights_map is None:
                names = type(base_model).__name__, type(motivated_model).__name__
                weights_map = find_map(*names, base_model, motivated_model, map_name="auto")
            weights_map.check(base_model, motivated_model)
            self._switch = Switch(base, motivated, weights_map, batchnorm)

    @property
    def sides(self) -> tuple[S, ...]:
        """The base, and the motivated side if there is one."""
        return (self.base,) if self.motivated is None else (self.base, self.motivated)

    @property
    def is_motivated(self) -> bool:
        """True while the motivated model is the active one."""
        return self.active is self.motivated

    @property
    def role(self) -> Role:
        """Base or motivated: the role of the active model."""
        return Role.MOTIVATED if self.is_motivated else Role.BASE

    # --- the four calls of a loop

    def start_epoch(self, epoch: int, updates: int | None = None) -> None:
        """Start an epoch with the base active.

        The paper does not say what happens to the streak: here it starts at 0.

        Args:
            epoch: counted from 0.
            updates: number of updates in this epoch, the same in all epochs; None if it is not known.
        """
        self.epoch, self.update, self._between_epochs = epoch, 0, False
        if updates is not None:
            self.step = epoch * updates
        self.condition.start_epoch(epoch, updates)
        self._activate(motivated=False)

    def select(self) -> S:
        """Make the model active that the next update is to train, and return its side.

        Copies the shared weights if the condition's decision has changed (lines 25-38 of Algorithm 1, which makes the
        copies at the end of the previous iteration). After `end_epoch`, returns the base until the next epoch starts.
        """
        self._activate(motivated=self.confirm(not self._between_epochs and bool(self.condition.motivated)))
        return self.active

    def observe(
        self, loss: Scalar, gradient_norm: Scalar | None = None, validation_loss: Scalar | None = None
    ) -> UpdateRecord:
        """Record one finished update: count it, update the EMA of the weights, and show it to the condition.

        Line 24 of Algorithm 1: the condition compares the loss with the one before.

        Args:
            loss: training loss of the update. In a distributed run pass the mean over ranks, so that all ranks decide
                alike. A tensor is read only if the condition reads it.
            gradient_norm, validation_loss: for conditions that name them in ``needs``.

        Returns:
            The record that was shown to the condition.
        """
        self.step += 1
        self.counts.add(self.role)
        for side in self.sides:
            if side is self.active:
                side.update_ema(self.step)
            else:
                side.defer_ema_update(self.step)
        given = {"loss": loss, "gradient_norm": gradient_norm, "validation_loss": validation_loss}
        signals = {
            name: value if isinstance(value, DeferredScalar) else DeferredScalar(value)
            for name, value in given.items()
            if value is not None
        }
        record = UpdateRecord(self.epoch, self.update, self.step, self.role, signals)
        self.update += 1
        self._between_epochs = False
        self.condition.observe(record)
        return record

    def end_epoch(self) -> None:
        """End an epoch on the base (line 39 of Algorithm 1); it stays active until the next epoch begins."""
        self._activate(motivated=False)
        self._between_epochs = True

    # --- the switch

    def _activate(self, motivated: bool) -> None:
        if motivated and not self.is_motivated:
            self.expand()
        elif self.is_motivated and not motivated:
            self.extract()

    def expand(self) -> None:
        """Copy the base into the motivated model and make that the active one."""
        assert self.motivated is not None, "a plain run has no model to switch to"
        self.motivated.apply_deferred_ema()
        self._switch.expand()
        self.active = self.motivated

    def extract(self) -> None:
        """Copy the base's part of the motivated model back and make the base the active model."""
        self.base.apply_deferred_ema()
        self._switch.extract()
        self.active = self.base

    def sync_idle_model(self) -> None:
        """Copy the shared weights and their EMA to the idle model, to evaluate or save it.

        This is no switch: training goes on as if it had not been called. The pending EMA decay is not applied here:
        applying it in two steps rounds differently. The base is saved to be used alone, so its optimizer state is
        brought up to date too; what the motivated model's shares with it is overwritten by the next expand in any case.
        """
        if self.is_motivated:
            self._switch.extract()
        elif self.motivated is not None:
            self._switch.expand(optimizer_state=False)

    # --- saving and resuming

    @property
    def updates_done(self) -> int | None:
        """Updates done in the current epoch; None between two epochs."""
        return None if self._between_epochs else self.update

    def state_dict(self, with_base: bool = True) -> dict[str, Any]:
        """Return all that is needed to go on after any update: models, optimizers, condition, counts, position.

        Args:
            with_base: False to leave out the base's weights and optimizer, if they are saved elsewhere.
        """
        state: dict[str, Any] = {
            "position": [self.epoch, self.update, self.step, self._between_epochs],
            "condition": {"name": self.condition.name, "state": self.condition.state_dict()},
            "counts": self.counts.state_dict(),
            "active": self.role.value,
        }
        if self.motivated is not None:
            state |= {"base_pending_decay": self.base.pending_decay, "motivated": self.motivated.state_dict()}
        return state | {"base": self.base.state_dict()} if with_base else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, into a pair of the same models, optimizers and condition.

        Parts that the state lacks stay as they are. Go on in the middle of an epoch without another `start_epoch`.

        Raises:
            ValueError: the state is of another condition.
        """
        condition = state.get("condition", {"name": self.condition.name})
        if condition["name"] != self.condition.name:
            raise ValueError(f"the state is of the condition {condition['name']!r}, not {self.condition.name!r}")
        self.epoch, self.update, self.step, self._between_epochs = state["position"]
        if "base" in state:
            self.base.load_state_dict(state["base"])
        if "counts" in state:
            self.counts.load_state_dict({"last": state["active"], **state["counts"]})
        if self.motivated is not None and "motivated" in state:
            self.base.pending_decay = state["base_pending_decay"]
            self.motivated.load_state_dict(state["motivated"])
            self.active = self.motivated if state["active"] == Role.MOTIVATED.value else self.base
        if "state" in condition:
            self.condition.load_state_dict(condition["state"])


def _argument_errors(base: Side, motivated: Side | None, condition: Any) -> list[str]:
    """Return what is wrong with the arguments of a pair, before a map is looked for."""
    errors = []
    if motivated is not None:
        errors += _side_errors(base, motivated)
    elif isinstance(condition, Condition) and not isinstance(condition, Never):
        errors.append(f"there is no motivated model for the condition {condition.name!r}; train the base with 'never'")
    if not isinstance(condition, Condition):
        errors.append(
            f"condition is {condition!r}; make one with make_condition(name, k=...), or derive yours from Condition or "
            "register it with @register_condition"
        )
    return errors


def _side_errors(base: Side, motivated: Side) -> list[str]:
    errors = []
    if base.model is motivated.model:
        errors.append("base and motivated are the same module; the motivated model is another, with the base inside it")
    if type(base.optimizer) is not type(motivated.optimizer):
        kinds = f"{type(base.optimizer).__name__} and {type(motivated.optimizer).__name__}"
        errors.append(f"the optimizers are {kinds}; their state can be carried only if they are of one class")
    if (base.ema is None) != (motivated.ema is None):
        errors.append("one side has an EMA and the other has none; give both sides one, or neither")
    for name, side in (("base", base), ("motivated", motivated)):
        own = set(map(id, side.model.parameters()))
        trained = (parameter for group in side.optimizer.param_groups for parameter in group["params"])
        if any(id(parameter) not in own for parameter in trained):
            errors.append(f"the optimizer of the {name} model has parameters that are not those of the {name} model")
    return errors
