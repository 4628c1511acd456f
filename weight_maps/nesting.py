"""The steps that all maps of this package share.

A map refuses models of another family (`foreign`), places the blocks (`weight_maps.depth`), and says which slice of its
counterpart a tensor takes. `nest` makes the links of it. It refuses the map where a tensor has no counterpart, where it
does not fit into it, and where the models disagree (`weight_maps.agreement`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from weight_maps.agreement import disagreements, summarised
from weight_maps.core import Axis, Link, WeightMap, fits
from weight_maps.depth import BlockAlignment
from weight_maps.layout import Layout

Slices = Callable[[str, str], "tuple[Axis, ...] | None"]
"""Names of a base tensor and of its counterpart to the index that it takes there; None where there is no such index."""

_MISSING = "the motivated model has no"


def foreign(family: str, block: re.Pattern[str], base: Layout, motivated: Layout) -> str | None:
    """Return why a family's map is not for these two models, or None.

    Args:
        family: a word for the family.
        block: matches the beginning of the names of tensors in its blocks.
    """
    for role, layout in (("base", base), ("motivated", motivated)):
        if not any(map(block.match, layout)):
            return f"the {role} model is no {family}; the map 'auto' takes models of any family"
    return None


def stages_of(layout: Layout, block: re.Pattern[str]) -> list[str]:
    """Return the stages of a model in order: what the group ``stage`` matches in its tensors' names."""
    return list(dict.fromkeys(match["stage"] for match in map(block.match, layout) if match))


def refused(base: Layout, reason: str) -> WeightMap:
    """Return a map of nothing, refused for one reason."""
    return WeightMap((), dict.fromkeys(base, reason), (reason,))


def nest(blocks: BlockAlignment, slices: Slices, checked: bool = True) -> WeightMap:
    """Link every base tensor to a slice of its counterpart.

    Args:
        blocks: the two models, with the base's blocks in their places.
        slices: the index that a tensor takes in its counterpart.
        checked: refuse a map that tears heads, groups or positions, or joins models of different construction.

    Returns:
        A map whose ``refusals`` say why it is not right, if so.
    """
    base, motivated = blocks.base, blocks.motivated
    if checked and (reason := _other_construction(base, motivated)):
        return refused(base, reason)
    links: list[Link] = []
    lost: dict[str, str] = {}
    for name, shape in base.items():
        target = blocks.counterpart(name)
        if target not in motivated:
            lost[name] = f"{_MISSING} {target}"
        elif not fits(shape, motivated[target]):
            lost[name] = f"{list(shape)} does not fit into {target} {list(motivated[target])}"
        elif (index := slices(name, target)) is None:
            lost[name] = f"its parts do not fit into those of {target}"
        else:
            links.append(Link(name, target, index))
    refusals = [*blocks.refusals, *summarised([(n, why) for n, why in lost.items() if not _is_said(n, why, blocks)])]
    if checked:
        refusals += [*blocks.uneven, *disagreements(blocks), *_unknown_heads(links, base, motivated)]
    return WeightMap(tuple(links), lost, tuple(refusals))


def _other_construction(base: Layout, motivated: Layout) -> str | None:
    kinds = [layout.modules[""].kind for layout in (base, motivated) if "" in layout.modules]
    if len(set(kinds)) < 2:
        return None
    return f"the base is a {kinds[0]}, the motivated model a {kinds[1]}: they are not of one construction"


def _is_said(name: str, why: str, blocks: BlockAlignment) -> bool:
    """Tell whether a tensor is missing because the base has more blocks there: one reason, not one for each tensor."""
    return why.startswith(_MISSING) and bool(blocks.too_deep) and name.startswith(blocks.too_deep)


def _unknown_heads(links: Sequence[Link], base: Layout, motivated: Layout) -> list[str]:
    """Refuse to slice layers whose heads and groups are unknown, because only shapes were given."""
    if base.modules and motivated.modules:
        return []
    sliced = [link.base for link in links if len(link.shape) > 1 and not link.covers(motivated[link.motivated])]
    if not sliced:
        return []
    more = f" (and {len(sliced) - 1} more)" if len(sliced) > 1 else ""
    return [
        f"{sliced[0]}{more} would be sliced, but heads and groups do not show in shapes: "
        "give the modules instead of their state dicts"
    ]
