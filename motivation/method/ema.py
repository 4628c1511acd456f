"""Keep the EMA of each model's weights as if it were updated at every update, without touching the idle model's (ours).

An update with decay d makes it::

    average = live + d * (average - live)

While a model is idle, the weights that only it has stand still. So n updates with decays d1 ... dn can be made up for
in one::

    average = live + (d1 * ... * dn) * (average - live)

Nothing is computed at an idle update but that product (`Side.pending_decay`); `apply_decay` applies it when the model
is needed again. The weights that it shares did change meanwhile: their average is copied from the other model's.
"""

from __future__ import annotations

from itertools import compress

import torch
from torch import nn

from motivation.method.copies import copy_all, grouped


@torch.no_grad()
def apply_decay(average: nn.Module, live: nn.Module, decay: float) -> None:
    """Move all averages towards the live weights, in place; integer buffers are copied.

    Args:
        average: of the same architecture as ``live``, possibly on another device.
        decay: product of the decays of the updates to make up for.
    """
    averages, lives = (list(model.state_dict().values()) for model in (average, live))
    is_float = [tensor.is_floating_point() for tensor in averages]
    targets = list(compress(averages, is_float))
    sources = [tensor.to(target) for tensor, target in zip(compress(lives, is_float), targets, strict=True)]
    if targets:
        torch._foreach_lerp_(targets, sources, 1.0 - decay)
    copy_all(grouped((lives[i], averages[i]) for i, floating in enumerate(is_float) if not floating))
