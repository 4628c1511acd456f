"""Test by computing that the motivated model contains the base's computation.

A map places weights, but do they still mean the same there? The motivated model gets the base's weights and zeros
everywhere else, blocks that only it has are bypassed, and a layer that normalises over channels does so over the base's
channels. Then every layer must return the base's values on the base's channels, and both models the same logits.
Shifted channels (a concatenation), torn heads or groups, a q that lands in k, another stride: each shows as the first
layer that differs.
"""

from __future__ import annotations

import copy
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weight_maps.core import Axis, Link, WeightMap
from weight_maps.depth import extra_blocks

_NORMALISES = re.compile(r"(Evo|GlobalResponse|Group|Instance|Layer|RMS|Rms|Simple)Norm")

Calls = list[tuple[str, Tensor]]
"""Layers in the order in which they were computed, by their paths in the base, each with its output."""


@dataclass(frozen=True)
class Containment:
    """Result of `compare`.

    Attributes:
        first_difference: the first layer of the base whose output differs, in the order of the computation, and how;
            None if there is none.
        layers: number of layers that were compared.
    """

    first_difference: str | None
    layers: int

    @property
    def holds(self) -> bool:
        """Return True if the motivated model contains the base's computation."""
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
        tolerance: largest difference that still counts as equal, relative to the largest value.
    """
    small, large = (copy.deepcopy(model).double().eval() for model in (base, motivated))
    images = images.double()
    _make_generic(small)
    for parameter in large.parameters():
        parameter.zero_()
    weights_map.expand(small, large)
    counterparts = _counterparts(weights_map)
    links = _weights(weights_map)
    dims = {path: dim for path in links if (dim := _channel_dim(small.get_submodule(path))) is not None}
    with _recorded(small, {path: path for path in dims}, lambda path, output: output.clone()) as calls:
        output = small(images)

    _bypass_extra_blocks(weights_map, large)
    _carry_constants(counterparts, small, large)
    for path in dims:
        _restrict_norm(small.get_submodule(path), large.get_submodule(counterparts[path]), links[path])
    _restrict_bare_norms(counterparts, small, large)

    def channels_of_base(path: str, found: Tensor) -> Tensor:
        link = links[path]
        axis = _widest(link) if _is_norm(small.get_submodule(path)) else 0
        return found.index_select(dims[path], _positions(link.index[axis]).to(found.device))

    failure, found = None, None
    with _recorded(large, {path: counterparts[path] for path in dims}, channels_of_base) as calls_there:
        try:
            found = large(images)
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
            failure = f"the computation fails: {error}"
    first = next(_layer_differences(calls, calls_there, tolerance), None) or failure
    if first is None and (fewer := Counter(path for path, _ in calls) - Counter(path for path, _ in calls_there)):
        first = f"{next(iter(fewer))}: runs less often than in the base"
    if first is None and not weights_map.unmapped and not (difference := _relative(output, found)) <= tolerance:
        first = f"the output differs by {difference:.1e}, though all layers agree"
    return Containment(first, len(calls_there))


def _counterparts(weights_map: WeightMap) -> dict[str, str]:
    """Return the path of each base module that has mapped tensors in it, with that of its counterpart."""
    found = {}
    for link in weights_map.links:
        path, target = link.base, link.motivated
        while path:
            path, target = path.rpartition(".")[0], target.rpartition(".")[0]
            found[path] = target
    return found


def _weights(weights_map: WeightMap) -> dict[str, Link]:
    """Return the link of each layer's tensor ``weight``, by the layer's path in the base."""
    split = ((link.base.rpartition("."), link) for link in weights_map.links)
    return {path: link for (path, _, name), link in split if name == "weight"}


@contextmanager
def _recorded(model: nn.Module, paths: Mapping[str, str], keep: Callable[[str, Tensor], Tensor]) -> Iterator[Calls]:
    """Record the outputs of some layers inside the context.

    Args:
        paths: path of the layer in the base, and in this model.
        keep: takes the base's path and the output, and returns a copy of what is to be recorded of it.
    """
    calls: Calls = []
    handles = []
    for path, here in paths.items():

        def hook(module: nn.Module, inputs: Any, output: Any, path: str = path) -> None:
            if isinstance(output, Tensor):
                calls.append((path, keep(path, output)))

        handles.append(model.get_submodule(here).register_forward_hook(hook))
    yield calls
    for handle in handles:
        handle.remove()


def _layer_differences(expected: Calls, found: Calls, tolerance: float) -> Iterator[str]:
    """Yield the layers of the motivated model that return something else than those of the base."""
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for path, output in expected:
        outputs[path].append(output)
    for path, part in found:
        if not outputs[path]:
            yield f"{path}: runs more often than in the base"
            continue
        output = outputs[path].pop(0)
        part = _leading_part(part, output)
        if part.shape != output.shape:
            yield f"{path}: output {list(output.shape)} became {list(part.shape)}"
        elif not (difference := _relative(output, part)) <= tolerance:
            yield f"{path}: output differs by {difference:.1e}"


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


def _carry_constants(counterparts: Mapping[str, str], base: nn.Module, motivated: nn.Module) -> None:
    """Copy the base's float constants: the variance that an NFNet block divides by, and the epsilon of a norm."""
    for path, target in counterparts.items():
        for name in ("beta", "eps"):
            if isinstance(value := vars(base.get_submodule(path)).get(name), float):
                setattr(motivated.get_submodule(target), name, value)


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
    for path, neighbour in extra_blocks((link.motivated for link in weights_map.links), model.state_dict()).items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, _Bypass(model.get_submodule(neighbour)))


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


def _restrict_norm(small: Any, large: Any, link: Link) -> None:
    """Make a layer that normalises over channels see the base's channels alone."""
    if "StdConv2d" in type(small).__name__:
        if small.groups > 1:
            return
        inside, outside = _positions(link.index[1]), _positions(link.index[0])
    elif _is_norm(small):
        inside = outside = _positions(link.index[_widest(link)])
    else:
        return
    _compute_with(large, small, inside, outside, getattr(large, "out_channels", None) or large.weight.numel())


def _restrict_bare_norms(counterparts: Mapping[str, str], base: nn.Module, motivated: nn.Module) -> None:
    """Do the same for norms without weights, which have no link: they see as many leading channels as in the base."""
    for path, small in base.named_modules():
        parent, _, name = path.rpartition(".")
        size = getattr(small, "normalized_shape", None)
        if not _is_norm(small) or not size or next(small.parameters(), None) is not None or parent not in counterparts:
            continue
        module: Any = motivated.get_submodule(f"{counterparts[parent]}.{name}".lstrip("."))
        if module.normalized_shape != size:
            leading = torch.arange(size[-1])
            _compute_with(module, small, leading, leading, module.normalized_shape[-1])


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
    return _NORMALISES.search(type(module).__name__) is not None


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
