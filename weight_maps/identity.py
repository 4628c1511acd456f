"""Let the blocks that only the motivated model has begin as the identity (ours).

The last layer of each of their residual branches is set to zero, as in ResNets whose blocks begin with the last
BatchNorm at zero (Goyal et al. 2017, "Accurate, Large Minibatch SGD"). Where the motivated model is deeper and not
wider, it then computes what the base computes when it takes over for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weight_maps.core import WeightMap, WeightMapError
from weight_maps.depth import extra_blocks


@torch.no_grad()
def begin_as_identity(weights_map: WeightMap, motivated: nn.Module, images: Tensor) -> list[str]:
    """Set the last layers of the motivated model's own blocks to zero, in place.

    Which layers are the last is found by computing. With all its parameters at zero a block must return its input; then
    layer by layer gets its parameters back, unless the block no longer does. What stays at zero has a gradient, because
    what comes before it is not zero.

    Args:
        weights_map: a checked map of the base in ``motivated``.
        motivated: the motivated model; its mode and all random streams stay as they are.
        images: ``[B, C, H, W]``, on its device.

    Returns:
        The paths of the blocks, in the order of the model.

    Raises:
        WeightMapError: it has no such blocks, or one of them is never the identity.
    """
    names = (link.motivated for link in weights_map.links)
    blocks = {path: motivated.get_submodule(path) for path in extra_blocks(names, motivated.state_dict())}
    if not blocks:
        raise WeightMapError("the motivated model has no blocks of its own that could begin at zero", [])
    with _evaluating(motivated):
        inputs = _inputs(blocks, motivated, images)
        faults = [path for path, block in blocks.items() if path not in inputs or not _zero_last(block, *inputs[path])]
    if faults:
        raise WeightMapError("blocks that do not return their input when all their weights are zero:", faults)
    return list(blocks)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch the model to evaluation inside the context."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _inputs(
    blocks: Mapping[str, nn.Module], model: nn.Module, images: Tensor
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return what each block is called with, by position and by name."""
    found = {}

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found[block] = (args[0].clone(), *args[1:]), kwargs  # a block may change its input in place

    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks.values()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {path: found[block] for path, block in blocks.items() if block in found}


def _zero_last(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Set a block's last layers to zero; return False, and leave it as it was, if it is never the identity."""
    layers = [list(module.parameters(recurse=False)) for module in block.modules()]
    values = [[tensor.clone() for tensor in layer] for layer in layers]

    def fill(layer: list[nn.Parameter], with_values: list[Tensor] | None) -> None:
        for place, tensor in enumerate(layer):
            tensor.zero_() if with_values is None else tensor.copy_(with_values[place])

    def is_identity() -> bool:
        output = block(args[0].clone(), *args[1:], **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        return isinstance(output, Tensor) and torch.equal(output, args[0])

    for layer in layers:
        fill(layer, None)
    found = is_identity()
    for layer, old in zip(layers, values, strict=True):
        fill(layer, old)
        if found and layer and not is_identity():
            fill(layer, None)
    return found
