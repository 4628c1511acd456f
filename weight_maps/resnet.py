"""The weights map of ResNets (paper, section 3.3.1)."""

from __future__ import annotations

import re

from weight_maps.core import WeightMap, leading
from weight_maps.draft import MapDraft, check_family, stages_of
from weight_maps.layout import Layout
from weight_maps.registry import register_map

BLOCK = re.compile(r"(?P<stage>(.+\.)?(layer\d+|stages[._]\d+(\.blocks)?))\.\d+\.conv1")
"""``layer3.5.conv1`` in most ResNets; ``stages.2.blocks.5.conv1`` or ``stages.2.5.conv1`` in others."""


def last_to_last(base_blocks: int, motivated_blocks: int) -> list[int]:
    """Place the last block of a stage last, and the others first.

    Deviation: a single block would be the last by the paper's rule; it is placed first, because only a stage's first
    block has the downsampling shortcut.

    >>> last_to_last(3, 5), last_to_last(1, 5)
    ([0, 1, 4], [0])
    """
    if base_blocks == 1:
        return [0]
    return [*range(base_blocks - 1), motivated_blocks - 1]


@register_map("resnet*", "resnext*", "wide_resnet*", "seresne*", "ecaresne*", "legacy_seresne*", "res2ne*", "skresne*")
def resnet_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """ResNets (section 3.3.1): in each stage the last base block is the last motivated one, the others the first ones.

    The stem and the head are linked by their names. The paper's pairs differ in depth alone, so that a tensor is all of
    its counterpart; in a wider model it is the leading channels (ours).
    """
    check_family("ResNet", BLOCK, base, motivated)
    draft = MapDraft(base, motivated)
    draft.place(stages_of(base, BLOCK), placement, paper=last_to_last)
    for name, target in draft.counterparts():
        draft.link(name, target, leading(base[name]))
    return draft.finish()
