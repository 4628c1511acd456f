"""Carry the state of the optimizers along with the weights (paper, section 3.5: "specific functions are thus dedicated
to copying these buffers, also following the weights map").

State of the parameter's shape (momentum, second moments) is sliced as the parameter is; factored state (Adafactor's
rows and columns) along the axes that it has; scalars (step counters) are copied unchanged, and so are counters of a
parameter group (``group['step']`` of timm's LAMB).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from motivation.method.copies import Copies, TensorPair, grouped
from motivation.method.optimizer_probe import SLOW_WEIGHTS, axes_of_state, first_step, inner_optimizer, is_scalar
from weight_maps import Link

MAX_REPLANS = 3
"""After more than this many successive switches that had to plan anew, plan at every switch."""


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict bit for bit.

    ``Optimizer.load_state_dict`` converts all floating state to the dtype of its parameter. That would round scalars
    which an optimizer keeps in float32 for parameters in half precision (NAdam's product of momenta).

    Raises:
        ValueError: an option is missing or no number, or state is not of the shape that this optimizer gives it.
    """
    options = [
        {name: value for name, value in group.items() if name in optimizer.defaults} for group in optimizer.param_groups
    ]
    # some optimizers, such as AdaHessian, begin with state that is not yet all of a first step's
    begun = {parameter: set(kept) for parameter, kept in inner_optimizer(optimizer).state.items()}
    optimizer.load_state_dict(state)
    _keep_scalars(optimizer, state)
    for index, group in enumerate(optimizer.param_groups):
        for name, value in options[index].items():
            if name not in group:
                raise ValueError(f"parameter group {index} has no {name!r}")
            if isinstance(value, (int, float)) and not isinstance(group[name], (int, float, Tensor)):
                raise ValueError(f"{name!r} of parameter group {index} is no number")
        _refuse_other_shapes(optimizer, index, begun)


def _refuse_other_shapes(optimizer: Optimizer, group_index: int, begun: dict[Tensor, set[str]]) -> None:
    """Refuse state of a shape that a first step does not give it; probes one parameter of each shape.

    Args:
        optimizer: with the state.
        group_index: of the parameters to look at.
        begun: names of the state that parameters have before their first step.
    """
    made: dict[tuple[int, ...], dict[str, Any]] = {}
    for parameter in optimizer.param_groups[group_index]["params"]:
        shape, state = tuple(parameter.shape), inner_optimizer(optimizer).state.get(parameter)
        if not state:
            continue
        if shape not in made:
            try:
                made[shape] = first_step(optimizer, group_index, parameter)[0]
            except Exception:  # noqa: BLE001  (an optimizer may raise anything for a parameter it does not take)
                made[shape] = {}
        for name, expected in made[shape].items():
            if name not in state and name != SLOW_WEIGHTS and set(state) != begun.get(parameter):
                raise ValueError(f"a parameter of {list(shape)} has no {name!r}")
            found = state.get(name)
            if found is not None and expected is not None and _form(found) != _form(expected):
                raise ValueError(f"{name!r} is {_form(found)}, not {_form(expected)}, for a parameter of {list(shape)}")


def _form(value: Any) -> str:
    if is_scalar(value):
        return "a number"
    return f"a tensor of {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _keep_scalars(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put back scalars that ``Optimizer.load_state_dict`` has rounded."""
    loaded = inner_optimizer(optimizer).state
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, number in zip(group["params"], saved["params"], strict=True):
            for name, value in state["state"].get(number, {}).items():
                now = loaded[parameter].get(name)
                if isinstance(value, Tensor) and value.dim() == 0 and isinstance(now, Tensor):
                    loaded[parameter][name] = value.to(device=now.device, copy=True)


@dataclass(frozen=True)
class ParameterPair:
    """A base parameter, its motivated counterpart, and the parameter groups of both in their optimizers."""

    link: Link
    base: Tensor
    motivated: Tensor
    base_group: int
    motivated_group: int


def parameter_pairs(
    links: Iterable[Link],
    base_parameters: dict[str, Tensor],
    motivated_parameters: dict[str, Tensor],
    base_optimizer: Optimizer,
    motivated_optimizer: Optimizer,
) -> list[ParameterPair]:
    """Return all linked parameters that both optimizers train."""
    base_groups, motivated_groups = _group_indices(base_optimizer), _group_indices(motivated_optimizer)
    pairs: dict[tuple[int, int], ParameterPair] = {}  # a tensor with two names is carried once
    for link in links:
        small, large = base_parameters.get(link.base), motivated_parameters.get(link.motivated)
        if small is not None and large is not None and small in base_groups and large in motivated_groups:
            pair = ParameterPair(link, small, large, base_groups[small], motivated_groups[large])
            pairs.setdefault((id(small), id(large)), pair)
    return list(pairs.values())


