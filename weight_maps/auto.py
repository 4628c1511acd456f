"""Weights maps for models of any family (ours)."""

from __future__ import annotations

from weight_maps.core import WeightMap, leading
from weight_maps.draft import MapDraft
from weight_maps.layout import Layout
from weight_maps.parts import PartsReader, leading_parts
from weight_maps.registry import register_map
from weight_maps.resnet import last_to_last


@register_map("*")
def auto_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Any two models of the same construction (ours): blocks aligned as in ResNets, leading parts elsewhere.

    Refused with every reason where that would tear heads, groups, positions or concatenated channels.
    """
    draft = _with_all_blocks(base, motivated, placement)
    parts, motivated_parts = PartsReader(base), PartsReader(motivated)
    for name, target in draft.counterparts():
        draft.link(name, target, leading_parts(parts(name), motivated_parts(target)))
    return draft.finish()


@register_map(name="slices")
def slices_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Leading slices wherever they fit (ours), with no care for what they mean: for those who ask for it by name."""
    draft = _with_all_blocks(base, motivated, placement)
    for name, target in draft.counterparts():
        draft.link(name, target, leading(base[name]))
    return draft.finish(checked=False)


def _with_all_blocks(base: Layout, motivated: Layout, placement: str) -> MapDraft:
    """Start a map in which the blocks of all numbered lists are placed."""
    draft = MapDraft(base, motivated)
    draft.place(draft.blocks.base_blocks.containers, placement, paper=last_to_last)
    return draft
