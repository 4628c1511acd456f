"""ResNets nest by depth: each stage of the motivated model has the base's blocks and more (paper, section 3.3.1)."""

from __future__ import annotations

import re
from collections import defaultdict

from weight_maps.core import Link, Shapes, WeightMap, leading
from weight_maps.registry import register_map

_BLOCK = re.compile(r"^(layer\d+|stages\.\d+\.blocks)\.(\d+)\.(.+)$")


def align_blocks(base_blocks: int, motivated_blocks: int) -> list[int]:
    """For each block of a base stage its block in the motivated stage.

    The last goes to the last, the others to the first ones in order (paper, section 3.3.1). A stage of a single block
    goes to block 0, the only one with the downsampling shortcut (ours).

    >>> align_blocks(3, 5)
    [0, 1, 4]
    >>> align_blocks(1, 5)
    [0]
    """
    if base_blocks == 1:
        return [0]
    return [*range(base_blocks - 1), motivated_blocks - 1]


def _depths(shapes: Shapes) -> dict[str, int]:
    blocks: dict[str, set[int]] = defaultdict(set)
    for name in shapes:
        if match := _BLOCK.match(name):
            blocks[match[1]].add(int(match[2]))
    return {stage: len(indices) for stage, indices in blocks.items()}


@register_map("resnet*", "resnext*", "wide_resnet*")
def resnet_map(base: Shapes, motivated: Shapes) -> WeightMap:
    """Map of a ResNet inside a deeper one of the same widths; stem and head by name.

    Works on names of the form ``layer<stage>.<block>.<rest>`` (timm's ResNets, ours for CIFAR) and
    ``stages.<stage>.blocks.<block>.<rest>`` (timm's pre-activation ResNets).
    """
    base_depths, motivated_depths = _depths(base), _depths(motivated)
    refusals = [
        f"{stage}: the base has {depth} blocks, the motivated model {motivated_depths.get(stage, 0)}"
        for stage, depth in base_depths.items()
        if depth > motivated_depths.get(stage, 0)
    ]
    if refusals:
        return WeightMap((), dict.fromkeys(base, "the stages do not nest"), tuple(refusals))

    links = []
    for name, shape in base.items():
        target = name
        if match := _BLOCK.match(name):
            stage, block, rest = match.groups()
            target = f"{stage}.{align_blocks(base_depths[stage], motivated_depths[stage])[int(block)]}.{rest}"
        if target in motivated and tuple(motivated[target]) != tuple(shape):
            refusals.append(
                f"{name}: shape {list(shape)}, in the motivated model {list(motivated[target])} "
                "(ResNets nest by depth: every shared layer must have the same shape)"
            )
        links.append(Link(name, target, leading(shape)))
    return WeightMap(tuple(links), {}, tuple(refusals))
