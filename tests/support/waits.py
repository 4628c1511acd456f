"""What makes the host wait for a device, recorded as it happens."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten.is_nonzero.default, aten._unique2.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations with a result on the host, or of a size that depends on values: a number, a condition, a selection."""

TO_HOST = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}
"""Methods that copy to the host; on a CPU they are no operations."""

FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray}
"""Functions that copy numbers of the host to a device, if they are given one."""


class _Operations(TorchDispatchMode):
    def __init__(self, record):
        super().__init__()
        self._record = record

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        indices = args[1] if func in (aten.index.Tensor, aten.index_put_.default) else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if func in READS or by_mask or _is_waiting_copy(func, args, kwargs):
            self._record(func, args[0])
        return func(*args, **kwargs)


def _is_waiting_copy(func, args, kwargs):
    """Whether it copies to or from a device and holds the host up: not with ``non_blocking`` and pinned memory."""
    if func is aten.copy_.default:
        source, target = args[1], args[0].device
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    elif func is aten._to_copy.default:
        source, target = args[0], kwargs.get("device") or args[0].device
        non_blocking = kwargs.get("non_blocking", False)
    else:
        return False
    is_pageable = source.device.type == "cpu" and not source.is_pinned()
    return source.device.type != target.type and (is_pageable or not non_blocking)


class _Methods(TorchFunctionMode):
    def __init__(self, record):
        super().__init__()
        self._record = record

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in TO_HOST:
            self._record(func, args[0])
        elif func in FROM_HOST and (kwargs or {}).get("device") not in (None, "cpu"):
            self._record(func, result)
        return result


class HostReads:
    """A context that calls ``record(name)`` for each of these, except for tensors that are on the host anyway.

    Args:
        on_host: ``(tensor) -> bool`` for tensors that would be on the host of a GPU too.
    """

    def __init__(self, record, on_host):
        def unless_on_host(func, tensor):
            if not on_host(tensor):
                record(f"{getattr(func, '__name__', func)} of {list(tensor.shape)}")

        self._modes = _Operations(unless_on_host), _Methods(unless_on_host)

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)


def is_on_host(tensor, run):
    """Return True for tensors on the host even beside a GPU: the step counters of torch's AdamW and timm's LAMB."""
    if run.device.type != "cpu":
        return tensor.device.type == "cpu"
    optimizers = [side.optimizer for side in run.pair.sides]
    kept = [values for one in optimizers for values in (*one.param_groups, *one.state.values())]
    return any(value is tensor for values in kept for value in values.values())
