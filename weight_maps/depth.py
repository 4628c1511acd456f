"""Where the base's blocks lie in a deeper model: names of the base to names of the motivated model.

A *container* is a list of blocks (``layer3``, ``stages.2.blocks``; the model itself, if it is a list). Its blocks are
wanted in the places that the placement gives, and go to the nearest ones of their own kind, in order: a stage's first
block, which alone changes the resolution, never meets another one, a shifted window meets a shifted window, attention
meets attention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from weight_maps.core import Shapes
from weight_maps.layout import traits_of

PLACEMENTS = ("paper", "first", "last", "even")


def align_blocks(base_blocks: int, motivated_blocks: int, placement: str = "paper") -> list[int]:
    """For each block of the base the block of the motivated model that it is wanted in.

    Args:
        placement: ``'paper'`` the last goes to the last, the others to the first ones in order (section 3.3.1);
            ``'first'`` all to the first ones (section 3.3.3); ``'last'`` all to the last ones; ``'even'`` first and
            last to first and last, the others evenly between. A single block goes to the first, which alone has a
            downsampling shortcut, but under ``'last'`` (ours; the paper does not say).

    >>> align_blocks(3, 5)
    [0, 1, 4]
    >>> align_blocks(3, 5, "even")
    [0, 2, 4]
    >>> align_blocks(1, 5)
    [0]
    """
    first, last = list(range(base_blocks)), list(range(motivated_blocks - base_blocks, motivated_blocks))
    if placement == "first":
        return first
    if placement == "last":
        return last
    if base_blocks == 1:
        return [0]
    if placement == "even":
        gaps, steps = motivated_blocks - 1, base_blocks - 1
        return [(2 * i * gaps + steps) // (2 * steps) for i in first]
    return [*first[:-1], motivated_blocks - 1]


_NUMBERED = re.compile(r"(?<=\.)(b)(\d+)(?=\.|$)")
"""Blocks that are named by a letter and a number, as in RegNets: ``s1.b2``."""


def words_of(name: str) -> list[str]:
    """The words of a tensor name or module path, with the number of a block as a word of its own.

    >>> words_of("layer1.0.conv1.weight"), words_of("s1.b2.conv1")
    (['layer1', '0', 'conv1', 'weight'], ['s1', 'b:', '2', 'conv1'])
    """
    return _NUMBERED.sub(r"\1:.\2", name).split(".")


def name_of(words: Iterable[str]) -> str:
    """The inverse of `words_of`."""
    return ".".join(words).replace(":.", "")


class Blocks:
    """The containers of one model, read off its tensor names.

    Args:
        shapes: tensor name to shape; of a `Layout` the facts are used too.
    """

    def __init__(self, shapes: Shapes):
        self._shapes = shapes
        self._tensors: dict[str, dict[int, list[str]]] = {}
        for name in shapes:
            for container, index, rest in _places_of(name):
                self._tensors.setdefault(container, {}).setdefault(index, []).append(rest)
        self._traits: dict[tuple[str, int], list[Any]] = {}
        for path, facts in getattr(shapes, "modules", {}).items():
            for container, index, rest in _places_of(path):
                self._traits.setdefault((container, index), []).append((rest, traits_of(facts)))

    @property
    def has_facts(self) -> bool:
        """Whether the modules' settings are known."""
        return bool(self._traits)

    def indices(self, container: str) -> list[int]:
        """Numbers of the container's blocks, ascending; empty for what is no container."""
        return sorted(self._tensors.get(container, ()))

    def is_stack(self, container: str) -> bool:
        """Whether its entries are modules of several layers, so that more of them make a deeper model."""
        return all(any("." in rest for rest in names) for names in self._tensors[container].values())

    def names(self, container: str, index: int) -> frozenset[str]:
        """Names of a block's tensors, inside the block."""
        return frozenset(self._tensors[container][index])

    def traits(self, container: str, index: int) -> list[Any]:
        """Kinds and settings of a block's modules, as far as they do not change with the width."""
        return sorted(self._traits.get((container, index), ()), key=str)

    def shapes(self, container: str, index: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a block's tensors."""
        names = self._tensors[container][index]
        place = [container, str(index)] if container else [str(index)]
        return {rest: tuple(self._shapes[name_of([*place, rest])]) for rest in names}

    def runs(self, container: str) -> list[int]:
        """For each block, in order, the number of its run: consecutive blocks of the same names and shapes."""
        numbers: list[int] = []
        last = None
        for index in self.indices(container):
            shapes = self.shapes(container, index)
            numbers.append((numbers[-1] if numbers else -1) + (shapes != last))
            last = shapes
        return numbers


def _places_of(name: str) -> Iterator[tuple[str, int, str]]:
    """Container, number and rest of a name, for each block that it lies in."""
    words = words_of(name)
    for position, word in enumerate(words):
        if word.isdigit():
            yield ".".join(words[:position]), int(word), ".".join(words[position + 1 :])


class DepthAlignment:
    """Renames tensors of the base to their place in the motivated model.

    Args:
        base, motivated: names and shapes of the two models.
        placement: one of `PLACEMENTS`; ``'paper'`` means ``paper``.
        paper: the placement that the paper gives this family.

    Attributes:
        refusals: containers that are deeper in the base, in words.
        refused: those containers.
        uneven: lists of single layers that are longer in the motivated model, in words: there is no telling which of
            their layers correspond.
    """

    def __init__(self, base: Shapes, motivated: Shapes, placement: str = "paper", paper: str = "paper"):
        self._base, self._motivated = Blocks(base), Blocks(motivated)
        self._placement = paper if placement == "paper" else placement
        self._places: dict[tuple[str, str], dict[int, int]] = {}
        self.refusals: list[str] = []
        self.refused: list[str] = []
        self.uneven: list[str] = []

    def __call__(self, name: str) -> str:
        """The name of the base tensor's counterpart, or of the counterpart of a module path."""
        source: list[str] = []
        target: list[str] = []
        for word in words_of(name):
            if word.isdigit():
                places = self._place(".".join(source), ".".join(target))
                target.append(str(places.get(int(word), int(word))))
            else:
                target.append(word)
            source.append(word)
        return name_of(target)

    def _place(self, container: str, target: str) -> dict[int, int]:
        if (container, target) not in self._places:
            self._places[container, target] = self._align(container, target)
        return self._places[container, target]

    def _align(self, container: str, target: str) -> dict[int, int]:
        base, motivated = self._base.indices(container), self._motivated.indices(target)
        if base == motivated or not base or not motivated:
            return {index: index for index in base}
        if not self._base.is_stack(container):
            self.uneven.append(
                f"{container or 'the model'}: a list of single layers, {len(base)} with weights in the base and "
                f"{len(motivated)} in the motivated model; which of them correspond must be said by a map of your own"
            )
            return {index: index for index in base}
        if len(base) > len(motivated):
            self.refused.append(container)
            self.refusals.append(
                f"{container.rstrip(':')}: the base has {len(base)} blocks, the motivated model {len(motivated)}"
            )
            return {index: index for index in base}
        wanted = align_blocks(len(base), len(motivated), self._placement)
        costs = self._costs(container, target, wanted)
        return {base[i]: motivated[j] for i, j in enumerate(cheapest_places(costs))}

    def _costs(self, container: str, target: str, wanted: list[int]) -> list[list[int]]:
        """For each base block and each motivated one, how far it is from the wanted place and how unlike it is."""
        base, motivated = self._base.indices(container), self._motivated.indices(target)
        base_runs, motivated_runs = self._base.runs(container), self._motivated.runs(target)
        same_runs = base_runs[-1] == motivated_runs[-1]  # stages in one list: they are kept
        # Without facts it is the shapes that tell a first block which changes resolution or width.
        first_differs = not self._base.has_facts and all(1 in runs[1:2] for runs in (base_runs, motivated_runs))
        costs = []
        for i, block in enumerate(base):
            names, traits = self._base.names(container, block), self._base.traits(container, block)
            row = []
            for j, other in enumerate(motivated):
                cost = abs(j - wanted[i])
                cost += _UNLIKE * (traits != self._motivated.traits(target, other))
                cost += _UNLIKE * (same_runs and base_runs[i] != motivated_runs[j])
                cost += _UNLIKE * (first_differs and (i == 0) != (j == 0))
                cost += _OTHER_NAMES * (names != self._motivated.names(target, other))
                row.append(cost)
            costs.append(row)
        return costs


_UNLIKE, _OTHER_NAMES = 1_000, 100_000
"""Any displacement is better than another kind of block, and that is better than other tensors."""


def cheapest_places(costs: Sequence[Sequence[int]]) -> list[int]:
    """An ascending choice of one column for each row with the lowest sum; of equal ones the first.

    >>> cheapest_places([[0, 1, 2, 3], [1, 9, 0, 1], [2, 1, 9, 0]])
    [0, 2, 3]
    """
    rows, columns = len(costs), len(costs[0])
    best: list[list[float]] = [[float("inf")] * (columns + 1) for _ in range(rows + 1)]
    best[rows] = [0.0] * (columns + 1)
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = min(costs[i][j] + best[i + 1][j + 1], best[i][j + 1])
    places, j = [], 0
    for i in range(rows):
        while costs[i][j] + best[i + 1][j + 1] != best[i][j]:
            j += 1
        places.append(j)
        j += 1
    return places
