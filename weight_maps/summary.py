"""Summarise a map stage by stage, for its table and its picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from weight_maps.core import Link, WeightMap
from weight_maps.depth import Blocks, name_of, words_of
from weight_maps.layout import Layout


@dataclass(frozen=True)
class Block:
    """One block of the motivated model, or a part without blocks (stem, head).

    Attributes:
        index: number in its stage; None for a stem or a head.
        base_index: number of the base's block that lies in it; None if there is none.
        parameters: number of parameters.
        shared: number of those that are the base's.
    """

    index: int | None
    base_index: int | None
    parameters: int
    shared: int


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of the motivated model and the base's blocks in them.

    Attributes:
        name: e.g. ``'layer3'``.
        base_blocks: number of blocks of the base.
        blocks: the blocks of the motivated model; a single one without index where there are no blocks.
        slices: sizes of the base's axes in the motivated ones, the most frequent first, e.g. ``'192 of 384'``.
    """

    name: str
    base_blocks: int
    blocks: tuple[Block, ...]
    slices: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of the motivated model's parameters in this stage."""
        return sum(block.parameters for block in self.blocks)

    @property
    def shared(self) -> int:
        """Number of those that are the base's."""
        return sum(block.shared for block in self.blocks)

    @property
    def places(self) -> str:
        """Blocks of the base and of the motivated model, e.g. ``'0..4 -> 0..4, 5 -> 22'``."""
        pairs = sorted((b.base_index, b.index) for b in self.blocks if b.base_index is not None and b.index is not None)
        runs: list[list[tuple[int, int]]] = []
        for base, motivated in pairs:
            if runs and (base - 1, motivated - 1) == runs[-1][-1]:
                runs[-1].append((base, motivated))
            else:
                runs.append([(base, motivated)])
        return ", ".join(f"{_span(r[0][0], r[-1][0])} -> {_span(r[0][1], r[-1][1])}" for r in runs)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


