"""How much of timm can be mapped: every pair of size siblings of a timm module, mapped or refused with its reasons.

Models are built on the meta device. `motivation.tools.map_coverage` makes the table in the documentation of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import timm

from weight_maps.core import WeightMapError
from weight_maps.find import find_map, meta_model
from weight_maps.layout import Layout, layout_of

_SIZE_WORDS = re.compile(
    r"^(nano|pico|femto|atto|zepto|micro|mini|tiny|small|little|medium|betwixt|base|large|huge|giant|gigantic|plus|"
    r"x+tiny|x+small|x+large|x*[stlbm]|x+[sl]|ti|[smlx]+\d*|s\d+|m\d+|[bdefmt]\d+|n|h|g|w\d+)$"
)


@dataclass(frozen=True)
class Candidate:
    """A model with what a pair needs of it."""

    name: str
    parameters: int
    layout: Layout


@dataclass
class ModuleCoverage:
    """What was found for one timm module.

    Attributes:
        module: timm's file of models.
        models: how many models it has.
        plain: pairs with a plain nest: every name of the base is in the larger model, with no smaller a size on any
            axis.
        siblings: further pairs whose names differ in their size alone.
        mapped: pairs with a map.
        refused: pairs without, and all reasons.
        failed: models that cannot be built on the meta device, with the reason.
        parameters: how many each model has.
    """

    module: str
    models: int = 0
    plain: list[tuple[str, str]] = field(default_factory=list)
    siblings: list[tuple[str, str]] = field(default_factory=list)
    mapped: list[tuple[str, str]] = field(default_factory=list)
    refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs that were tried."""
        return self.plain + self.siblings

    def main_reasons(self, count: int = 3) -> list[str]:
        """The most frequent kinds of reasons for a refusal, each with an example."""
        kinds: Counter[str] = Counter()
        example: dict[str, str] = {}
        for faults in self.refused.values():
            for kind in {_kind_of_reason(fault) for fault in faults}:
                kinds[kind] += 1
                example.setdefault(kind, next(f for f in faults if _kind_of_reason(f) == kind))
        return [f"{kind} ({number})" for kind, number in kinds.most_common(count)]


def modules_of_timm() -> dict[str, list[str]]:
    """timm's model files with the names of their models, without deprecated names."""
    grouped: dict[str, list[str]] = {}
    for module in sorted(timm.list_modules()):
        grouped[module] = sorted(timm.list_models(module=module))
    return grouped


def cover(module: str, names: Iterable[str]) -> ModuleCoverage:
    """Try every pair of one timm module."""
    coverage = ModuleCoverage(module)
    models = []
    for name in names:
        coverage.models += 1
        try:
            model = meta_model(name)
        except Exception as error:  # noqa: BLE001  (a constructor may read values, which meta tensors do not have)
            coverage.failed[name] = f"{type(error).__name__}: {error}"
            continue
        models.append(Candidate(name, sum(p.numel() for p in model.parameters()), layout_of(model)))
    coverage.parameters = {one.name: one.parameters for one in models}
    models.sort(key=lambda one: (one.parameters, one.name))
    for number, base in enumerate(models):
        for motivated in models[number + 1 :]:
            if motivated.parameters == base.parameters:
                continue
            if nests_plainly(base.layout, motivated.layout):
                coverage.plain.append((base.name, motivated.name))
            elif size_free(base.name) == size_free(motivated.name):
                coverage.siblings.append((base.name, motivated.name))
            else:
                continue
            pair = base.name, motivated.name
            try:
                find_map(*pair, base.layout, motivated.layout)
                coverage.mapped.append(pair)
            except WeightMapError as error:
                coverage.refused[pair] = error.faults
    return coverage


def nests_plainly(base: Layout, motivated: Layout) -> bool:
    """Whether every tensor of the base fits into the one of the same name.

    >>> nests_plainly(Layout({"a": (2, 3)}), Layout({"a": (2, 4), "b": (1,)}))
    True
    """
    return all(
        name in motivated and len(shape) == len(motivated[name]) and _fits(shape, motivated[name])
        for name, shape in base.items()
    )


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    return all(a <= b for a, b in zip(small, large, strict=True))


def size_free(name: str) -> str:
    """A model name without its size.

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
