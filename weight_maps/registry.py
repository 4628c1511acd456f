"""Which weights map belongs to which model names."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from weight_maps.core import Shapes, WeightMap, WeightMapError

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


def builder_for(base_name: str, motivated_name: str) -> MapBuilder:
    """The builder whose patterns match both names.

    Raises:
        WeightMapError: there is none.
    """

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
