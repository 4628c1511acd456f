"""The weights map of vision transformers (paper, section 3.3.2)."""

from __future__ import annotations

import re
from dataclasses import replace

from weight_maps.core import WeightMap, leading
from weight_maps.draft import MapDraft, check_family
from weight_maps.layout import Layout
from weight_maps.parts import PartsReader, leading_parts
from weight_maps.registry import register_map
from weight_maps.resnet import last_to_last

BLOCK = re.compile(r"(model\.)?blocks\.\d+\.attn")
"""``blocks.11.attn.qkv``: a layer of the attention of the twelfth block."""

_FUSED = re.compile(r"(.+\.)?(qkv\.|in_proj_)")
"""Layers that compute q, k and v in one."""


@register_map("vit_*", "deit*", "beit*", "eva*", "flexivit*")
def vit_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Vision transformers (section 3.3.2): the first d of d' entries on each axis.

    Class token and position embedding [1, N, d] differ only in their last axis.

    timm computes q, k and v in one layer; each of the three takes the leading slice of its own third (ours: the paper's
    "Linear layers" are the three projections). The paper's pairs have equally many blocks; in a deeper model they are
    placed as in ResNets (ours), and so are the stages of the ResNet in a hybrid.
    """
    check_family("vision transformer", BLOCK, base, motivated)
    draft = MapDraft(base, motivated)
    draft.place(draft.blocks.base_blocks.containers, placement, paper=last_to_last)
    parts, motivated_parts = PartsReader(base), PartsReader(motivated)
    for name, target in draft.counterparts():
        # The first scalars of a vector, the first inputs and outputs of a linear layer, the first channels of tokens
        # and positions (their other axes are equal); of a tensor in parts (q, k, v) the first of each part.
        draft.link(name, target, leading_parts(parts(name), motivated_parts(target)))
    return draft.finish()


@register_map(name="vit_fused")
def vit_fused_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """Vision transformers, to the letter: the first 3d rows of the layer that computes q, k and v.

    For comparison. In a model of twice the width the base's k then lies among the motivated model's q.
    """
    by_thirds = vit_map(base, motivated, placement)
    links = [
        replace(link, index=leading(base[link.base])) if _FUSED.match(link.base) else link for link in by_thirds.links
    ]
    return replace(by_thirds, links=tuple(links))
