"""Test by computing that the motivated model contains the base's computation.

A map places weights, but do they still mean the same there? The motivated model gets the base's weights and zeros
everywhere else, blocks that only it has are bypassed, and a layer that normalises over channels does so over the base's
channels. Then every layer must return the base's values on the base's channels, and both models the same logits.
Shifted channels (a concatenation), torn heads or groups, a q that lands in k, another stride: each shows as the first
layer that differs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weight_maps.core import Axis, Link, WeightMap
from weight_maps.depth import Blocks, name_of, words_of

_NORMALISES = (
    "LayerNorm",
    "RmsNorm",
    "RMSNorm",
    "SimpleNorm",
    "GroupNorm",
    "GlobalResponseNorm",
    "InstanceNorm",
    "EvoNorm",
)
_STANDARDISES = ("StdConv2d",)

Owners = dict[str, tuple[str, Link]]
"""Module path in the base to that of its counterpart, with the link of the module's weight."""


@dataclass(frozen=True)
class Containment:
    """Result of `compare`.

    Attributes:
        error: largest difference of the output, relative to the largest value; 0 where the map leaves tensors of the
            base unmapped, so that the output may differ.
        first_difference: the first layer of the base whose output differs, in the order of the computation, and how;
            None if there is none.
        layers: number of layers that were compared.
    """

    error: float
    first_difference: str | None
    layers: int

    @property
    def holds(self) -> bool:
        """Tell whether the motivated model contains the base's computation."""
        return self.first_difference is None


@torch.no_grad()
def compare(
    weights_map: WeightMap, base: nn.Module, motivated: nn.Module, images: Tensor, tolerance: float = 1e-4
) -> Containment:
    """Compare the computations of two models, as described at the top of this module; neither model is changed.

    Args:
        weights_map: a checked map of ``base`` in ``motivated``.
        base, motivated: the models, on one device.
        images: ``[B, C, H, W]``, on that device.
        tolerance: largest relative difference that still counts as equal.
    """
    small, large = (copy.deepcopy(model).double().eval() for model in (base, motivated))
    _make_generic(small)
    for parameter in large.parameters():
        parameter.zero_()
    weights_map.expand(small, large)
    owners = _paired_owners(weights_map, small, large)
    recorder = _Recorder(tolerance)
    with recorder.recording(small, owners):
        expected = small(images.double())
    _bypass_extra_blocks(weights_map, large)
    _carry_constants(weights_map, small, large)
    for path, (target, link) in owners.items():
        _restrict_norm(small.get_submodule(path), large, target, link)
    _restrict_bare_norms(weights_map, small, large)
    try:
        with recorder.checking(large, owners):
            found = large(images.double())
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
        return Containment(float("inf"), recorder.first or f"the computation fails: {error}", recorder.compared)
    difference = 0.0 if weights_map.unmapped else _relative(expected, found)
    first = recorder.first or recorder.missing_calls()
    if first is None and not difference <= tolerance:
        first = f"the output differs by {difference:.1e}, though all layers agree"
    return Containment(difference, first, recorder.compared)


def _make_generic(model: nn.Module) -> None:
    """Replace weights of zeros and ones, so that nothing is equal by accident."""
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)

    for parameter in model.parameters():
        if parameter.numel() == max(parameter.shape, default=1):
            parameter.add_(0.1 * noise(parameter))
        elif not parameter.any():
            parameter.add_(0.02 * noise(parameter))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None:
                module.running_mean.add_(0.1 * noise(module.running_mean))
            if module.running_var is not None:
                module.running_var.mul_(1 + 0.2 * noise(module.running_var).abs())


def _carry_constants(weights_map: WeightMap, base: nn.Module, motivated: nn.Module) -> None:
    """Copy the base's float constants: the variance that an NFNet block divides by, and the epsilon of a norm."""
    for link in weights_map.links:
        path, target = link.base, link.motivated
        while "." in path:
            path, target = path.rpartition(".")[0], target.rpartition(".")[0]
            there = motivated.get_submodule(target)
            for name in ("beta", "eps"):
                if isinstance(value := vars(base.get_submodule(path)).get(name), float):
                    setattr(there, name, value)


