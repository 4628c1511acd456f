"""The general map: blocks aligned by depth, everything else the leading part of its counterpart (paper, section 3.3).

What a leading part means is decided axis by axis. A tensor that stores several projections one after the other (q, k
and v) gives the leading part of each (`weight_maps.fused`). Positions, kernels and windows must agree, and so must the
width of attention heads and of convolution groups (`weight_maps.agreement`): the refusals say where they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from weight_maps.agreement import disagreements, summarised
from weight_maps.core import Axis, Link, WeightMap
from weight_maps.depth import DepthAlignment, name_of
from weight_maps.fused import Parts, PartsReader
from weight_maps.layout import Layout

_MISSING = "the motivated model has no"


def nest(
    base: Layout,
    motivated: Layout,
    placement: str = "paper",
    paper_placement: str = "paper",
    whole: str | None = None,
    checked: bool = True,
) -> WeightMap:
    """The map of one model inside a wider or deeper one of the same construction.

    Args:
        base, motivated: layouts of the two models.
        placement: one of `weight_maps.depth.PLACEMENTS`.
        paper_placement: what ``'paper'`` means for this family.
        whole: regular expression for tensors that are sliced as one part, though they hold several.
        checked: look for what makes leading slices wrong: heads, groups, positions, construction.

    Returns:
        A map that lists in its ``refusals`` why it cannot be right, if so.
    """
    if checked and (reason := _other_construction(base, motivated)):
        return WeightMap((), dict.fromkeys(base, reason), (reason,))
    align = DepthAlignment(base, motivated, placement, paper_placement)
    base_parts, motivated_parts = PartsReader(base, whole), PartsReader(motivated, whole)
    links: list[Link] = []
    lost: dict[str, str] = {}
    for name, shape in base.items():
        target = align(name)
        if target not in motivated:
            lost[name] = f"{_MISSING} {target}"
        elif not _fits(shape, motivated[target]):
            lost[name] = f"{list(shape)} does not fit into {target} {list(motivated[target])}"
        elif (index := leading_parts(small := base_parts(name), large := motivated_parts(target))) is None:
            lost[name] = f"its parts {_words(small)} do not fit into those of {target}, {_words(large)}"
        else:
            links.append(Link(name, target, index))
    too_deep = tuple(name_of([container, ""]).rstrip(".") for container in align.refused)
    refusals = [*align.refusals, *summarised([(n, why) for n, why in lost.items() if not _known(n, why, too_deep)])]
    if checked:
        refusals += [*align.uneven, *disagreements(base, motivated, align, too_deep)]
    return WeightMap(tuple(links), lost, tuple(refusals))


def _other_construction(base: Layout, motivated: Layout) -> str | None:
    kinds = [layout.modules[""].kind for layout in (base, motivated) if "" in layout.modules]
    if len(set(kinds)) < 2:
        return None
    return f"the base is a {kinds[0]}, the motivated model a {kinds[1]}: they are not of one construction"


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    return len(small) == len(large) and all(a <= b for a, b in zip(small, large, strict=True))


def _known(name: str, why: str, too_deep: tuple[str, ...]) -> bool:
    """Whether a tensor has no place because the base has more blocks there, which is one reason and not many."""
    return why.startswith(_MISSING) and bool(too_deep) and name.startswith(too_deep)


def leading_parts(base: Parts, motivated: Parts) -> tuple[Axis, ...] | None:
    """The index that takes the leading run of each part on each axis; None where the parts do not match.

    >>> leading_parts([(2, 2)], [(3, 3)])
    (((0, 2), (3, 5)),)
    >>> leading_parts([(4,), (1,)], [(9,), (1,)])
    (((0, 4),), ((0, 1),))
    """
    index = []
    for small, large in zip(base, motivated, strict=True):
        if len(small) != len(large) or any(a > b for a, b in zip(small, large, strict=True)):
            return None
        start, runs = 0, []
        for a, b in zip(small, large, strict=True):
            runs.append((start, start + a))
            start += b
        index.append(_joined(runs))
    return tuple(index)


def _joined(runs: Sequence[tuple[int, int]]) -> Axis:
    """The same elements, runs that touch made one."""
    joined = [runs[0]]
    for start, stop in runs[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def _words(parts: Parts) -> str:
    return " x ".join("+".join(map(str, axis)) for axis in parts)
