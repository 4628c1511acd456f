"""Weights maps for models of any family (ours)."""

from __future__ import annotations

from weight_maps.core import Axis, WeightMap, leading
from weight_maps.depth import OTHER_PLACEMENTS, BlockAlignment
from weight_maps.layout import Layout
from weight_maps.nesting import nest
from weight_maps.parts import PartsReader, leading_parts
from weight_maps.registry import register_map
from weight_maps.resnet import last_to_last


@register_map("*")
def auto_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Any two models of the same construction (ours): blocks aligned as in ResNets, leading parts elsewhere.

    Refused with every reason where that would tear heads, groups, positions or concatenated channels.
    """
    small, large = PartsReader(base), PartsReader(motivated)

    def leading_slices(name: str, target: str) -> tuple[Axis, ...] | None:
        return leading_parts(small(name), large(target))

    return nest(_all_aligned(base, motivated, placement), leading_slices)


@register_map(name="slices")
def slices_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Leading slices wherever they fit (ours), with no care for what they mean: for those who ask for it by name."""

    def leading_slices(name: str, target: str) -> tuple[Axis, ...]:
        return leading(base[name])

    return nest(_all_aligned(base, motivated, placement), leading_slices, checked=False)


def _all_aligned(base: Layout, motivated: Layout, placement: str) -> BlockAlignment:
    blocks = BlockAlignment(base, motivated)
    for container in blocks.base_blocks.containers:
        blocks.place(container, OTHER_PLACEMENTS.get(placement, last_to_last))
    return blocks
