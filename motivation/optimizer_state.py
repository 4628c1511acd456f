"""What a switch does with the optimizers' states (paper, section 3.5: "specific functions ... copying these buffers").

Nothing here knows an optimizer by name. A probe, one step on scratch tensors of the same shapes, shows what the
optimizer keeps for a parameter: tensors shaped like it, factored ones, scalars, and counters of its parameter group.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from motivation.random_states import forked_random_states
from weight_maps import Link

SLOW_WEIGHTS = "lookahead_slow_buff"
"""The one state that timm's wrapper makes only at its k-th step: Lookahead's slow copy of the parameter."""


class _FirstValues(dict):
    """A parameter's state that remembers the first value assigned to each key, before any step changed it."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.first:
            self.first[key] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]


def inner_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer that owns the state: the wrapped one under Lookahead."""
    return getattr(optimizer, "_base_optimizer", optimizer)


def _copied_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Everything but state, groups and hooks; generators are copied, so that a probe draws nothing from them."""
    attributes: dict[str, Any] = {}
    for name, value in vars(optimizer).items():
        if name in ("state", "param_groups", "_base_optimizer"):
            continue
        if name.endswith("_hooks"):
            attributes[name] = OrderedDict()
        elif isinstance(value, torch.Generator):
            attributes[name] = torch.Generator(device=value.device)
            attributes[name].set_state(value.get_state())
        else:
            attributes[name] = copy.deepcopy(value)
    return attributes


def _twin(optimizer: Optimizer, group_index: int, parameter: Tensor) -> Optimizer:
    """An optimizer of the same kind and options that holds one scratch parameter and no state."""
    inner = inner_optimizer(optimizer)
    twin = object.__new__(type(inner))
    vars(twin).update(_copied_attributes(inner))
    options = {k: copy.deepcopy(v) for k, v in inner.param_groups[group_index].items() if k != "params"}
    if "weight_decay" in options:
        options["weight_decay"] = 0.0  # a buffer must not start with the decay of its own parameter in it
    twin.param_groups = [{**options, "params": [parameter]}]
    twin.state = defaultdict(dict, {parameter: _FirstValues()})
    if inner is optimizer:
        return twin
    wrapper = object.__new__(type(optimizer))
    vars(wrapper).update(_copied_attributes(optimizer), _base_optimizer=twin, param_groups=twin.param_groups)
    wrapper.state = defaultdict(dict)
    return wrapper


