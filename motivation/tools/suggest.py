"""Which of timm's models contain a base, or are contained in a larger model, and what training the pair would cost.

``python -m weight_maps --suggest resnet50`` prints the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import timm
from timm.models import model_entrypoint

from motivation.errors import InputError
from motivation.method.conditions import streak_share
from motivation.tools.tables import MISSING, number, text_table
from motivation.training.flops import forward_flops, readable
from weight_maps.core import WeightMapError
from weight_maps.find import find_map, image_size, make_model
from weight_maps.layout import layout_of

KS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Suggestion:
    """A model that makes a pair with the one that was asked for.

    Attributes:
        name: timm name.
        parameters: number of its parameters.
        flops: of a forward pass at the base's image size; NaN where it does not take that.
        part: of the larger model's parameters that are the base's, from 0 to 1.
        relative: FLOPs of the larger model as a multiple of the base's.
    """

    name: str
    parameters: int
    flops: float
    part: float
    relative: float

    def cost(self, k: int) -> float:
        """Return the cost to expect of a motivated run, as a multiple of the base alone; see `streak_share`."""
        return 1 + streak_share(k) * (self.relative - 1)


def suggestions(name: str, inside: bool = False, names: Sequence[str] = ()) -> Iterator[Suggestion]:
    """Yield the models of the same timm module that contain a model.

    Args:
        name: timm name of the base; with ``inside`` of the larger model, whose bases are looked for.
        inside: look for bases.
        names: only models whose names match one of these, with wildcards; empty for all.

    Raises:
        InputError: timm does not know the model.
    """
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}; models of your own come with --plugins")
    module = model_entrypoint(name).__module__.rpartition(".")[2]
    asked = make_model(name, meta=True)
    layout, count = layout_of(asked), sum(parameter.numel() for parameter in asked.parameters())
    for other_name in sorted(timm.list_models(module=module)):
        if names and not any(fnmatchcase(other_name, pattern) for pattern in names):
            continue
        try:
            other = make_model(other_name, meta=True)
        except ValueError:
            continue
        other_count = sum(parameter.numel() for parameter in other.parameters())
        if other_count == count or (other_count < count) != inside:
            continue
        pair = (other_name, name) if inside else (name, other_name)
        layouts = (layout_of(other), layout) if inside else (layout, layout_of(other))
        try:
            find_map(*pair, *layouts)
        except WeightMapError:
            continue
        base, larger = (other, asked) if inside else (asked, other)
        size = image_size(base)
        flops = {id(model): _flops(model, size) for model in (base, larger)}
        part = min(count, other_count) / max(count, other_count)
        yield Suggestion(other_name, other_count, flops[id(other)], part, flops[id(larger)] / flops[id(base)])


def _flops(model: object, size: tuple[int, ...]) -> float:
    try:
        return forward_flops(model, size)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  (each model has its own way of refusing a size)
        return math.nan


def suggestion_table(name: str, inside: bool = False, names: Sequence[str] = (), budget: float | None = None) -> str:
    """Return the suggestions as text, by growing cost.

    Args:
        name, inside, names: see `suggestions`.
        budget: leave out pairs whose run with k = 2 costs more than this multiple of the base alone.

    Raises:
        InputError: there is none.
    """
    found = sorted(suggestions(name, inside, names), key=lambda one: (math.isnan(one.relative), one.relative))
    kept = [one for one in found if budget is None or one.cost(2) <= budget]
    if not kept:
        which = "is inside of it" if inside else "contains it"
        within = f" within {budget:g}x: the cheapest costs {found[0].cost(2):.2f}x" if found else ""
        raise InputError(f"{name}: no model of its timm module {which}{within}")
    rows = [["model", "parameters", "FLOPs", "base's part", *(f"k = {k}" for k in KS), "both alone"]]
    for one in kept:
        rows.append([
            one.name,
            f"{one.parameters / 1e6:.2f}M",
            MISSING if math.isnan(one.flops) else readable(one.flops),
            f"{one.part:.0%}",
            *(number(one.cost(k)) for k in KS),
            number(1 + one.relative),
        ])  # fmt: skip
    return text_table(rows) + (
        "\n\nk = ...: cost to expect of a motivated run, and both alone: of two runs, as multiples of the base alone; "
        "by 1/(k+1)!, in forward FLOPs at the base's image size"
    )