class _Bypass(nn.Module):
    """A block that returns its input, in the form in which its neighbour returns an output."""

    def __init__(self, neighbour: nn.Module):
        super().__init__()
        self._pair = False
        neighbour.register_forward_hook(self._note_form)

    def _note_form(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._pair = isinstance(output, tuple)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return (x, args[0] if args else None) if self._pair else x


def _bypass_extra_blocks(weights_map: WeightMap, model: nn.Module) -> None:
    mapped = {link.motivated for link in weights_map.links}
    blocks = Blocks(dict.fromkeys(model.state_dict(), ()))
    used: dict[str, set[int]] = defaultdict(set)
    for name in mapped:
        words = words_of(name)
        for position, word in enumerate(words):
            if word.isdigit() and position:
                used[".".join(words[:position])].add(int(word))
    for container, kept in used.items():
        for index in set(blocks.indices(container)) - kept if blocks.is_stack(container) else ():
            path, _, word = name_of([container, str(index)]).rpartition(".")
            neighbour = model.get_submodule(name_of([container, str(min(kept))]))
            setattr(model.get_submodule(path), word, _Bypass(neighbour))


def _paired_owners(weights_map: WeightMap, base: nn.Module, motivated: nn.Module) -> Owners:
    """Return the counterparts of all modules that own a mapped weight."""
    owners = {}
    for link in weights_map.links:
        path, _, name = link.base.rpartition(".")
        target = link.motivated.rpartition(".")[0]
        if name == "weight" and _channel_dim(base.get_submodule(path)) is not None:
            owners[path] = (target, link)
    return owners


def _channel_dim(module: nn.Module) -> int | None:
    """Return the axis of channels in a module's output; None where it is not known."""
    if isinstance(module, nn.Linear):
        return -1
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return None
    if isinstance(module, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
        return 1
    if _is_norm(module):
        return getattr(module, "channel_dim", 1 if "2d" in type(module).__name__ else -1)
    return None


def _positions(axis: Axis) -> Tensor:
    return torch.cat([torch.arange(start, stop) for start, stop in axis])


def _restrict_norm(small: Any, large: nn.Module, target: str, link: Link) -> None:
    """Make a layer that normalises over channels see the base's channels alone."""
    if _is_standardised(small):
        if small.groups > 1:
            return
        inside, outside = _positions(link.index[1]), _positions(link.index[0])
    elif _is_norm(small):
        inside = outside = _positions(link.index[_widest(link)])
    else:
        return
    module: Any = large.get_submodule(target)
    width = getattr(module, "out_channels", None) or module.weight.numel()
    _compute_with(module, small, inside, outside, width)


def _restrict_bare_norms(weights_map: WeightMap, base: nn.Module, motivated: nn.Module) -> None:
    """Do the same for norms without weights, which have no link: they see as many leading channels as in the base."""
    places = {}
    for link in weights_map.links:
        path, target = link.base, link.motivated
        while path:
            path, target = path.rpartition(".")[0], target.rpartition(".")[0]
            places[path] = target
    for path, small in base.named_modules():
        parent, _, name = path.rpartition(".")
        size = getattr(small, "normalized_shape", None)
        if not _is_norm(small) or not size or next(small.parameters(), None) is not None or parent not in places:
            continue
        module: Any = motivated.get_submodule(f"{places[parent]}.{name}".lstrip("."))
        if module.normalized_shape != size:
            _compute_with(module, small, torch.arange(size[-1]), torch.arange(size[-1]), module.normalized_shape[-1])


def _compute_with(module: Any, small: Any, inside: Tensor, outside: Tensor, width: int) -> None:
    """Make a module compute as ``small`` does: of its channels ``inside``, into ``outside`` of ``width`` channels."""
    dim = _channel_dim(small)
    assert dim is not None

    def forward(x: Tensor, *args: Any) -> Tensor:
        part = small(x.index_select(dim, inside.to(x.device)), *args)
        shape = list(part.shape)
        shape[dim] = width
        return part.new_zeros(shape).index_copy_(dim, outside.to(x.device), part)

    module.forward = forward


def _is_norm(module: nn.Module) -> bool:
    return any(word in type(module).__name__ for word in _NORMALISES)


def _is_standardised(module: nn.Module) -> bool:
    return any(word in type(module).__name__ for word in _STANDARDISES)


def _widest(link: Link) -> int:
    """Return the axis of channels in the weight of a norm."""
    return max(range(len(link.index)), key=lambda axis: link.shape[axis])


def _leading_part(found: Tensor, expected: Tensor) -> Tensor:
    """Cut a larger output to the expected shape, where other axes are channels too, or there is no head."""
    if found.dim() == expected.dim():
        for dim, size in enumerate(expected.shape):
            found = found.narrow(dim, 0, min(size, found.shape[dim]))
    return found


def _relative(expected: Any, found: Any) -> float:
    """Return the largest difference of two outputs (tensors or nests of them), relative to the largest value."""
    if isinstance(expected, Tensor):
        found = _leading_part(found, expected)
        if expected.shape != found.shape:
            return float("inf")
        scale = expected.abs().max().item() or 1.0
        return (expected - found).abs().max().item() / scale
    if isinstance(expected, Mapping):
        return max((_relative(value, found[name]) for name, value in expected.items()), default=0.0)
    if isinstance(expected, (list, tuple)):
        return max((_relative(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)
    return 0.0


class _Recorder:
    """Records the outputs of the base's layers and compares those of the motivated model with them."""

    def __init__(self, tolerance: float):
        self._tolerance = tolerance
        self._outputs: dict[str, list[Tensor]] = defaultdict(list)
        self._calls: dict[str, int] = defaultdict(int)
        self.first: str | None = None
        self.compared = 0

    def recording(self, base: nn.Module, owners: Owners) -> ExitStack:
        """Return a context in which the outputs of the base's layers are recorded."""
        return _with_hooks({path: base.get_submodule(path) for path in owners}, owners, self._record)

    def checking(self, motivated: nn.Module, owners: Owners) -> ExitStack:
        """Return a context in which the outputs of their counterparts are compared."""
        modules = {path: motivated.get_submodule(target) for path, (target, _) in owners.items()}
        return _with_hooks(modules, owners, self._check)

    def missing_calls(self) -> str | None:
        """Return the first layer that ran less often than in the base, if there is one."""
        fewer = (path for path, outputs in self._outputs.items() if self._calls[path] < len(outputs))
        return next((f"{path}: runs less often than in the base" for path in fewer), None)

    def _record(self, path: str, link: Link, module: nn.Module, output: Tensor) -> None:
        self._outputs[path].append(output.clone())

    def _check(self, path: str, link: Link, module: nn.Module, output: Tensor) -> None:
        call = self._calls[path]
        self._calls[path] += 1
        self.compared += 1
        if self.first is not None:
            return
        if call >= len(self._outputs[path]):
            self.first = f"{path}: runs more often than in the base"
            return
        expected = self._outputs[path][call]
        dim = _channel_dim(module)
        assert dim is not None
        axis = _widest(link) if _is_norm(module) else 0
        live = _positions(link.index[axis]).to(output.device)
        part = _leading_part(output.index_select(dim, live), expected)
        if part.shape != expected.shape:
            self.first = f"{path}: output {list(expected.shape)} became {list(part.shape)}"
        elif not (difference := _relative(expected, part)) <= self._tolerance:
            self.first = f"{path}: output differs by {difference:.1e}"


def _with_hooks(modules: dict[str, nn.Module], owners: Owners, call: Callable[..., None]) -> ExitStack:
    stack = ExitStack()
    for path, module in modules.items():

        def hook(module: nn.Module, inputs: Any, output: Any, path: str = path) -> None:
            if isinstance(output, Tensor):
                call(path, owners[path][1], module, output)

        stack.callback(module.register_forward_hook(hook).remove)
    return stack
