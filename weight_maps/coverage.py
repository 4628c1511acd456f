"""Measure how much of timm can be mapped: try every pair of models of a timm module that differ in their size.

Models are built on the meta device. `motivation.tools.map_coverage` makes the table of docs/coverage.md.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import timm

from weight_maps.core import WeightMapError, fits
from weight_maps.find import find_map, make_model
from weight_maps.layout import Layout, layout_of

_SIZE_WORDS = re.compile(
    r"^(nano|pico|femto|atto|zepto|micro|mini|tiny|small|little|medium|betwixt|base|large|huge|giant|gigantic|plus|"
    r"x+tiny|x+small|x+large|x*[stlbm]|x+[sl]|ti|[smlx]+\d*|s\d+|m\d+|[bdefmt]\d+|n|h|g|w\d+)$"
)


Pair = tuple[str, str]
"""Names of the base and of the motivated model."""


@dataclass
class ModuleCoverage:
    """The pairs of one timm module.

    Attributes:
        module: timm's file of models.
        models: number of its models.
        plain: pairs that nest plainly, see `nests_plainly`.
        siblings: further pairs whose names differ in their size alone.
        mapped: pairs that have a map.
        refused: pairs that have none, with all reasons.
        failed: models that cannot be built on the meta device, with the reason.
        parameters: number of parameters of each model.
    """

    module: str
    models: int = 0
    plain: list[Pair] = field(default_factory=list)
    siblings: list[Pair] = field(default_factory=list)
    mapped: list[Pair] = field(default_factory=list)
    refused: dict[Pair, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs that were tried."""
        return self.plain + self.siblings

    def main_reasons(self, count: int = 3) -> list[str]:
        """Return the most frequent kinds of reasons for a refusal, each with its number of pairs.

        Kinds that are equally frequent stand in the order in which they were met.
        """
        kinds: Counter[str] = Counter()
        for faults in self.refused.values():
            kinds.update(dict.fromkeys(map(_kind_of_reason, faults), 1))  # each once a pair
        return [f"{kind} ({number})" for kind, number in kinds.most_common(count)]


def modules_of_timm() -> dict[str, list[str]]:
    """Return timm's model files with the names of their models, without deprecated names."""
    return {module: sorted(timm.list_models(module=module)) for module in sorted(timm.list_modules())}


def cover(module: str, names: Iterable[str]) -> ModuleCoverage:
    """Try every pair of one timm module."""
    coverage = ModuleCoverage(module)
    layouts = {}
    for name in names:
        coverage.models += 1
        try:
            model = make_model(name, meta=True)
        except ValueError as error:  # its constructor may read values, which meta tensors do not have
            coverage.failed[name] = str(error)
            continue
        coverage.parameters[name] = sum(p.numel() for p in model.parameters())
        layouts[name] = layout_of(model)
    by_size = sorted(layouts, key=lambda name: (coverage.parameters[name], name))
    for base, motivated in itertools.combinations(by_size, 2):
        if coverage.parameters[base] == coverage.parameters[motivated]:
            continue
        if nests_plainly(layouts[base], layouts[motivated]):
            coverage.plain.append((base, motivated))
        elif size_free(base) == size_free(motivated):
            coverage.siblings.append((base, motivated))
        else:
            continue
        try:
            find_map(base, motivated, layouts[base], layouts[motivated])
            coverage.mapped.append((base, motivated))
        except WeightMapError as error:
            coverage.refused[base, motivated] = error.faults
    return coverage


def nests_plainly(base: Layout, motivated: Layout) -> bool:
    """Return True if every tensor of the base fits into the one of the same name.

    >>> nests_plainly(Layout({"a": (2, 3)}), Layout({"a": (2, 4), "b": (1,)}))
    True
    """
    return all(name in motivated and fits(shape, motivated[name]) for name, shape in base.items())


def size_free(name: str) -> str:
    """Replace the size in a model name.

    >>> size_free("resnet50d") == size_free("resnet101d"), size_free("vgg11_bn") == size_free("vgg19")
    (True, False)
    >>> size_free("vit_tiny_patch16_224"), size_free("swin_tiny_patch4_window7_224")
    ('vit_*_patch16_224', 'swin_*_patch4_window7_224')
    """
    words = []
    for word in name.split("_"):
        if _SIZE_WORDS.match(word):
            words.append("*")
        elif re.match(r"^(patch|window|p|s|r|reg)\d+$", word) or (word.isdigit() and int(word) >= 160):
            words.append(word)
        else:
            words.append(re.sub(r"\d+", "#", word))
    return "_".join(words)


_KINDS = (
    (r"heads are", "width of heads"),
    (r"groups are", "width of groups"),
    (r"positions must be", "other image or window size"),
    (r"cannot be sliced: .*concat", "concatenation"),
    (r"cannot be sliced|splits or joins its channels", "channels split inside a layer"),
    (r"window|partition|block_size|area|shift_size", "other window"),
    (r"is (not )?in the motivated model|of one construction|is [\w.]+ in the base", "other construction"),
    (r"the base has \d+ blocks", "the base is deeper"),
    (r"does not fit|its parts", "the base is wider, or another kernel"),
    (r"has no", "other construction"),
    (r"num_prefix_tokens", "other tokens"),
    (r"(has_skip|shortcut) is", "other shortcuts"),
    (r"(stride|kernel_size|padding|patch_size|dilation|ceil_mode) is", "other kernel or stride"),
)


def _kind_of_reason(fault: str) -> str:
    return next((kind for pattern, kind in _KINDS if re.search(pattern, fault)), "other setting")