@dataclass(frozen=True)
class Summary:
    """A map in numbers.

    Attributes:
        base, motivated: model names.
        map_name, placement: the map's name and the placement of its blocks.
        base_parameters, motivated_parameters: number of parameters of each model.
        shared: number of the motivated model's parameters that are the base's.
        stages: in the order of the motivated model.
        unmapped: base tensors without a place, with the reason.
    """

    base: str
    motivated: str
    map_name: str
    placement: str
    base_parameters: int
    motivated_parameters: int
    shared: int
    stages: tuple[Stage, ...]
    unmapped: Mapping[str, str]

    @property
    def share(self) -> float:
        """Fraction of the motivated model's parameters that are the base's."""
        return self.shared / max(self.motivated_parameters, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain numbers, words, lists and dictionaries."""
        stages = [
            {**asdict(stage), "places": stage.places, "parameters": stage.parameters, "shared": stage.shared}
            for stage in self.stages
        ]
        return {**asdict(self), "unmapped": dict(self.unmapped), "share": self.share, "stages": stages}


def summarise(
    weights_map: WeightMap,
    base: Layout,
    motivated: Layout,
    names: tuple[str, str] = ("base", "motivated"),
    map_name: str = "",
    placement: str = "paper",
) -> Summary:
    """Summarise a checked map."""
    large = _Grouping(motivated)
    small = _Grouping(base)
    links: dict[str, list[Link]] = {}
    for link in weights_map.links:
        links.setdefault(large.stage_and_block(link.motivated)[0], []).append(link)
    counted = {name: math.prod(shape) for name, shape in motivated.items() if name not in motivated.buffers}
    shared: Counter[tuple[str, int | None]] = Counter()
    owner: dict[tuple[str, int | None], int | None] = {}
    for link in weights_map.links:
        place = large.stage_and_block(link.motivated)
        owner[place] = small.stage_and_block(link.base)[1]
        if link.motivated in counted:
            shared[place] += math.prod(link.shape)
    totals: Counter[tuple[str, int | None]] = Counter()
    for name, count in counted.items():
        totals[large.stage_and_block(name)] += count
    stages = []
    for stage in dict.fromkeys(large.stage_and_block(name)[0] for name in motivated):
        places = sorted((p for p in {*totals, *owner} if p[0] == stage), key=lambda p: -1 if p[1] is None else p[1])
        blocks = tuple(Block(p[1], owner.get(p), totals[p], shared[p]) for p in places)
        base_blocks = {owner[p] for p in places if owner.get(p) is not None}
        stages.append(Stage(stage, len(base_blocks), blocks, _slices(links.get(stage, ()), motivated)))
    return Summary(
        base=names[0],
        motivated=names[1],
        map_name=map_name,
        placement=placement,
        base_parameters=sum(math.prod(shape) for name, shape in base.items() if name not in base.buffers),
        motivated_parameters=sum(counted.values()),
        shared=sum(shared.values()),
        stages=tuple(stages),
        unmapped=dict(weights_map.unmapped),
    )


def _slices(links: Iterable[Link], motivated: Layout) -> tuple[str, ...]:
    """Return the sizes of sliced axes in words, the most frequent first."""
    found: Counter[str] = Counter()
    for link in links:
        for axis, size in zip(link.index, motivated[link.motivated], strict=True):
            taken = sum(stop - start for start, stop in axis)
            if taken < size:
                parts = f" in {len(axis)} parts" if len(axis) > 1 else ""
                found[f"{taken} of {size}{parts}"] += 1
    return tuple(words for words, _ in found.most_common())


class _Grouping:
    """Finds the stage and the block that a tensor belongs to."""

    def __init__(self, layout: Layout):
        self._blocks = Blocks(layout)
        self._names = list(layout)
        self._holds_stages: dict[str, bool] = {}

    def stage_and_block(self, name: str) -> tuple[str, int | None]:
        """Return both, e.g. ``('layer3', 5)``, or ``('fc', None)``."""
        words = words_of(name)
        for position, word in enumerate(words):
            if word.isdigit() and position:
                container = ".".join(words[:position])
                if not self._is_list_of_stages(container):
                    return name_of(words[:position]).rstrip(":"), int(word)
                inner = self._inner(container, int(word))
                if inner is None or not name_of(words).startswith(name_of([inner, ""])):
                    return name_of(words[: position + 1]), None
        return words[0], None

    def _is_list_of_stages(self, container: str) -> bool:
        if container not in self._holds_stages:
            entries = self._blocks.indices(container)
            self._holds_stages[container] = any(self._inner(container, entry) for entry in entries)
        return self._holds_stages[container]

    def _inner(self, container: str, entry: int) -> str | None:
        """Return the container that holds most tensors of an entry, if there is one."""
        prefix = name_of([container, str(entry), ""])
        inside = [name for name in self._names if name.startswith(prefix)]
        candidates: Counter[str] = Counter()
        depth = len(words_of(container)) + 1
        for name in inside:
            words = words_of(name)
            for position in (depth, depth + 1):
                if position < len(words) and words[position].isdigit():
                    candidates[".".join(words[:position])] += 1
                    break
        if not candidates:
            return None
        best, count = candidates.most_common(1)[0]
        return best if 2 * count > len(inside) and self._blocks.is_stack(best) else None


def table(summary: Summary) -> str:
    """Format a summary as a table for a terminal."""
    head = ("stage", "base", "motivated", "blocks", "slices", "params", "base's")
    rows = [
        (
            stage.name,
            str(stage.base_blocks or "-"),
            str(sum(block.index is not None for block in stage.blocks) or "-"),
            stage.places or "-",
            ", ".join(stage.slices[:2]) + (", ..." if len(stage.slices) > 2 else "") or "whole",
            human(stage.parameters),
            f"{100 * stage.shared / stage.parameters:.1f} %" if stage.parameters else "-",
        )
        for stage in summary.stages
    ]
    unmapped = [f"  {name}: {reason}" for name, reason in summary.unmapped.items()]
    return "\n".join(
        [
            f"{summary.base} in {summary.motivated} (map {summary.map_name!r}, placement {summary.placement!r})",
            "",
            columns([head, *rows]),
            "",
            f"{human(summary.shared)} of {human(summary.motivated_parameters)} parameters of {summary.motivated} are "
            f"those of {summary.base}: {100 * summary.share:.1f} %.",
            "Every tensor of the base has its place."
            if not unmapped
            else f"{len(unmapped)} tensors of the base have no place:",
            *unmapped,
        ]
    )


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns, all to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def human(count: int) -> str:
    """Format a count in thousands or millions.

    >>> human(25557032), human(9408), human(64)
    ('25.56M', '9.4k', '64')
    """
    if count >= 1_000_000:
        return f"{count / 1e6:.2f}M"
    return f"{count / 1e3:.1f}k" if count >= 1000 else str(count)
