"""Build the weights map of a run, in the tensor names of the modules that are trained."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from timm.utils import unwrap_model

from weight_maps import Link, WeightMap, find_map, fits, leading, shapes_of


def model_map(args: Namespace, base: Any, motivated: Any) -> WeightMap:
    """Build and check the map of two models that the options ask for."""
    return find_map(
        args.model,
        args.motivated_model,
        base,
        motivated,
        map_name=args.motivation_map,
        placement=args.motivation_placement,
    )


def task_map(args: Namespace, base_task: Any, motivated_task: Any) -> WeightMap:
    """Build and check the map of two tasks, in the names of their trainable modules.

    Feature distillation trains the model as a child ``student`` beside a projection. Where both tasks have one, the
    base's is the leading slice of the motivated model's.
    """
    base, motivated = unwrap_model(base_task.get_eval_model()), unwrap_model(motivated_task.get_eval_model())
    weights_map = model_map(args, base, motivated)
    whole = unwrap_model(base_task.get_trainable_module())
    if whole is base:
        return weights_map
    prefix = next(f"{name}." for name, child in whole.named_children() if child is base)
    weights_map = weights_map.prefixed(prefix)
    small = shapes_of(whole)
    large = shapes_of(unwrap_model(motivated_task.get_trainable_module()))
    links, unmapped = list(weights_map.links), dict(weights_map.unmapped)
    for name, shape in small.items():
        if name.startswith(prefix):
            continue
        if name in large and fits(shape, large[name]):
            links.append(Link(name, name, leading(shape)))
        else:
            unmapped[name] = "the motivated model has no such projection"
    return WeightMap(tuple(links), unmapped)
