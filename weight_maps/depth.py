"""Where the base's blocks lie in a deeper model: names of the base to names of the motivated model.

A *container* is a list of blocks (``layer3``, ``stages.2.blocks``). Its blocks form *runs* of the same tensors, and
runs are matched with runs: a stage's first block, which alone changes the resolution, never meets another one, and a
stage of convolution blocks that ends in attention blocks is aligned part by part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from weight_maps.core import Shapes

PLACEMENTS = ("paper", "first", "last", "even")


def align_blocks(base_blocks: int, motivated_blocks: int, placement: str = "paper", single: int = 0) -> list[int]:
    """For each block of a base run its block in the motivated run.

    Args:
        placement: ``'paper'`` the last goes to the last, the others to the first ones in order (section 3.3.1);
            ``'first'`` all to the first ones (section 3.3.3); ``'last'`` all to the last ones; ``'even'`` first and
            last to first and last, the others evenly between.
        single: where the only block of a base run goes, under ``'paper'`` and ``'even'`` (ours; the paper does not
            say).

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
        return [single]
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


@dataclass(frozen=True)
class Run:
    """Consecutive blocks with the same tensors."""

    names: frozenset[str]
    indices: tuple[int, ...]


class Blocks:
    """The containers of one model, read off its tensor names.

    Args:
        shapes: tensor name to shape.
    """

    def __init__(self, shapes: Shapes):
        self._shapes = shapes
        self._tensors: dict[str, dict[int, list[str]]] = {}
        for name in shapes:
            words = words_of(name)
            for position, word in enumerate(words):
                if word.isdigit() and position:
                    blocks = self._tensors.setdefault(".".join(words[:position]), {})
                    blocks.setdefault(int(word), []).append(".".join(words[position + 1 :]))

    def indices(self, container: str) -> list[int]:
        """Numbers of the container's blocks, ascending; empty for what is no container."""
        return sorted(self._tensors.get(container, ()))

    def is_stack(self, container: str) -> bool:
        """Whether its entries are modules of several layers, so that more of them make a deeper model."""
        return all(any("." in rest for rest in names) for names in self._tensors[container].values())

    def runs(self, container: str) -> list[Run]:
        """The container's blocks, consecutive ones with the same names and shapes together."""
        runs: list[Run] = []
        last = None
        for index in self.indices(container):
            names = self._tensors[container][index]
            kind = {rest: tuple(self._shapes[name_of([container, str(index), rest])]) for rest in names}
            if kind == last:
                runs[-1] = Run(runs[-1].names, (*runs[-1].indices, index))
            else:
                runs.append(Run(frozenset(names), (index,)))
            last = kind
        return runs


class DepthAlignment:
    """Renames tensors of the base to their place in the motivated model.

    Args:
        base, motivated: names and shapes of the two models.
        placement: one of `PLACEMENTS`; ``'paper'`` means ``paper``.
        paper: the placement that the paper gives this family.
    """

    def __init__(self, base: Shapes, motivated: Shapes, placement: str = "paper", paper: str = "paper"):
        self._base, self._motivated = Blocks(base), Blocks(motivated)
        self._placement = paper if placement == "paper" else placement
        self._places: dict[tuple[str, str], dict[int, int]] = {}
        self.refusals: list[str] = []
        self.refused: list[str] = []

    def __call__(self, name: str) -> str:
        """The name of the base tensor's counterpart, or of the counterpart of a module path."""
        source: list[str] = []
        target: list[str] = []
        for word in words_of(name):
            if word.isdigit() and source:
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
        if base == motivated or not base or not motivated or not self._base.is_stack(container):
            return {index: index for index in base}
        if len(base) > len(motivated):
            self.refused.append(container)
            self.refusals.append(
                f"{container.rstrip(':')}: the base has {len(base)} blocks, the motivated model {len(motivated)}"
            )
            return {index: index for index in base}
        return self._align_runs(self._base.runs(container), self._motivated.runs(target)) or self._align_whole(
            base, motivated
        )

    def _align_runs(self, base: list[Run], motivated: list[Run]) -> dict[int, int]:
        """Blocks to blocks, run by run; empty where the runs do not match."""
        places: dict[int, int] = {}
        remaining = list(motivated)
        for number, run in enumerate(base):
            while remaining and not run.names <= remaining[0].names:
                remaining.pop(0)
            if not remaining or len(remaining[0].indices) < len(run.indices):
                return {}
            there = remaining.pop(0).indices
            single = len(there) - 1 if number else 0
            aligned = align_blocks(len(run.indices), len(there), self._placement, single)
            places.update(zip(run.indices, (there[i] for i in aligned), strict=True))
        return places

    def _align_whole(self, base: list[int], motivated: list[int]) -> dict[int, int]:
        """The first block stays the first one; the others are aligned as one run."""
        if len(base) == 1:
            return {base[0]: motivated[0]}
        aligned = align_blocks(len(base) - 1, len(motivated) - 1, self._placement, len(motivated) - 2)
        return {base[0]: motivated[0], **dict(zip(base[1:], (motivated[1 + i] for i in aligned), strict=True))}
