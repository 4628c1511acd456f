"""Where the small model lies inside the large one (paper, section 3.3).

>>> from weight_maps import find_map
"""

from weight_maps.core import Link, Shapes, WeightMap, WeightMapError, leading, shapes_of
from weight_maps.find import find_map
from weight_maps.registry import known_patterns, register_map

__all__ = [
    "Link",
    "Shapes",
    "WeightMap",
    "WeightMapError",
    "find_map",
    "known_patterns",
    "leading",
    "register_map",
    "shapes_of",
]
