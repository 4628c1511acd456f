"""Try an update of a model before the training, and leave everything as it was.

The motivated model may be trained for the first time hours after the start. A trial brings its compilation, and an
error for want of memory, to the start of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from motivation.data.update_loader import MicroBatch
from motivation.method.random_states import fork_rng
from motivation.training.learner import Learner


def peak_memory_of_update(learner: Learner, batch: MicroBatch) -> int | None:
    """Do the forward and backward passes of an update; return the largest number of bytes in use during them.

    All that is allocated on the device counts, so the other model too. The optimizer does not step: what it keeps for
    each parameter counts only if it is there already.

    Args:
        learner: not changed.
        batch: a micro-batch of an update.

    Returns:
        None if torch does not know, as on the CPU.
    """
    device = next(learner.model.parameters()).device
    module = torch.get_device_module(device)
    is_known = hasattr(module, "max_memory_allocated")
    if is_known:
        module.reset_peak_memory_stats(device)
    with unchanged(learner):
        for _ in range(min(2, batch.accum_steps)):  # from the second on, there are gradients during the forward pass
            learner.rehearse(batch)
    return module.max_memory_allocated(device) if is_known else None


@contextmanager
def unchanged(learner: Learner) -> Iterator[None]:
    """Restore on exit what forward and backward passes change: buffers, gradients, random states.

    The model is in training mode inside, and has no gradients.
    """
    module = learner.task.get_trainable_module()
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    with fork_rng(), _without_sync_of_buffers(module):
        module.train()
        for parameter, _ in gradients:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for part, mode in modes:
                part.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


@contextmanager
def _without_sync_of_buffers(module: nn.Module) -> Iterator[None]:
    """Keep DDP from sending rank 0's buffers before a forward pass, and let it do so before the next one outside."""
    if not isinstance(module, DistributedDataParallel):
        yield
        return
    syncs, module.require_forward_param_sync = module.require_forward_param_sync, False
    try:
        yield
    finally:
        module.require_forward_param_sync = syncs