def first_step(optimizer: Optimizer, group_index: int, parameter: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one step with a zero gradient makes: the parameter's state as it was before that step, and the group.

    Args:
        optimizer: any; it is not touched.
        group_index: the parameter group whose options count.
        parameter: a tensor of the parameter's shape, dtype and values.

    Returns:
        ``(initial state by key, the group's entries that the step changed or added)``

    Raises:
        Exception: whatever the optimizer raises for a parameter like this one.
    """
    scratch = torch.nn.Parameter(parameter.detach().clone())
    twin = _twin(optimizer, group_index, scratch)
    inner = inner_optimizer(twin)
    before = {k: copy.deepcopy(v) for k, v in inner.param_groups[0].items() if k != "params"}
    with forked_random_states(), torch.enable_grad(), redirect_stdout(io.StringIO()):  # some print at a first step
        ((scratch * 0) ** 2).sum().backward(create_graph=bool(getattr(optimizer, "is_second_order", False)))
        twin.step()
    changed = {k: v for k, v in inner.param_groups[0].items() if k != "params" and (k not in before or before[k] != v)}
    state = inner.state[scratch]
    initial = dict(state.first) if isinstance(state, _FirstValues) else dict(state)
    if twin is not inner:
        initial[SLOW_WEIGHTS] = parameter.detach().clone()
    return initial, changed


def kept_axes(shape: Sequence[int], parameter_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """All readings of a state tensor's shape as the parameter's shape with axes dropped, or kept as size one.

    Each reading names, for every axis of the state tensor, the parameter's axis, or -1 for one that was reduced to 1.

    >>> kept_axes((64, 3), (64, 32, 3))
    [(0, 2)]
    >>> kept_axes((64, 1), (64, 32))
    [(0, -1)]
    >>> kept_axes((8,), (8, 8))
    [(0,), (1,)]
    """
    if tuple(shape) == tuple(parameter_shape):
        return [tuple(range(len(shape)))]
    if len(shape) == len(parameter_shape):
        if all(a in (1, b) for a, b in zip(shape, parameter_shape, strict=True)):
            return [tuple(i if a == b else -1 for i, (a, b) in enumerate(zip(shape, parameter_shape, strict=True)))]
        return []
    return [
        axes
        for axes in itertools.combinations(range(len(parameter_shape)), len(shape))
        if all(parameter_shape[axis] == size for axis, size in zip(axes, shape, strict=True))
    ]


def _axes_of_state(
    link: Link,
    base: Sequence[int],
    base_parameter: Sequence[int],
    motivated: Sequence[int],
    motivated_parameter: Sequence[int],
) -> tuple[int, ...] | None:
    """The parameter axes that a state tensor keeps, agreed by both models; None where the shapes do not tell."""
    readings = [axes for axes in kept_axes(base, base_parameter) if axes in kept_axes(motivated, motivated_parameter)]
    indices = {tuple(((0, 1),) if axis < 0 else link.index[axis] for axis in axes) for axes in readings}
    return readings[0] if len(indices) == 1 else None


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, Tensor) and value.dim() == 0)


@dataclass(frozen=True)
class Tied:
    """A base parameter, its motivated counterpart, and where both stand in their optimizers."""

    link: Link
    base: Tensor
    motivated: Tensor
    base_group: int
    motivated_group: int


def tie(
    links: Iterable[Link],
    base_parameters: dict[str, Tensor],
    motivated_parameters: dict[str, Tensor],
    base_optimizer: Optimizer,
    motivated_optimizer: Optimizer,
) -> list[Tied]:
    """All linked parameters that both optimizers train."""
    base_groups, motivated_groups = _group_indices(base_optimizer), _group_indices(motivated_optimizer)
    tied = []
    for link in links:
        small, large = base_parameters.get(link.base), motivated_parameters.get(link.motivated)
        if small is not None and large is not None and small in base_groups and large in motivated_groups:
            tied.append(Tied(link, small, large, base_groups[small], motivated_groups[large]))
    return tied


def _group_indices(optimizer: Optimizer) -> dict[Tensor, int]:
    return {p: i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}


def uncarriable(tied: Sequence[Tied], base_optimizer: Optimizer, motivated_optimizer: Optimizer) -> list[str]:
    """Why the state of these optimizers cannot follow a switch: the reasons for one parameter, none if it can.

    Probes one parameter of each distinct pair of shapes and groups until one is found that does not work.
    """
    seen = set()
    for pair in tied:
        shapes = (tuple(pair.base.shape), tuple(pair.motivated.shape))
        kind = (*shapes, pair.link.index, pair.base_group, pair.motivated_group)
        if kind not in seen:
            seen.add(kind)
            if reasons := _uncarriable_pair(pair, base_optimizer, motivated_optimizer):
                return reasons
    return []


def _uncarriable_pair(pair: Tied, base_optimizer: Optimizer, motivated_optimizer: Optimizer) -> list[str]:
    name = type(inner_optimizer(base_optimizer)).__name__
    try:
        small, small_group = first_step(base_optimizer, pair.base_group, pair.base)
        large, large_group = first_step(motivated_optimizer, pair.motivated_group, pair.motivated)
    except Exception as error:  # noqa: BLE001  (an optimizer may raise anything for a parameter it does not take)
        return [f"{name} cannot be probed with a parameter of shape {list(pair.base.shape)}: {error}"]
    reasons = [
        f"{name} keeps {type(value).__name__} {key!r} in its parameter groups"
        for key, value in {**small_group, **large_group}.items()
        if not _is_scalar(value)
    ]
    if small.keys() != large.keys():
        return [
            *reasons,
            f"{name} keeps {', '.join(sorted(small)) or 'nothing'} for a parameter of shape {list(pair.base.shape)}, "
            f"but {', '.join(sorted(large)) or 'nothing'} for shape {list(pair.motivated.shape)}",
        ]
    values = (_uncarriable_value(key, value, large[key], pair) for key, value in small.items())
    return reasons + [f"{name} {reason}" for reason in values if reason]


def _uncarriable_value(key: str, small: Any, large: Any, pair: Tied) -> str | None:
    if _is_scalar(small) and _is_scalar(large):
        return None
    if not (isinstance(small, Tensor) and isinstance(large, Tensor)):
        return f"keeps {type(small).__name__} {key!r}, which has no place in the motivated model's state"
    if _axes_of_state(pair.link, small.shape, pair.base.shape, large.shape, pair.motivated.shape) is None:
        return (
            f"keeps {key!r} of shape {list(small.shape)} for a parameter of shape {list(pair.base.shape)}: "
            "its axes cannot be told apart"
        )
    return None


class StateCarrier:
    """Carries optimizer state along a weights map, in both directions.

    State is looked up at every switch, because some optimizers rebind their tensors at every step. A state that the
    receiving side does not have yet is made by the optimizer's own rule for a first step (see `first_step`); only
    where the base is a slice of a larger tensor does that rule show, in the rest of the tensor.
    """

    def __init__(self, tied: Sequence[Tied], base_optimizer: Optimizer, motivated_optimizer: Optimizer):
        self.tied = list(tied)
        self.base_optimizer, self.motivated_optimizer = base_optimizer, motivated_optimizer
        counters: dict[str, None] = {}
        groups = sorted({(pair.base_group, pair.motivated_group) for pair in self.tied})
        for base_group, _ in groups:
            pair = next(pair for pair in self.tied if pair.base_group == base_group)
            counters.update(dict.fromkeys(first_step(base_optimizer, base_group, pair.base)[1]))
        self._counters = list(counters)
        self._groups = groups

    def pairs(self, to_motivated: bool) -> list[tuple[Tensor, Tensor]]:
        """``(source view, target view)`` of all state tensors to copy; scalars and counters are carried at once."""
        base_state = inner_optimizer(self.base_optimizer).state
        motivated_state = inner_optimizer(self.motivated_optimizer).state
        copies: list[tuple[Tensor, Tensor]] = []
        for pair in self.tied:
            small, large = base_state.get(pair.base), motivated_state.get(pair.motivated)
            source, target = (small, large) if to_motivated else (large, small)
            if not source:
                continue
            if not target:
                target = (motivated_state if to_motivated else base_state)[
                    pair.motivated if to_motivated else pair.base
                ]
            for key in source:
                self._carry(key, source, target, pair, to_motivated, copies)
        self._carry_counters(to_motivated)
        return copies

    def _carry(
        self, key: str, source: dict, target: dict, pair: Tied, to_motivated: bool, copies: list[tuple[Tensor, Tensor]]
    ) -> None:
        value = source[key]
        if not isinstance(value, Tensor):
            target[key] = value
            return
        present = target.get(key)
        if value.dim() == 0:
            if isinstance(present, Tensor):
                copies.append((value, present))
            else:
                target[key] = value.clone()
            return
        if not isinstance(present, Tensor):
            present = target[key] = self._made(key, value, pair, to_motivated)
        small, large = (value, present) if to_motivated else (present, value)
        axes = _axes_of_state(pair.link, small.shape, pair.base.shape, large.shape, pair.motivated.shape)
        assert axes is not None, f"{key} was probed at the start and is now of shape {list(small.shape)}"
        views = pair.link.views(small, large, axes)
        copies.extend(views if to_motivated else [(b, a) for a, b in views])

    def _made(self, key: str, value: Tensor, pair: Tied, to_motivated: bool) -> Tensor:
        """A new state tensor for the receiving side, as its optimizer makes it for a first step."""
        whole = pair.link.covers(pair.motivated.shape)
        if whole:
            return torch.empty_like(value)
        if to_motivated:
            optimizer, group, parameter = self.motivated_optimizer, pair.motivated_group, pair.motivated
        else:
            optimizer, group, parameter = self.base_optimizer, pair.base_group, pair.base
        initial = first_step(optimizer, group, parameter)[0]
        if key not in initial:
            raise RuntimeError(
                f"{type(inner_optimizer(optimizer)).__name__} keeps {key!r}, which its first step does not make"
            )
        return initial[key].to(device=value.device, dtype=value.dtype)

    def _carry_counters(self, to_motivated: bool) -> None:
        base, motivated = self.base_optimizer.param_groups, self.motivated_optimizer.param_groups
        for base_group, motivated_group in self._groups:
            source, target = base[base_group], motivated[motivated_group]
            if not to_motivated:
                source, target = target, source
            for key in self._counters:
                if key in source:
                    value = source[key]
                    target[key] = value.clone() if isinstance(value, Tensor) else value
