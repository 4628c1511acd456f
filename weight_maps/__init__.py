"""Weights maps: where the base model lies inside the motivated model (paper, section 3.3).

The paper's rules are in `resnet.py` (3.3.1), `vit.py` (3.3.2) and `efficientnet.py` (3.3.3). All other models have the
map of `auto.py` (ours).

>>> from weight_maps import find_map
>>> weights_map = find_map("resnet50", "resnet101")
>>> next(link.motivated for link in weights_map.links if link.base == "layer3.5.conv1.weight")
'layer3.22.conv1.weight'
"""

from weight_maps.core import Link, Shapes, WeightMap, WeightMapError, fits, leading, shapes_of
from weight_maps.depth import PLACEMENTS
from weight_maps.find import find_map
from weight_maps.identity import begin_as_identity
from weight_maps.layout import Facts, Layout, layout_of
from weight_maps.parts import leading_parts
from weight_maps.registry import map_for, map_named, register_map, registered_maps

__all__ = [
    "PLACEMENTS",
    "Facts",
    "Layout",
    "Link",
    "Shapes",
    "WeightMap",
    "WeightMapError",
    "begin_as_identity",
    "find_map",
    "fits",
    "layout_of",
    "leading",
    "leading_parts",
    "map_for",
    "map_named",
    "register_map",
    "registered_maps",
    "shapes_of",
]
