"""The layout of a model: its tensors' names and shapes, and its modules' settings, which do not show in these.

The groups of a convolution or the number of attention heads are attributes of a module, not shapes of its weights. A
`Layout` holds both and keeps nothing of the model, which may be on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from weight_maps.core import Shapes, shapes_of

EQUAL = (
    "kernel_size", "stride", "padding", "dilation", "padding_mode", "ceil_mode", "patch_size", "window_size",
    "window_area", "pretrained_window_size", "shift_size", "partition_size", "block_size", "halo_size",
    "sr_ratio", "att_stride", "q_stride", "head_first", "use_global", "num_keys", "num_kv_groups",
    "num_key_value_groups", "num_prefix_tokens", "state_dim", "num_scales", "num_branches", "radix",
    "focal_level", "focal_window", "has_skip", "shortcut", "use_shortcut", "global_pool", "pool_type",
    "pool_include_prefix", "lambda_init", "merge_size", "rotate_half", "temperature", "in_pixels", "linear_bands",
    "max_res", "max_period", "min_period", "grid_offset", "grid_indexing", "pos_embed_align_corners",
)  # fmt: skip
"""Settings of modules that must be equal in both models, because no slice can bridge a difference."""

_INERT = ("Dropout", "DropPath", "DropBlock", "PatchDropout", "Identity")
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
    """A mapping of tensor names to shapes, with the facts of the model's modules.

    Attributes:
        shapes: names and shapes, in the order of the state dict.
        modules: module path to `Facts`; empty where only a state dict was given.
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
    """Return the layout of a module; that of a state dict or of plain shapes has no facts."""
    if isinstance(model, Layout):
        return model
    shapes = shapes_of(model)
    if not isinstance(model, nn.Module):
        return Layout(shapes, buffers=frozenset(name for name in shapes if name.endswith(_STATISTICS)))
    facts = {path: _facts_of(module) for path, module in model.named_modules()}
    return Layout(
        shapes, facts, frozenset(shapes) - {name for name, _ in model.named_parameters(remove_duplicate=False)}
    )


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


def role_of(kind: str) -> str:
    """Return the kind of a module; all that do nothing in evaluation are of the kind ``'Identity'``."""
    return "Identity" if kind.rpartition(".")[2].startswith(_INERT) else kind


def same_setting(one: Any, other: Any) -> bool:
    """Compare two settings; 3 and (3, 3) are the same kernel."""
    return _plain(one) == _plain(other)


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value


def traits_of(facts: Facts) -> tuple[Any, ...]:
    """Return what a module has in common with its counterpart in a wider model: role and settings of `EQUAL`."""
    settings = facts.settings
    return role_of(facts.kind), tuple((name, _plain(settings[name])) for name in EQUAL if name in settings)
