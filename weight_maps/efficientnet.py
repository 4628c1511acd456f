"""The weights map of EfficientNets (paper, section 3.3.3)."""

from __future__ import annotations

import re

from weight_maps.core import Axis, WeightMap, leading
from weight_maps.depth import OTHER_PLACEMENTS, BlockAlignment, first_blocks
from weight_maps.layout import Layout
from weight_maps.nesting import foreign, nest, refused, stages_of
from weight_maps.registry import register_map

BLOCK = re.compile(r"(?P<stage>(.+\.)?blocks\.\d+)\.\d+\.conv")
"""``blocks.2.0.conv_dw``: a convolution of the first block of the third stage."""


@register_map("efficientnet*", "tf_efficientnet*", "test_efficientnet*")
def efficientnet_map(base: Layout, motivated: Layout, placement: str = "paper") -> WeightMap:
    """EfficientNets (section 3.3.3): leading channels; in each stage the base's blocks are the first motivated ones."""
    if reason := foreign("EfficientNet", BLOCK, base, motivated):
        return refused(base, reason)
    blocks = BlockAlignment(base, motivated)
    for stage in stages_of(base, BLOCK):
        blocks.place(stage, OTHER_PLACEMENTS.get(placement, first_blocks))

    def leading_channels(name: str, target: str) -> tuple[Axis, ...]:
        if len(base[name]) < 2:  # weights and buffers of BatchNorm, biases
            return leading(base[name])
        outputs, inputs, *kernel = base[name]
        return (*leading((outputs, inputs)), *leading(kernel))

    return nest(blocks, leading_channels)
