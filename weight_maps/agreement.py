"""Differences between two models that no slice can bridge: heads, groups, strides, windows, positions, construction.

Each module of the base is compared with its counterpart in the motivated model. Many blocks differ in the same way, so
a reason is given once, with the first place and how many more there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from weight_maps.depth import BlockAlignment, name_of, words_of
from weight_maps.layout import EQUAL, Facts, Layout, role_of, same_setting
from weight_maps.parts import COUNTS_OF, SPLIT_AT, unsliceable

COUNTS = ("num_heads", "heads", "num_kv_heads", "num_attention_heads", "n_heads")
WIDTHS_ALONE = ("head_dim", "dim_head", "attention_head_size", "key_value_proj_dim", "head_size")
HEAD_WIDTHS = (*WIDTHS_ALONE, "dim_head_qk", "dim_head_v", "key_dim", "val_dim", "value_dim")
WIDTHS = ("dim", "embed_dim", "dim_out", "in_features", "attn_dim")

_NUMBERED_BLOCK = re.compile(r"^conv\d+_\d+$")  # blocks of DPNs
_POSITION = re.compile(
    r"(^|[._])(pos_emb\w*|\w+_pos|rel\w*_(h|w|table)|(height|width)_rel|relative_position\w*|attention_bias\w*|position\w*)$"
)
_TOKEN_MIXERS = re.compile(
    r"(^|\.)(mlp_tokens\.fc1\.weight|(mlp_tokens\.fc2|linear_tokens|gate\.proj)\.(weight|bias))$"
)


def disagreements(blocks: BlockAlignment) -> list[str]:
    """Return the reasons why the base cannot lie inside the motivated model, though its shapes may fit."""
    return summarised([*_of_modules(blocks), *_of_positions(blocks), *_of_construction(blocks)])


def _of_modules(blocks: BlockAlignment) -> Iterator[tuple[str, str]]:
    base, motivated, align, too_deep = blocks.base, blocks.motivated, blocks.counterpart, blocks.too_deep
    owners, owners_there = _owners(base), _owners(motivated)
    wider = any(shape != motivated.get(align(name), shape) for name, shape in base.items())
    met = {""}
    other: tuple[str, ...] = ()
    for path, facts in base.modules.items():
        target = align(path)
        met.add(target)
        if other and path.startswith(other):  # inside a module that is of another kind as a whole
            continue
        there = motivated.modules.get(target)
        if there is None:
            if not _does_nothing(facts, path, owners) and not (too_deep and path.startswith(too_deep)):
                yield path, f"{facts.kind} is not in the motivated model"
                other = (*other, path + ".")
        elif role_of(facts.kind) != role_of(there.kind):
            yield path, f"is {facts.kind} in the base, {there.kind} in the motivated model"
            other = (*other, path + ".")
        else:
            yield from ((path, reason) for reason in _between(facts, there, wider))
            reason = unsliceable(facts.kind)
            if reason and _shapes_below(base, path) != _shapes_below(motivated, target):
                yield path, f"{facts.kind} differs in shape, and cannot be sliced: {reason}"
    for path, facts in motivated.modules.items():
        parent, _, word = path.rpartition(".")
        unmet = path not in met and parent in met and not word.isdigit() and path not in owners_there
        if unmet and base.modules and not _does_nothing(facts, path, owners_there):
            yield path, f"{facts.kind} is in the motivated model only, inside a block that both have"


def _does_nothing(facts: Facts, path: str, owners: set[str]) -> bool:
    """Return True if a module changes nothing by itself: dropout, an identity, a container without tensors."""
    return path not in owners and (role_of(facts.kind) == "Identity" or facts.kind in _CONTAINERS)


_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "ParameterList")


def _between(mine: Facts, theirs: Facts, wider: bool) -> Iterator[str]:
    """Yield the differences between a module and its counterpart of the same kind."""
    for name in EQUAL:
        if name in mine.settings and name in theirs.settings:
            a, b = mine.settings[name], theirs.settings[name]
            if not same_setting(a, b):
                yield f"{name} is {a}, in the motivated model {b}"
    yield from (reason for reason in (_heads(mine, theirs), _groups(mine, theirs)) if reason)
    for name in SPLIT_AT.get(mine.kind, ()):
        if (a := mine.settings.get(name)) != (b := theirs.settings.get(name)):
            where = f"splits or joins its channels at {a} ({name}), in the motivated model at {b}"
            yield f"{mine.kind} {where}: the base's would move"
    for name in COUNTS_OF.get(mine.kind, ()):
        if (a := mine.settings.get(name)) != (b := theirs.settings.get(name)):
            yield f"{mine.kind}: {name} is {a}, in the motivated model {b}"
    if wider and "catavgmax" in (mine.settings.get("pool_type"), mine.settings.get("global_pool")):
        yield "catavgmax concatenates two poolings, and the second half would move"


def _owners(layout: Layout) -> set[str]:
    """Return the paths of the modules that have tensors, in themselves or below."""
    owners = {""}
    for name in layout:
        words = words_of(name)
        owners.update(name_of(words[:n]) for n in range(1, len(words)))
    return owners


def _shapes_below(layout: Layout, path: str) -> dict[str, tuple[int, ...]]:
    prefix = path + "." if path else ""
    return {name[len(prefix) :]: shape for name, shape in layout.items() if name.startswith(prefix)}


def _heads(base: Facts, motivated: Facts) -> str | None:
    """Return the difference in the width of attention heads, if there is one."""
    mine, theirs = base.settings, motivated.settings
    count = next((n for n in COUNTS if isinstance(mine.get(n), int) and isinstance(theirs.get(n), int)), None)
    for name in HEAD_WIDTHS if count else WIDTHS_ALONE:
        if isinstance(mine.get(name), int) and isinstance(theirs.get(name), int):
            if mine[name] != theirs[name]:
                return f"heads are {mine[name]} wide ({name}), in the motivated model {theirs[name]}"
            if name in WIDTHS_ALONE:
                return None
    if count is None:
        return None
    for name in WIDTHS:
        if isinstance(mine.get(name), int) and isinstance(theirs.get(name), int):
            if mine[name] * theirs[count] != theirs[name] * mine[count]:
                small, large = mine[name] / mine[count], theirs[name] / theirs[count]
                return f"heads are {small:g} wide, in the motivated model {large:g}"
            return None
    small, large = mine.get("scale"), theirs.get("scale")
    if isinstance(small, float) and isinstance(large, float) and abs(small / large - 1) > 1e-6:
        return f"heads are {small**-2:.0f} wide, in the motivated model {large**-2:.0f}"
    return None


def _groups(base: Facts, motivated: Facts) -> str | None:
    """Return the difference in the groups of a convolution or normalisation, if there is one."""
    mine, theirs = base.settings, motivated.settings
    if all(isinstance(s.get(n), int) for s in (mine, theirs) for n in ("groups", "in_channels", "out_channels")):
        small, large = ((s["in_channels"] // s["groups"], s["out_channels"] // s["groups"]) for s in (mine, theirs))
        if mine["groups"] == theirs["groups"] == 1 or small == large:
            return None
        return f"groups are {small[0]} channels wide, in the motivated model {large[0]}"
    channels = next((n for n in ("num_channels", "num_features") if n in mine and n in theirs), None)
    count = next((n for n in ("num_groups", "groups") if n in mine and n in theirs), None)
    if channels and count and not mine[count] == theirs[count] == 1:
        small_width, large_width = mine[channels] // (mine[count] or 1), theirs[channels] // (theirs[count] or 1)
        if small_width != large_width:
            return f"groups are {small_width} channels wide, in the motivated model {large_width}"
    return None


def _of_positions(blocks: BlockAlignment) -> Iterator[tuple[str, str]]:
    base = blocks.base
    widths = _known_widths(blocks)
    for name, shape in base.items():
        there = blocks.motivated.get(blocks.counterpart(name))
        if there is None or len(there) != len(shape):
            continue
        sliced = [axis for axis, (a, b) in enumerate(zip(shape, there, strict=True)) if a < b]
        if _POSITION.search(name) and len(shape) > 1:
            channels = [axis for axis in sliced if (shape[axis], there[axis]) in widths]
            if not base.modules:
                channels = [len(shape) - 1]
            if len(sliced) > 1 or set(sliced) - set(channels):
                yield name, f"is {list(shape)}, in the motivated model {list(there)}: {_SAME_SIZE}"
        elif (match := _TOKEN_MIXERS.search(name)) and (axis := _token_axis(match[2])) in sliced:
            yield name, f"mixes {shape[axis]} positions, in the motivated model {there[axis]}: {_SAME_SIZE}"


def _known_widths(blocks: BlockAlignment) -> set[tuple[int, int]]:
    """Return the sizes that are numbers of channels or heads, each with that of the counterpart."""
    names = (*COUNTS, *WIDTHS, *HEAD_WIDTHS, "num_features", "out_features", "out_channels", "in_channels")
    pairs = set()
    for path, facts in blocks.base.modules.items():
        there = blocks.motivated.modules.get(blocks.counterpart(path))
        if there is None:
            continue
        for name in names:
            a, b = facts.settings.get(name), there.settings.get(name)
            if isinstance(a, int) and isinstance(b, int):
                pairs.add((a, b))
    return pairs


_SAME_SIZE = "positions must be the same; build both for one image and window size"


def _token_axis(layer: str) -> int:
    """Return the axis of positions in a token-mixing layer: inputs of the first layer, outputs of the others."""
    return 1 if layer.endswith("fc1.weight") else 0


def _of_construction(blocks: BlockAlignment) -> Iterator[tuple[str, str]]:
    """Yield the tensors that only the motivated model has, in modules that both have."""
    counterparts = dict.fromkeys(map(blocks.counterpart, blocks.base), ())
    shared = _owners(Layout(counterparts))
    for name in blocks.motivated:
        if name in counterparts:
            continue
        words = words_of(name)
        depth = next(n for n in range(len(words) - 1, -1, -1) if name_of(words[:n]) in shared)
        if not words[depth].isdigit() and not _NUMBERED_BLOCK.match(words[depth]):
            yield name_of(words[: depth + 1]), "is in the motivated model only, inside a block that both have"


def summarised(found: list[tuple[str, str]]) -> list[str]:
    """Return each reason once, with its first place and how many more there are like it.

    Args:
        found: pairs of a place (a tensor or module) and a reason. Reasons that differ in numbers alone are alike.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for place, reason in found:
        kind = re.sub(r"\d+", "N", place), re.sub(r"\d+", "N", reason)
        alike.setdefault(kind, []).append(f"{place or 'model'}: {reason}")
    counts = [(lines[0], len(set(lines)) - 1) for lines in alike.values()]
    return [line + (f" (and {more} more like it)" if more else "") for line, more in counts]
