"""Shared steps of the family maps: check the family, collect links, collect errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from weight_maps.agreement import disagreements, summarised
from weight_maps.core import Axis, Link, WeightMap, WeightMapError, fits
from weight_maps.depth import OTHER_PLACEMENTS, BlockAlignment, Placement
from weight_maps.layout import Layout


def check_family(family: str, block: re.Pattern[str], base: Layout, motivated: Layout) -> None:
    """Check that both models are of a family.

    Args:
        family: a word for a model of the family.
        block: matches the beginning of a tensor's name if, and only if, it lies in a block of such a model.

    Raises:
        WeightMapError: one of them is not.
    """
    for role, layout in (("base", base), ("motivated", motivated)):
        if not any(map(block.match, layout)):
            reason = f"the {role} model is no {family}; the map 'auto' takes models of any family"
            raise WeightMapError(f"the map for {family}s is not for these models:", [reason])


def stages_of(layout: Layout, block: re.Pattern[str]) -> list[str]:
    """Return the stages of a model, in order: what the group ``stage`` of the pattern matches."""
    return list(dict.fromkeys(match["stage"] for match in map(block.match, layout) if match))


class MapDraft:
    """A map in the making: its links, and the reasons against it.

    Attributes:
        base, motivated: the two models.
        blocks: where the base's blocks lie; a tensor outside of them has a counterpart of the same name.
    """

    def __init__(self, base: Layout, motivated: Layout):
        self.base, self.motivated = base, motivated
        self.blocks = BlockAlignment(base, motivated)
        self._links: list[Link] = []
        self._lost: dict[str, str] = {}
        self._too_deep: set[str] = set()

    def place(self, containers: Iterable[str], placement: str, paper: Placement) -> None:
        """Place the blocks of containers of the base, see `BlockAlignment.place`.

        Args:
            placement: the user's choice, one of ``PLACEMENTS``.
            paper: the family's own placement, for the choice ``'paper'``.
        """
        for container in containers:
            self.blocks.place(container, OTHER_PLACEMENTS.get(placement, paper))

    def counterparts(self) -> Iterator[tuple[str, str]]:
        """Yield each base tensor with its counterpart, if there is one and it is large enough."""
        for name, shape in self.base.items():
            target = self.blocks.counterpart(name)
            if target not in self.motivated:
                self._lost[name] = f"the motivated model has no {target}"
                if name.startswith(self.blocks.too_deep):
                    self._too_deep.add(name)  # one reason for the whole container is enough
            elif not fits(shape, self.motivated[target]):
                self._lost[name] = f"{list(shape)} does not fit into {target} {list(self.motivated[target])}"
            else:
                yield name, target

    def link(self, name: str, target: str, index: tuple[Axis, ...] | None) -> None:
        """Link a base tensor to a part of its counterpart; there is no index if their parts do not match."""
        if index is None:
            self._lost[name] = f"its parts do not fit into those of {target}"
        else:
            self._links.append(Link(name, target, index))

    def finish(self, checked: bool = True) -> WeightMap:
        """Return the map, whose ``refusals`` are all reasons against it.

        Args:
            checked: refuse a map that tears heads, groups or positions, or joins models of different construction.
        """
        if checked and (reason := self._other_construction()):
            return WeightMap((), dict.fromkeys(self.base, reason), (reason,))
        lost = [(name, why) for name, why in self._lost.items() if name not in self._too_deep]
        refusals = [*self.blocks.refusals, *summarised(lost)]
        if checked:
            refusals += [*self.blocks.uneven, *disagreements(self.blocks), *self._unknown_heads()]
        return WeightMap(tuple(self._links), self._lost, tuple(refusals))

    def _other_construction(self) -> str | None:
        kinds = [layout.modules[""].kind for layout in (self.base, self.motivated) if "" in layout.modules]
        if len(set(kinds)) < 2:
            return None
        return f"the base is a {kinds[0]}, the motivated model a {kinds[1]}: they are not of one construction"

    def _unknown_heads(self) -> list[str]:
        """Return why layers cannot be sliced where only shapes were given."""
        if self.base.modules and self.motivated.modules:
            return []
        sliced = [
            link.base for link in self._links if len(link.shape) > 1 and not link.covers(self.motivated[link.motivated])
        ]
        if not sliced:
            return []
        more = f" (and {len(sliced) - 1} more)" if len(sliced) > 1 else ""
        return [
            f"{sliced[0]}{more} would be sliced, but heads and groups do not show in shapes: "
            "give the modules instead of their state dicts"
        ]
