"""Which weights map belongs to which model names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from weight_maps.core import Shapes, WeightMap, WeightMapError, shapes_of

MapBuilder = Callable[[Shapes, Shapes], WeightMap]

_builders: dict[str, MapBuilder] = {}


def register_map(*patterns: str) -> Callable[[MapBuilder], MapBuilder]:
    """Decorator: this function builds the map for timm model names that match one of the shell patterns.

    The function gets names and shapes of the base and of the motivated model and returns a `WeightMap`, which is
    checked for it. Where several patterns match, the longest wins.

    Raises:
        ValueError: a pattern is registered already.
    """

    def register(builder: MapBuilder) -> MapBuilder:
        for pattern in patterns:
            if pattern in _builders:
                raise ValueError(f"a weights map for {pattern!r} is registered already")
            _builders[pattern] = builder
        return builder

    return register


def known_patterns() -> list[str]:
    """All registered name patterns."""
    return sorted(_builders)


def _builder_for(base_name: str, motivated_name: str) -> MapBuilder:
    def matches(name: str) -> set[str]:
        # timm names carry the pretrained tag behind a dot: resnet50.a1_in1k
        return {pattern for pattern in _builders if fnmatchcase(name.split(".")[0], pattern)}

    shared = {_builders[p]: p for p in matches(motivated_name)}
    fitting = [p for p in matches(base_name) if _builders[p] in shared]
    if not fitting:
        raise WeightMapError(
            f"no weights map is known for {base_name} inside {motivated_name}",
            ["maps are registered for " + ", ".join(known_patterns())],
        )
    return _builders[max(fitting, key=len)]


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
    import weight_maps.families  # noqa: F401  (registers the maps)

    base_shapes, motivated_shapes = shapes_of(base), shapes_of(motivated)
    weights_map = _builder_for(base_name, motivated_name)(base_shapes, motivated_shapes)
    weights_map.check(base_shapes, motivated_shapes, f"{motivated_name} does not contain {base_name}:")
    return weights_map
