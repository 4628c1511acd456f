"""Where the base's blocks lie in a deeper model: names in the base to names in the motivated model.

Blocks are modules in a numbered list (``layer3``, ``stages.2.blocks``; the model itself, if it is a list), here called
their container. A placement says which motivated block each base block should become; it becomes the nearest one of its
own kind, in order. So the first block of a stage, which alone changes the resolution, stays the first, a shifted window
meets a shifted window, and attention meets attention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from weight_maps.layout import Layout, traits_of

Placement = Callable[[int, int], list[int]]
"""``(base blocks, motivated blocks)`` to the motivated block that each base block should become."""


def first_blocks(base_blocks: int, motivated_blocks: int) -> list[int]:
    """Place all blocks at the start.

    >>> first_blocks(3, 5)
    [0, 1, 2]
    """
    return list(range(base_blocks))


def last_blocks(base_blocks: int, motivated_blocks: int) -> list[int]:
    """Place all blocks at the end.

    >>> last_blocks(3, 5)
    [2, 3, 4]
    """
    return list(range(motivated_blocks - base_blocks, motivated_blocks))


def even_blocks(base_blocks: int, motivated_blocks: int) -> list[int]:
    """Place the first block at the start, the last at the end, and the others evenly between them.

    >>> even_blocks(3, 5), even_blocks(1, 5)
    ([0, 2, 4], [0])
    """
    gaps, steps = motivated_blocks - 1, max(base_blocks - 1, 1)
    return [(2 * i * gaps + steps) // (2 * steps) for i in range(base_blocks)]


OTHER_PLACEMENTS: dict[str, Placement] = {"first": first_blocks, "last": last_blocks, "even": even_blocks}
"""Placements beside the one that the paper gives each family (ours)."""

PLACEMENTS = ("paper", *OTHER_PLACEMENTS)

_LETTERED_BLOCK = re.compile(r"(?<=\.)(b)(\d+)(?=\.|$)")
"""A block that is named by a letter and a number, as in RegNets: ``s1.b2``."""


def words_of(name: str) -> list[str]:
    """Split a tensor name or module path into words; the number of a block is always a word of its own.

    >>> words_of("layer1.0.conv1.weight"), words_of("s1.b2.conv1")
    (['layer1', '0', 'conv1', 'weight'], ['s1', 'b:', '2', 'conv1'])
    """
    return _LETTERED_BLOCK.sub(r"\1:.\2", name).split(".")


def name_of(words: Iterable[str]) -> str:
    """Join words to a name, as the inverse of `words_of`."""
    return ".".join(words).replace(":.", "")


class Blocks:
    """The containers of one model and their blocks, found by the numbers in tensor names."""

    def __init__(self, layout: Layout):
        self._shapes: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
        for name, shape in layout.items():
            for container, index, rest in _numbers_in(name):
                self._shapes.setdefault(container, {}).setdefault(index, {})[rest] = shape
        self._traits: dict[tuple[str, int], list[Any]] = {}
        for path, facts in layout.modules.items():
            for container, index, rest in _numbers_in(path):
                self._traits.setdefault((container, index), []).append((rest, traits_of(facts)))

    @property
    def containers(self) -> list[str]:
        """All containers; an outer one comes before those inside its blocks."""
        return list(self._shapes)

    def indices(self, container: str) -> list[int]:
        """Return the numbers of the container's blocks, ascending; none if there is no such container."""
        return sorted(self._shapes.get(container, ()))

    def is_stack(self, container: str) -> bool:
        """Return True if the entries are modules of several layers, so that more of them make a deeper model."""
        return all(any("." in rest for rest in shapes) for shapes in self._shapes[container].values())

    def traits(self, container: str, index: int) -> list[Any]:
        """Return the kinds and settings of a block's modules, as far as they do not change with the width."""
        return sorted(self._traits.get((container, index), ()), key=str)

    def shapes(self, container: str, index: int) -> dict[str, tuple[int, ...]]:
        """Return the names, inside the block, and shapes of a block's tensors."""
        return self._shapes[container][index]

    def runs(self, container: str) -> list[int]:
        """Number the runs of consecutive blocks with the same names and shapes; return each block's run."""
        numbers: list[int] = []
        last = None
        for index in self.indices(container):
            shapes = self.shapes(container, index)
            numbers.append((numbers[-1] if numbers else -1) + (shapes != last))
            last = shapes
        return numbers


