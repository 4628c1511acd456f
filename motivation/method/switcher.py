"""The two sides and the switch between them (paper, section 3.5, lines 25-38 of Algorithm 1).

*expand* copies base -> motivated, *extract* copies motivated -> base: parameters, buffers, optimizer state and EMA
along the weights map. The copies are planned once and executed in place, many tensors at a time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Generic, TypeVar

from torch import Tensor

from motivation.method.batchnorm import running_statistics
from motivation.method.copies import Copies, execute, grouped
from motivation.method.optimizer_state import StateCarrier, tie, uncarriable
from motivation.method.records import Counts, Role
from motivation.method.side import Side
from weight_maps import WeightMap

BATCHNORM_CHOICES = ("copy", "separate")


S = TypeVar("S", bound=Side)


class Switcher(Generic[S]):
    """Keeps one of two sides active and carries the shared weights when they change.

    Args:
        base: the side every epoch begins and ends with.
        motivated: the larger one; None for a plain run, in which nothing ever switches.
        weights_map: the base inside the motivated model.
        batchnorm: ``'copy'`` carries running statistics like other buffers (the paper), ``'separate'`` leaves each
            model its own (ours).

    Raises:
        ValueError: the optimizer's state cannot be carried; the reasons are listed.
    """

    def __init__(
        self,
        base: S,
        motivated: S | None = None,
        weights_map: WeightMap | None = None,
        batchnorm: str = "separate",
    ):
        self.base, self.motivated = base, motivated
        self.active = base
        self.counts = Counts()
        self._to_motivated: Copies = []
        self._to_base: Copies = []
        if motivated is None:
            return
        assert weights_map is not None
        if batchnorm not in BATCHNORM_CHOICES:
            raise ValueError(f"batchnorm is one of {', '.join(BATCHNORM_CHOICES)}, not {batchnorm!r}")
        if batchnorm == "separate":
            weights_map = weights_map.without(running_statistics(base.model), "each model keeps its own statistics")
        self._plan(base, motivated, weights_map)

    def _plan(self, base: S, motivated: S, weights_map: WeightMap) -> None:
        if faults := unlike_storage(weights_map, base.model.state_dict(), motivated.model.state_dict()):
            raise ValueError("the weights cannot be carried: " + "; ".join(faults))
        pairs = weights_map.pairs(base.model.state_dict(), motivated.model.state_dict())
        if base.ema is not None:
            pairs += weights_map.pairs(base.ema.module.state_dict(), motivated.ema.module.state_dict())
        self._to_motivated = grouped(pairs)
        self._to_base = grouped((large, small) for small, large in pairs)

        tied = tie(
            weights_map.links,
            dict(base.model.named_parameters(remove_duplicate=False)),
            dict(motivated.model.named_parameters(remove_duplicate=False)),
            base.optimizer,
            motivated.optimizer,
        )
        if reasons := uncarriable(tied, base.optimizer, motivated.optimizer):
            raise ValueError("the optimizer's state cannot follow a switch: " + "; ".join(reasons))
        self._carrier = StateCarrier(tied, base.optimizer, motivated.optimizer)

    @property
    def sides(self) -> tuple[S, ...]:
        """The base, and the motivated side if there is one."""
        return (self.base,) if self.motivated is None else (self.base, self.motivated)

    @property
    def is_motivated(self) -> bool:
        """Whether the motivated model is the active one."""
        return self.active is self.motivated

    def switch(self) -> None:
        """Change the active model and hand the shared weights over."""
        assert self.motivated is not None, "a plain run has nothing to switch to"
        if self.is_motivated:
            self.extract()
            self.active = self.base
        else:
            self.expand()
            self.active = self.motivated
        self.counts.switches += 1

    def activate(self, role: Role) -> None:
        """Switch unless this model is active already."""
        if self.active.role is not role:
            self.switch()

    def plan(self, to_motivated: bool) -> Copies:
        """All that a switch copies now, in groups of ``(sources, targets)``."""
        weights = self._to_motivated if to_motivated else self._to_base
        return weights + self._carrier.copies(to_motivated)

    def expand(self, optimizer_state: bool = True) -> None:
        """Copy the base into the motivated model; the differential part stays as it is.

        Args:
            optimizer_state: without it only weights, buffers and EMA are copied, which is enough to evaluate.
        """
        assert self.motivated is not None
        self.motivated.settle_ema()
        self._copy_to_motivated(optimizer_state)

    def _copy_to_motivated(self, optimizer_state: bool) -> None:
        execute(self.plan(to_motivated=True) if optimizer_state else self._to_motivated)

    def extract(self) -> None:
        """Copy the base's part of the motivated model back; the motivated model stays as it is."""
        self.base.settle_ema()
        self._copy_to_base()

    def _copy_to_base(self) -> None:
        execute(self.plan(to_motivated=False))

    def bring_up_to_date(self) -> None:
        """Give the idle model the shared weights of the active one, without a switch; training is not disturbed.

        Its EMA stays in debt for the updates it was idle at: paid in two parts it would not have the same bits.
        """
        if self.is_motivated:
            self._copy_to_base()
        elif self.motivated is not None:
            self._copy_to_motivated(optimizer_state=False)

    def count_update(self, step: int) -> None:
        """Account for an update of the active model; both EMAs follow."""
        self.counts.updates[self.active.role] += 1
        for side in self.sides:
            if side is self.active:
                side.update_ema(step)
            else:
                side.skip_ema(step)

    def state_dict(self) -> dict[str, Any]:
        """Counts, the active model and the motivated side; who saves this saves the base too."""
        state: dict[str, Any] = {"counts": self.counts.state_dict(), "active": self.active.role.value}
        if self.motivated is not None:
            state["base_idle_decay"] = self.base.idle_decay
            state["motivated"] = self.motivated.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any], optimizer: bool = True) -> None:
        """The inverse of `state_dict`; the base must have been loaded.

        Args:
            optimizer: as in `Side.load_state_dict`.
        """
        self.counts.load_state_dict(state["counts"])
        if self.motivated is not None:
            self.base.idle_decay = state["base_idle_decay"]
            self.motivated.load_state_dict(state["motivated"], optimizer)
            self.active = self.motivated if state["active"] == Role.MOTIVATED.value else self.base


def unlike_storage(weights_map: WeightMap, base: dict[str, Tensor], motivated: dict[str, Tensor]) -> list[str]:
    """Why two state dicts are not stored alike: another dtype, or one tensor under two names in one model only.

    A value that is converted does not come back bit for bit; of two tensors that go into one, one would be lost.
    """
    faults = []
    counterparts: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for link in weights_map.links:
        small, large = base[link.base], motivated[link.motivated]
        if small.dtype != large.dtype:
            faults.append(f"{link.base} is {small.dtype}, its counterpart {large.dtype}")
        if small.numel() and small.device.type != "meta":
            counterparts["the base", small.data_ptr()][large.data_ptr()] = link.base
            counterparts["the motivated model", large.data_ptr()][small.data_ptr()] = link.motivated
    for (model, _), names in counterparts.items():
        if len(names) > 1:
            faults.append(f"{' and '.join(sorted(names.values()))} are one tensor in {model} only")
    return summary_of(faults)


def summary_of(faults: list[str], most: int = 3) -> list[str]:
    """The first few of many."""
    return [*faults[:most], f"and {len(faults) - most} more"] if len(faults) > most else faults
