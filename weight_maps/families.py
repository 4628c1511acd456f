"""The maps that come with the program: the paper's three families, and ``auto`` for every other.

All are the general map of `weight_maps.nest`; they differ in how blocks are placed and in what a fused projection is.
"""

from __future__ import annotations

from weight_maps.core import WeightMap
from weight_maps.layout import Layout
from weight_maps.nest import nest
from weight_maps.registry import register_map


@register_map("resnet*", "resnext*", "wide_resnet*", "seresne*", "ecaresne*", "legacy_seresne*", "res2ne*", "skresne*")
def resnet_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """ResNets (section 3.3.1): in each stage the last base block is the last motivated one, the others the first ones.

    Stem and head by name. Without facts (`Layout.modules` empty) it maps depth alone: a slice of a convolution is right
    or wrong by its groups, which do not show in shapes.
    """
    return _without_facts(nest(base, motivated, placement, "paper"), base, motivated)


@register_map("vit_*", "deit*", "beit*", "eva*", "flexivit*")
def vit_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Vision transformers (section 3.3.2): leading slices on every axis, tokens and positions on their last.

    timm computes q, k and v in one layer; each of the three takes the leading part of its own third (ours: the paper's
    "Linear layers" are the three projections). The depths may differ too, which the paper leaves open; blocks are then
    placed as in ResNets (ours).
    """
    return _without_facts(nest(base, motivated, placement, "paper"), base, motivated)


@register_map(name="vit_fused")
def vit_fused_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Vision transformers, to the letter: the first 3d rows of the layer that computes q, k and v.

    For comparison. In a model of twice the width the base's k then lies among the motivated model's q.
    """
    fused = nest(base, motivated, placement, "paper", whole=r"(^|\.)qkv\.|in_proj_|[qv]_bias")
    return _without_facts(fused, base, motivated)


@register_map("efficientnet*", "tf_efficientnet*", "test_efficientnet*")
def efficientnet_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """EfficientNets (section 3.3.3): leading channels; in each stage the base's blocks are the first motivated ones."""
    return _without_facts(nest(base, motivated, placement, "first"), base, motivated)


@register_map("*")
def auto_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Any two models of the same construction (ours): blocks aligned as in ResNets, leading parts elsewhere.

    Refused with every reason where that would tear heads, groups, positions or concatenated channels.
    """
    return _without_facts(nest(base, motivated, placement, "paper"), base, motivated)


@register_map(name="slices")
def slices_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Leading slices wherever they fit (ours), with no care for what they mean: for those who ask for it by name."""
    return nest(base, motivated, placement, "paper", whole="", checked=False)


def _without_facts(built: WeightMap, base: Layout, motivated: Layout) -> WeightMap:
    """The map, refused if it slices layers whose heads and groups nobody has told it."""
    if base.modules and motivated.modules:
        return built
    sliced = [link.base for link in built.links if len(link.shape) > 1 and not link.covers(motivated[link.motivated])]
    if not sliced:
        return built
    more = f" (and {len(sliced) - 1} more)" if len(sliced) > 1 else ""
    reason = (
        f"{sliced[0]}{more} would be sliced, but heads and groups do not show in shapes: "
        "give the modules instead of their state dicts"
    )
    return WeightMap(built.links, built.unmapped, (*built.refusals, reason))