def _group_indices(optimizer: Optimizer) -> dict[Tensor, int]:
    return {p: i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}


def unsupported_reasons(
    pairs: Sequence[ParameterPair], base_optimizer: Optimizer, motivated_optimizer: Optimizer
) -> list[str]:
    """Return why the state of these optimizers cannot be carried: the reasons for one parameter; none if it can.

    Probes one parameter of each distinct pair of shapes and groups until one is found that does not work.
    """
    seen = set()
    for pair in pairs:
        shapes = (tuple(pair.base.shape), tuple(pair.motivated.shape))
        kind = (*shapes, pair.link.index, pair.base_group, pair.motivated_group)
        if kind not in seen:
            seen.add(kind)
            if reasons := _unsupported_parameter(pair, base_optimizer, motivated_optimizer):
                return reasons
    return []


def _unsupported_parameter(pair: ParameterPair, base_optimizer: Optimizer, motivated_optimizer: Optimizer) -> list[str]:
    name = type(inner_optimizer(base_optimizer)).__name__
    try:
        small, small_group = first_step(base_optimizer, pair.base_group, pair.base)
        large, large_group = first_step(motivated_optimizer, pair.motivated_group, pair.motivated)
    except Exception as error:  # noqa: BLE001  (an optimizer may raise anything for a parameter it does not take)
        return [f"{name} cannot be probed with a parameter of shape {list(pair.base.shape)}: {error}"]
    reasons = [
        f"{name} keeps {type(value).__name__} {key!r} in its parameter groups"
        for key, value in {**small_group, **large_group}.items()
        if not is_scalar(value)
    ]
    if small.keys() != large.keys():
        return [
            *reasons,
            f"{name} keeps {', '.join(sorted(small)) or 'nothing'} for a parameter of shape {list(pair.base.shape)}, "
            f"but {', '.join(sorted(large)) or 'nothing'} for shape {list(pair.motivated.shape)}",
        ]
    values = (_unsupported_value(key, value, large[key], pair) for key, value in small.items())
    return reasons + [f"{name} {reason}" for reason in values if reason]


def _unsupported_value(key: str, small: Any, large: Any, pair: ParameterPair) -> str | None:
    if is_scalar(small) and is_scalar(large):
        return None
    if not (isinstance(small, Tensor) and isinstance(large, Tensor)):
        return f"keeps {type(small).__name__} {key!r}, which has no place in the motivated model's state"
    if axes_of_state(pair.link, small.shape, pair.base.shape, large.shape, pair.motivated.shape) is None:
        return (
            f"keeps {key!r} of shape {list(small.shape)} for a parameter of shape {list(pair.base.shape)}: "
            "its axes cannot be told apart"
        )
    return None


