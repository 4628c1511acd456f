"""The message that ranks exchange at every update, on its way while the backward pass runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor

from motivation.method.records import DeferredScalar


class LossMessage:
    """Sum the loss of an update and the votes to stop over all ranks, and tell all ranks the first one's gradient norm.

    Making it starts the sum, after which the backward pass is to be enqueued. Neither stands in the way of the other:
    the compute stream of a GPU never waits for the sum.

    Args:
        loss: mean over this rank's images, 0-d.
        stop_vote: True if this rank has been asked to stop.
        world_size: number of ranks.
        norm: norm of the gradients, 0-d, which different GPUs may round differently; None if it was not measured.
    """

    def __init__(self, loss: Tensor, stop_vote: bool, world_size: int, norm: Tensor | None = None):
        self._world_size = world_size
        votes = loss.new_full((), float(stop_vote))
        norms = [] if norm is None else [norm if dist.get_rank() == 0 else torch.zeros_like(norm)]
        self._sum = torch.stack([loss, votes, *norms])
        self._work = dist.all_reduce(self._sum, async_op=True)

    def receive(self) -> tuple[DeferredScalar, DeferredScalar, DeferredScalar | None]:
        """Start the copy to the host; return the mean of the loss over ranks, the number of votes, and the norm.

        On the CPU this waits for the sum, so call it when the backward pass is done or enqueued.
        """
        with _beside_computation(self._sum):
            self._work.wait()
            loss, votes, *norms = self._sum
            norm = DeferredScalar(norms[0]) if norms else None
            return DeferredScalar(loss / self._world_size), DeferredScalar(votes), norm


def _beside_computation(tensor: Tensor) -> AbstractContextManager:
    """Make the context of work on a tensor of a GPU that the current stream does not wait for."""
    if tensor.device.type != "cuda":
        return nullcontext()
    stream = _copy_stream(tensor.device)
    tensor.record_stream(stream)  # its memory is the current stream's, to be used again when the copy is done
    return torch.cuda.stream(stream)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
