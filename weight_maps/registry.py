"""Which weights map belongs to which model names, and which maps there are by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from weight_maps.core import WeightMap, WeightMapError
from weight_maps.depth import PLACEMENTS
from weight_maps.layout import Layout

MapBuilder = Callable[..., WeightMap]
"""``(base, motivated) -> WeightMap`` of two `Layout`; a third parameter ``placement`` is given where it has one."""


@dataclass(frozen=True)
class RegisteredMap:
    """A builder with its name and the model names it is for."""

    name: str
    patterns: tuple[str, ...]
    builder: MapBuilder

    @property
    def places_blocks(self) -> bool:
        """Whether it can align blocks in more than one way."""
        return "placement" in inspect.signature(self.builder).parameters

    @property
    def where(self) -> str:
        """File and line of the builder."""
        code: Any = getattr(self.builder, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.builder)

    def build(self, base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
        """The builder's map, not yet checked.

        Raises:
            WeightMapError: it cannot do the placement, fails, or returns something else.
        """
        options = {}
        if placement not in PLACEMENTS:
            raise WeightMapError("unknown placement", [f"{placement!r} is none of {', '.join(PLACEMENTS)}"])
        if self.places_blocks:
            options["placement"] = placement
        elif placement != "paper":
            raise WeightMapError(
                f"the weights map {self.name!r} has no placement {placement!r}",
                ["its builder has no parameter 'placement'; leave the placement out"],
            )
        try:
            built = self.builder(base, motivated, **options)
        except Exception as error:  # a user's function may raise anything; it must end in one line, with the place
            raise WeightMapError(
                f"the weights map {self.name!r} ({self.where}) failed", [f"{type(error).__name__}: {error}"]
            ) from error
        if not isinstance(built, WeightMap):
            raise WeightMapError(
                f"the weights map {self.name!r} ({self.where}) returned no WeightMap", [f"it returned {built!r:.80}"]
            )
        return built


_maps: dict[str, RegisteredMap] = {}


def register_map(*patterns: str, name: str | None = None) -> Callable[[MapBuilder], MapBuilder]:
    """Decorator: this function builds the map for timm model names that match one of the shell patterns.

    The function gets the `Layout` of the base and of the motivated model, which are mappings of tensor names to shapes,
    and returns a `WeightMap`, which is checked for it. Where several patterns match, the longest wins. Without patterns
    it is found by its name alone.

    Args:
        patterns: for instance ``'resnet*'``.
        name: what the map is called; default the function's name without ``_map``.

    Raises:
        ValueError: the name or a pattern is registered already.
    """

    def register(builder: MapBuilder) -> MapBuilder:
        called = name or builder.__name__.removesuffix("_map")
        if called in _maps:
            raise ValueError(f"a weights map named {called!r} is registered already ({_maps[called].where})")
        for pattern in patterns:
            for other in _maps.values():
                if pattern in other.patterns:
                    raise ValueError(f"a weights map for {pattern!r} is registered already ({other.where})")
        _maps[called] = RegisteredMap(called, patterns, builder)
        return builder

    return register


def registered_maps() -> list[RegisteredMap]:
    """All maps, by name."""
    return sorted(_maps.values(), key=lambda entry: entry.name)


def map_named(name: str) -> RegisteredMap:
    """The map of this name.

    Raises:
        WeightMapError: there is none; the error names those there are.
    """
    if name not in _maps:
        near = difflib.get_close_matches(name, _maps, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WeightMapError(f"no weights map is called {name!r}", [f"{hint}there are {', '.join(sorted(_maps))}"])
    return _maps[name]


def map_for(base_name: str, motivated_name: str) -> RegisteredMap:
    """The map whose patterns match both names; of several the one with the longest pattern."""

    def longest(entry: RegisteredMap) -> int:
        return min(
            # timm names carry the pretrained tag behind a dot: resnet50.a1_in1k
            max((len(p) for p in entry.patterns if fnmatchcase(name.split(".")[0], p)), default=-1)
            for name in (base_name, motivated_name)
        )

    best = max(registered_maps(), key=longest)
    if longest(best) < 0:
        raise WeightMapError(f"no weights map is known for {base_name} inside {motivated_name}", ["register one"])
    return best
