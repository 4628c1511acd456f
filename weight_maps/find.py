"""Find the map of one model inside another by the names of the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from weight_maps import auto, efficientnet, resnet, vit  # noqa: F401  (they register their maps)
from weight_maps.core import WeightMap, WeightMapError
from weight_maps.layout import Layout, layout_of
from weight_maps.registry import map_for, map_named
from weight_maps.size_limit import ModelSizeError, limited_size

Model = nn.Module | Mapping[str, object]


def find_map(
    base_name: str,
    motivated_name: str,
    base: Model | None = None,
    motivated: Model | None = None,
    *,
    map_name: str | None = None,
    placement: str = "paper",
) -> WeightMap:
    """Build and check the map of one timm model inside another.

    Args:
        base_name, motivated_name: timm model names; they choose the map.
        base, motivated: the two models, their state dicts, or their shapes. Meta tensors are enough. Default: the
            models that timm makes for the names. A state dict does not show the number of heads: it is taken from the
            timm model of the name.
        map_name: name of the map to use instead; see `registered_maps`.
        placement: where the base's blocks lie in a deeper model: ``paper``, ``first``, ``last`` or ``even``.

    Raises:
        WeightMapError: the motivated model does not contain the base; the error lists every reason.

    >>> import timm, torch
    >>> small = timm.create_model("vit_tiny_patch16_224", depth=2)
    >>> large = timm.create_model("vit_small_patch16_224", depth=3)
    >>> weights_map = find_map("vit_tiny_patch16_224", "vit_small_patch16_224", small, large)
    >>> weights_map.expand(small, large)                      # modules, or their state dicts
    >>> torch.equal(large.blocks[2].mlp.fc1.weight[:768, :192], small.blocks[1].mlp.fc1.weight)
    True
    >>> weights_map.extract(large.state_dict(), small.state_dict())
    """
    entry = map_named(map_name) if map_name else map_for(base_name, motivated_name)
    layouts = model_layout(base_name, base), model_layout(motivated_name, motivated)
    return entry.build(*layouts, placement, f"{motivated_name} does not contain {base_name} (map {entry.name!r}):")


def model_layout(name: str, model: Model | None = None) -> Layout:
    """Return the layout of a model; a state dict borrows the facts of the timm model of that name, if it fits.

    Raises:
        WeightMapError: no model is given, and timm has none of that name.
    """
    if model is None:
        if not timm.is_model(name):
            raise WeightMapError("no such model", [f"timm has no model {name!r}"])
        return layout_of(make_model(name, meta=True))
    layout = layout_of(model)
    if not layout.modules and timm.is_model(name):
        made = layout_of(make_model(name, meta=True))
        if _same_model(name, layout, made):
            return Layout(layout.shapes, made.modules, made.buffers)
    return layout


def make_model(name: str, meta: bool = False, **kwargs: Any) -> nn.Module:
    """Make a timm model.

    Args:
        meta: on the meta device: no memory for its weights, and the random streams stay untouched.

    Raises:
        ValueError: timm cannot make it; the message is one line.
    """
    try:
        with limited_size(name, kwargs):
            if not meta:
                return timm.create_model(name, **kwargs)
            with torch.random.fork_rng(devices=[]):
                try:
                    with torch.device("meta"):
                        return timm.create_model(name, **kwargs)
                except NotImplementedError:  # timm 1.0.29 computes the widths of RegNets by tensors
                    return timm.create_model(name, **kwargs).to("meta")
    except ModelSizeError:
        raise
    except Exception as error:  # a constructor may raise anything for arguments that it does not take
        raise ValueError(f"{name} cannot be made: {type(error).__name__}: {error}") from error


def image_size(model: Any, **kwargs: Any) -> tuple[int, ...]:
    """Return ``(C, H, W)`` of images for a model, by its arguments ``in_chans`` and ``img_size`` or its config."""
    config = dict(getattr(model, "pretrained_cfg", None) or {})
    channels, *sides = config.get("input_size") or (3, 224, 224)
    if size := kwargs.get("img_size"):
        sides = [size, size] if isinstance(size, int) else list(size)
    return (kwargs.get("in_chans") or channels, *sides)


def _same_model(name: str, one: Layout, other: Layout) -> bool:
    """Return True if both have the same tensors, apart from the sizes of the first layer and the head."""
    config = timm.get_pretrained_cfg(name)
    ends: list[str] = []
    for layers in (config.first_conv, config.classifier) if config else ():
        ends += [layers] if isinstance(layers, str) else [*(layers or ())]
    inner = [n for n in one if not n.startswith(tuple(ends))] if ends else list(one)
    return one.keys() == other.keys() and all(one[n] == other[n] for n in inner)
