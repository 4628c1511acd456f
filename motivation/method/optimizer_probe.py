"""Find out which state an optimizer keeps for a parameter, by one step on scratch tensors.

Apart from timm's Lookahead wrapper, no optimizer is known by name. A probe shows all that there is: tensors shaped like
the parameter, factored tensors, scalars, counters of the parameter group; and the value of each before a first step.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from motivation.method.random_states import fork_rng
from weight_maps import Link

SLOW_WEIGHTS = "lookahead_slow_buff"
"""Lookahead's slow copy of the parameter: the one state that timm's wrapper makes only at its k-th step."""


class _FirstValues(UserDict):
    """State of a parameter that remembers the first value assigned to each key, before a step changed it."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.first:
            self.first[key] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        super().__setitem__(key, value)


def inner_optimizer(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that owns the state: under Lookahead the wrapped one."""
    return getattr(optimizer, "_base_optimizer", optimizer)


def _copied_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Copy all attributes but state, groups and hooks; generators too, so that a probe draws nothing from the original.

    Methods that were replaced on the object are left out (torch's schedulers wrap ``step``): a copy of such a method
    would step the original.
    """
    attributes: dict[str, Any] = {}
    for name, value in vars(optimizer).items():
        if name in ("state", "param_groups", "_base_optimizer") or callable(getattr(type(optimizer), name, None)):
            continue
        if name.endswith("_hooks"):
            attributes[name] = OrderedDict()
        elif isinstance(value, torch.Generator):
            attributes[name] = torch.Generator(device=value.device)
            attributes[name].set_state(value.get_state())
        else:
            attributes[name] = copy.deepcopy(value)
    return attributes


def _scratch_optimizer(optimizer: Optimizer, group_index: int, parameter: Tensor) -> Optimizer:
    """Make an optimizer of the same class and options that holds one scratch parameter, with the state of a new one.

    A deep copy would not do: it copies the state of all parameters, and hooks or schedulers that wrap the step would
    step the original.
    """
    inner = inner_optimizer(optimizer)
    options = {k: copy.deepcopy(v) for k, v in inner.param_groups[group_index].items() if k != "params"}
    if "weight_decay" in options:
        options["weight_decay"] = 0.0  # a buffer must not start with the decay of its own parameter in it
    state = _FirstValues()
    state.update(_initial_state(type(inner), {**options, "params": [parameter]}))
    twin = object.__new__(type(inner))
    vars(twin).update(_copied_attributes(inner))
    twin.param_groups = [{**options, "params": [parameter]}]
    twin.state = defaultdict(dict, {parameter: state})
    if inner is optimizer:
        return twin
    wrapper = object.__new__(type(optimizer))
    vars(wrapper).update(_copied_attributes(optimizer), _base_optimizer=twin, param_groups=twin.param_groups)
    wrapper.state = defaultdict(dict)
    return wrapper


def _initial_state(kind: Any, group: dict[str, Any]) -> dict[str, Any]:
    """Return the state that the constructor makes; most optimizers make none before their first step."""
    try:
        (state,) = kind([group]).state.values()
    except Exception:  # noqa: BLE001  (no state, or a constructor that needs more than a group)
        return {}
    return state


def first_step(optimizer: Optimizer, group_index: int, parameter: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do one step with a zero gradient on a copy of a parameter, and return the state that it began with.

    Args:
        optimizer: any optimizer; it is not changed.
        group_index: the parameter group whose options are used.
        parameter: a tensor with the parameter's shape, dtype and values.

    Returns:
        ``(initial state by key, entries of the parameter group that the step changed or added)``

    Raises:
        Exception: any error of the optimizer for a parameter like this one.
    """
    scratch = torch.nn.Parameter(parameter.detach().clone())
    eagerly = torch.compiler.set_stance(
        "force_eager"
    )  # Kron compiles parts of its step, which would take half a minute
    with fork_rng(), torch.enable_grad(), eagerly, redirect_stdout(io.StringIO()):  # some print at a first step
        twin = _scratch_optimizer(optimizer, group_index, scratch)
        inner = inner_optimizer(twin)
        before = {k: copy.deepcopy(v) for k, v in inner.param_groups[0].items() if k != "params"}
        ((scratch * 0) ** 2).sum().backward(create_graph=bool(getattr(optimizer, "is_second_order", False)))
        twin.step()
    changed = {k: v for k, v in inner.param_groups[0].items() if k != "params" and (k not in before or before[k] != v)}
    state = inner.state[scratch]
    initial = dict(state.first) if isinstance(state, _FirstValues) else dict(state)
    if twin is not inner:
        initial[SLOW_WEIGHTS] = parameter.detach().clone()
    return initial, changed


def kept_axes(shape: Sequence[int], parameter_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all ways to read a state tensor's shape as the parameter's shape with axes dropped, or kept as size one.

    Each of them names, for every axis of the state tensor, the parameter's axis, or -1 for one that was reduced to 1.

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


def axes_of_state(
    link: Link,
    base: Sequence[int],
    base_parameter: Sequence[int],
    motivated: Sequence[int],
    motivated_parameter: Sequence[int],
) -> tuple[int, ...] | None:
    """Return the parameter axes that a state tensor keeps in both models; None if the shapes leave it open."""
    readings = [axes for axes in kept_axes(base, base_parameter) if axes in kept_axes(motivated, motivated_parameter)]
    indices = {tuple(((0, 1),) if axis < 0 else link.index[axis] for axis in axes) for axes in readings}
    return readings[0] if len(indices) == 1 else None


def is_scalar(value: Any) -> bool:
    """Return True if a switch carries the value whole."""
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, Tensor) and value.dim() == 0)
