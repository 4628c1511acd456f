"""The weights map of EfficientNets (paper, section 3.3.3)."""

from __future__ import annotations

import re

from weight_maps.core import WeightMap, leading
from weight_maps.depth import first_blocks
from weight_maps.draft import MapDraft, check_family, stages_of
from weight_maps.layout import Layout
from weight_maps.registry import register_map

BLOCK = re.compile(r"(?P<stage>(.+\.)?blocks\.\d+)\.\d+\.conv")
"""``blocks.2.0.conv_dw``: a convolution of the first block of the third stage."""


@register_map("efficientnet*", "tf_efficientnet*", "test_efficientnet*")
def efficientnet_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """EfficientNets (section 3.3.3): leading channels; in each stage the base's blocks are the first motivated ones.

    The stem and the head are linked by their names.
    """
    check_family("EfficientNet", BLOCK, base, motivated)
    draft = MapDraft(base, motivated)
    draft.place(stages_of(base, BLOCK), placement, paper=first_blocks)
    for name, target in draft.counterparts():
        # The first scalars of a vector (weights and buffers of BatchNorm, biases); the first output and the first input
        # channels of a convolution, whose kernel has the same size.
        draft.link(name, target, leading(base[name]))
    return draft.finish()