class StateCarrier:
    """Carry optimizer state along a weights map in one direction.

    The copies are planned once, and again whenever an optimizer has other tensors than were planned: its first steps
    make them, loading replaces them, and some optimizers rebind them at every step. State that the receiving side does
    not have yet is made by the optimizer's own rule for a first step (see `first_step`). Where the base is a slice of a
    larger tensor, the rest of that tensor keeps this initial value.

    Args:
        pairs: the parameters that both models share.
        to_motivated: True to carry from the base to the motivated model, False for the other way.
    """

    def __init__(
        self,
        pairs: Sequence[ParameterPair],
        base_optimizer: Optimizer,
        motivated_optimizer: Optimizer,
        to_motivated: bool,
    ):
        self.pairs, self.to_motivated = list(pairs), to_motivated
        both = base_optimizer, motivated_optimizer
        self._source, self._target = both if to_motivated else both[::-1]
        groups = sorted({(pair.base_group, pair.motivated_group) for pair in self.pairs})
        self._groups = groups if to_motivated else [(large, small) for small, large in groups]
        first_of_groups = {pair.base_group: pair.base for pair in reversed(self.pairs)}
        counters = (first_step(base_optimizer, group, base)[1] for group, base in first_of_groups.items())
        self._counters = list(dict.fromkeys(chain.from_iterable(counters)))
        self._plan: _Plan | None = None
        self._outdated = 0

    def prepare_copies(self) -> Copies:
        """Carry scalars and counters now, create missing state, and return the tensor copies that remain, in groups."""
        plan = self._plan
        if plan is not None and plan.is_current(*self._states()):
            self._outdated = 0
            for source, target, key in plan.scalars:
                target[key] = source[key]
        else:
            plan = self._plan = self._make_plan()
            self._outdated += 1
            if self._outdated > MAX_REPLANS:
                self._plan = None  # this optimizer rebinds its tensors: a plan would keep the old ones alive
        self._carry_counters()
        return plan.copies

    def _states(self) -> tuple[Any, Any]:
        return inner_optimizer(self._source).state, inner_optimizer(self._target).state

    def _make_plan(self) -> _Plan:
        source_state, target_state = self._states()
        copies: list[TensorPair] = []
        scalars: list[tuple[dict, dict, str]] = []
        for pair in self.pairs:
            source_parameter, target_parameter = self._in_order(pair.base, pair.motivated)
            source = source_state.get(source_parameter)
            if not source:
                continue
            target = target_state[target_parameter]
            for key in source:
                if isinstance(source[key], Tensor):
                    copies += self._views(key, source, target, pair)
                else:
                    target[key] = source[key]
                    scalars.append((source, target, key))
        return _Plan(grouped(copies), scalars, source_state, target_state)

    def _in_order(self, base: Any, motivated: Any) -> tuple[Any, Any]:
        """Return source and target; or the other way round, base and motivated of a source and a target."""
        return (base, motivated) if self.to_motivated else (motivated, base)

    def _views(self, key: str, source: dict, target: dict, pair: ParameterPair) -> list[TensorPair]:
        value, present = source[key], target.get(key)
        if value.dim() == 0:
            if not isinstance(present, Tensor):
                present = target[key] = value.clone()
            return [(value, present)]
        if not isinstance(present, Tensor):
            present = target[key] = self._new_state(key, value, pair)
        small, large = self._in_order(value, present)
        axes = None
        if small.shape != pair.base.shape or large.shape != pair.motivated.shape:
            axes = axes_of_state(pair.link, small.shape, pair.base.shape, large.shape, pair.motivated.shape)
            assert axes is not None, f"{key} was probed at the start and is now of shape {list(small.shape)}"
        return [self._in_order(*views) for views in pair.link.views(small, large, axes)]

    def _new_state(self, key: str, value: Tensor, pair: ParameterPair) -> Tensor:
        """Make a state tensor for the receiving side, as its optimizer does for a first step."""
        if pair.link.covers(pair.motivated.shape):
            return torch.empty_like(value)
        _, parameter = self._in_order(pair.base, pair.motivated)
        _, group = self._in_order(pair.base_group, pair.motivated_group)
        initial = first_step(self._target, group, parameter)[0]
        if key not in initial:
            name = type(inner_optimizer(self._target)).__name__
            raise RuntimeError(f"{name} keeps {key!r}, which its first step does not make")
        return initial[key].to(device=value.device, dtype=value.dtype)

    def _carry_counters(self) -> None:
        for source_group, target_group in self._groups:
            source, target = self._source.param_groups[source_group], self._target.param_groups[target_group]
            for key in self._counters:
                if key in source:
                    value = source[key]
                    target[key] = value.clone() if isinstance(value, Tensor) else value


class _Plan:
    """Copies between two optimizers' states, and the tensors that the states had when these were planned.

    Args:
        scalars: ``(source, target, key)`` of values that are no tensors.
        states: those of both optimizers, with all tensors that the copies write to.
    """

    def __init__(self, copies: Copies, scalars: list[tuple[dict, dict, str]], *states: Any):
        self.copies, self.scalars = copies, scalars
        self._entries = _entries(states)
        self._keys = list(chain.from_iterable(self._entries))
        values = _values(self._entries)
        self._tensors = [isinstance(value, Tensor) for value in values]
        self._planned = list(compress(values, self._tensors))

    def is_current(self, *states: Any) -> bool:
        """Return True if both optimizers still have the planned tensors (asked at every switch: microseconds)."""
        entries = _entries(states)
        if len(entries) != len(self._entries) or not all(map(is_, entries, self._entries)):
            return False
        if list(chain.from_iterable(entries)) != self._keys:
            return False
        if any(isinstance(source[key], Tensor) for source, _, key in self.scalars):
            return False  # a tensor by now: assigning it would share it, not copy it
        return all(map(is_, compress(_values(entries), self._tensors), self._planned))


def _entries(states: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the states of all parameters, without other values that some optimizers keep beside them."""
    return [entry for state in states for entry in state.values() if isinstance(entry, dict)]


def _values(entries: list[dict[str, Any]]) -> list[Any]:
    return list(chain.from_iterable(entry.values() for entry in entries))
