"""What a weights map is made from: names and shapes, and the settings that do not show in them.

A convolution's groups or the number of attention heads are attributes of a module, not shapes of its weights. A
`Layout` holds both, so that a builder can be given models on the meta device, and nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from weight_maps.core import Shapes, shapes_of

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_SIMPLE = (int, float, bool, str, type(None))


@dataclass(frozen=True)
class Facts:
    """Class and settings of one module.

    Attributes:
        kind: ``file.Class``, e.g. ``'levit.Attention'``; torch's own classes without a file, e.g. ``'Conv2d'``.
        settings: its public attributes that are numbers, words, flags, or short tuples of these.
    """

    kind: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Layout(Mapping[str, tuple[int, ...]]):
    """Tensor name to shape, as in a state dict, with the facts of the modules that own the tensors.

    Attributes:
        shapes: names and shapes, in the order of the state dict.
        modules: module path to `Facts`; empty where only a state dict was at hand.
        buffers: names of the tensors that are no parameters.
    """

    shapes: Mapping[str, tuple[int, ...]]
    modules: Mapping[str, Facts] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def layout_of(model: nn.Module | Shapes | Mapping[str, object]) -> Layout:
    """The layout of a module; of a state dict or of plain shapes it has no facts."""
    if isinstance(model, Layout):
        return model
    shapes = shapes_of(model)
    if not isinstance(model, nn.Module):
        return Layout(shapes, buffers=frozenset(name for name in shapes if name.endswith(_STATISTICS)))
    facts = {path: _facts_of(module) for path, module in model.named_modules()}
    return Layout(shapes, facts, frozenset(shapes) - {name for name, _ in model.named_parameters()})


def _facts_of(module: nn.Module) -> Facts:
    cls = type(module)
    file = "" if cls.__module__.startswith("torch.") else cls.__module__.rpartition(".")[2] + "."
    settings = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _is_simple(value)
    }
    return Facts(file + cls.__name__, settings)


def _is_simple(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) <= 8 and all(isinstance(item, _SIMPLE) for item in value)
    return isinstance(value, _SIMPLE)