def extra_blocks(mapped: Iterable[str], all_names: Iterable[str]) -> dict[str, str]:
    """Return the paths of the blocks that only the motivated model has, each with that of a block that both have.

    Args:
        mapped: names of the motivated model's tensors that hold the base's.
        all_names: names of all its tensors.
    """
    there, shared = (Blocks(Layout(dict.fromkeys(names, ()))) for names in (all_names, mapped))
    return {
        name_of([container, str(index)]): name_of([container, str(shared.indices(container)[0])])
        for container in shared.containers
        if container and there.is_stack(container)
        for index in there.indices(container)
        if index not in shared.indices(container)
    }


def _numbers_in(name: str) -> Iterator[tuple[str, int, str]]:
    """Yield container, number and rest of a name for each block that it lies in, the outer ones first."""
    words = words_of(name)
    for position, word in enumerate(words):
        if word.isdigit():
            yield ".".join(words[:position]), int(word), ".".join(words[position + 1 :])


class BlockAlignment:
    """The motivated block that each base block becomes; blocks that nobody has placed keep their number.

    Attributes:
        base, motivated: the two models.
        base_blocks: the base's blocks.
        refusals: one reason for each container that has more blocks in the base.
        too_deep: what the names of the tensors in these containers begin with.
        uneven: one reason for each list of single layers that is longer in the motivated model: nothing tells which of
            their layers correspond.
    """

    def __init__(self, base: Layout, motivated: Layout):
        self.base, self.motivated = base, motivated
        self.base_blocks, self._motivated_blocks = Blocks(base), Blocks(motivated)
        self._places: dict[str, dict[int, int]] = {}
        self.refusals: list[str] = []
        self.too_deep: tuple[str, ...] = ()
        self.uneven: list[str] = []

    def counterpart(self, name: str) -> str:
        """Return the motivated name of a base tensor or module."""
        return name_of(self._counterpart(words_of(name)))

    def _counterpart(self, words: Sequence[str]) -> list[str]:
        target = []
        for position, word in enumerate(words):
            if word.isdigit():
                places = self._places.get(".".join(words[:position]), {})
                word = str(places.get(int(word), word))
            target.append(word)
        return target

    def place(self, container: str, placement: Placement) -> None:
        """Place the blocks of a container of the base: each takes the nearest block of its own kind.

        An outer container comes before those inside its blocks.
        """
        target = ".".join(self._counterpart(container.split(".")))
        base, motivated = self.base_blocks.indices(container), self._motivated_blocks.indices(target)
        if base == motivated or not motivated:
            return
        if not self.base_blocks.is_stack(container):
            self.uneven.append(
                f"{container or 'the model'}: a list of single layers, {len(base)} with weights in the base and "
                f"{len(motivated)} in the motivated model; only a map of your own can say which of them correspond"
            )
        elif len(base) > len(motivated):
            self.too_deep += (name_of([container, ""]) if container else "",)
            self.refusals.append(
                f"{container.rstrip(':')}: the base has {len(base)} blocks, the motivated model {len(motivated)}"
            )
        else:
            costs = self._costs(container, target, placement(len(base), len(motivated)))
            self._places[container] = {base[i]: motivated[j] for i, j in enumerate(cheapest_places(costs))}

    def _costs(self, container: str, target: str, wanted: Sequence[int]) -> list[list[int]]:
        """Return a cost for each base block and motivated block: distance from the wanted place, and unlikeness."""
        small, large = self.base_blocks, self._motivated_blocks
        base_runs, motivated_runs = small.runs(container), large.runs(target)
        same_runs = base_runs[-1] == motivated_runs[-1]  # stages in one list: a block stays in its stage
        # Without facts the shapes tell a first block that changes resolution or width.
        first_differs = not self.base.modules and all(1 in runs[1:2] for runs in (base_runs, motivated_runs))
        costs = []
        for i, block in enumerate(small.indices(container)):
            names, traits = small.shapes(container, block).keys(), small.traits(container, block)
            row = []
            for j, other in enumerate(large.indices(target)):
                cost = abs(j - wanted[i])
                cost += _UNLIKE * (traits != large.traits(target, other))
                cost += _UNLIKE * (same_runs and base_runs[i] != motivated_runs[j])
                cost += _UNLIKE * (first_differs and (i == 0) != (j == 0))
                cost += _OTHER_NAMES * (names != large.shapes(target, other).keys())
                row.append(cost)
            costs.append(row)
        return costs


_UNLIKE, _OTHER_NAMES = 1_000, 100_000
"""Any distance is better than another kind of block, and that is better than a block with other tensors."""


def cheapest_places(costs: Sequence[Sequence[int]]) -> list[int]:
    """Choose one column for each row, ascending, with the lowest sum; of equal choices the first.

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
