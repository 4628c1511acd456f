"""The registry of weights maps: by their own names, and by the model names that they are for."""

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
"""Function of two `Layout`, base and motivated, that returns a `WeightMap`; it may have a parameter ``placement``."""


@dataclass(frozen=True)
class RegisteredMap:
    """A builder with its name and the patterns of the model names that it is for."""

    name: str
    patterns: tuple[str, ...]
    builder: MapBuilder

    @property
    def where(self) -> str:
        """File and line of the builder, for error messages."""
        code: Any = getattr(self.builder, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.builder)

    def build(self, base: Layout, motivated: Layout, placement: str, title: str) -> WeightMap:
        """Build the map and check it.

        Args:
            base, motivated: the two models.
            placement: one of ``PLACEMENTS``.
            title: first line of the error if the map does not pass.

        Raises:
            WeightMapError: the builder has no such placement, refuses the models, or fails; or its map does not pass.
        """
        if placement not in PLACEMENTS:
            raise WeightMapError("unknown placement", [f"{placement!r} is none of {', '.join(PLACEMENTS)}"])
        options = {"placement": placement} if "placement" in inspect.signature(self.builder).parameters else {}
        if placement != "paper" and not options:
            raise WeightMapError(
                f"the weights map {self.name!r} has no placement {placement!r}",
                ["its builder has no parameter 'placement'; leave the placement out"],
            )
        try:
            built = self.builder(base, motivated, **options)
            if not isinstance(built, WeightMap):
                raise TypeError(f"it returned no WeightMap, but {built!r:.80}")
            built.check(base, motivated, title)
        except WeightMapError:
            raise
        except Exception as error:  # a user's function may raise anything, and its links may be anything
            if self.builder.__module__.startswith("weight_maps."):
                raise  # a bug of ours
            raise WeightMapError(
                f"the weights map {self.name!r} ({self.where}) failed", [f"{type(error).__name__}: {error}"]
            ) from error
        return built


_maps: dict[str, RegisteredMap] = {}


def register_map(*patterns: str, name: str | None = None) -> Callable[[MapBuilder], MapBuilder]:
    """Register the decorated function as the map for timm model names that match one of the shell patterns.

    The function gets the `Layout` of the base and of the motivated model, which are mappings of tensor names to shapes,
    and returns a `WeightMap`, which is then checked. Where several patterns match, the longest wins. Without patterns
    the map is found by its name alone.

    Args:
        patterns: for instance ``'resnet*'``.
        name: name of the map; default the function's name without ``_map``.

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
    """Return all maps, sorted by name."""
    return sorted(_maps.values(), key=lambda entry: entry.name)


def map_named(name: str) -> RegisteredMap:
    """Return the map of this name.

    Raises:
        WeightMapError: there is none; the error lists the known names.
    """
    if name not in _maps:
        near = difflib.get_close_matches(name, _maps, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WeightMapError(f"no weights map is called {name!r}", [f"{hint}there are {', '.join(sorted(_maps))}"])
    return _maps[name]


def map_for(base_name: str, motivated_name: str) -> RegisteredMap:
    """Return the map whose patterns match both names; of several the one with the longest pattern."""

    def longest(entry: RegisteredMap) -> int:
        return min(
            # timm names carry the pretrained tag behind a dot: resnet50.a1_in1k
            max((len(p) for p in entry.patterns if fnmatchcase(name.split(".")[0], p)), default=-1)
            for name in (base_name, motivated_name)
        )

    return max(registered_maps(), key=longest)
