"""The map of one model inside another, by their names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from weight_maps import resnet as _resnet  # noqa: F401  (each family registers its maps when it is imported)
from weight_maps.core import WeightMap, shapes_of
from weight_maps.registry import builder_for


def find_map(
    base_name: str,
    motivated_name: str,
    base: nn.Module | Mapping[str, object],
    motivated: nn.Module | Mapping[str, object],
) -> WeightMap:
    """The checked map of one timm model inside another.

    Args:
        base_name, motivated_name: timm model names; they choose the builder.
        base, motivated: the two models, their state dicts, or their shapes. Meta tensors are enough.

    Raises:
        WeightMapError: no map is known for the names, or the motivated model does not contain the base; the error
            lists every reason.
    """
    base_shapes, motivated_shapes = shapes_of(base), shapes_of(motivated)
    weights_map = builder_for(base_name, motivated_name)(base_shapes, motivated_shapes)
    weights_map.check(base_shapes, motivated_shapes, f"{motivated_name} does not contain {base_name}:")
    return weights_map
