"""The states of all random generators of a process: Python, NumPy, torch on the CPU and on the accelerator in use."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info


class RngState(NamedTuple):
    """States as the libraries return them: cheap to take and to send between processes.

    Attributes:
        device: type and state of the accelerator's current device (``cuda``, ``mps``, ``xpu``, ``npu``); None where
            none is in use.
    """

    python: Any
    numpy: Any
    torch: np.ndarray
    device: tuple[str, Tensor] | None


def _accelerator() -> tuple[str, Any] | None:
    """Return the type of the accelerator and torch's module for it; None if this process does not use it.

    A data worker must not touch it. MPS has nothing to initialize.
    """
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or get_worker_info() is not None:
        return None
    module = torch.get_device_module(accelerator)
    is_in_use = getattr(module, "is_initialized", module.is_available)
    return (accelerator.type, module) if is_in_use() else None


def get_rng_state() -> RngState:
    """Return the states of this process (takes some 20 microseconds)."""
    accelerator, device = _accelerator(), None
    if accelerator is not None:
        device = accelerator[0], accelerator[1].get_rng_state()
    return RngState(random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state().numpy(), device)


def set_rng_state(state: RngState) -> None:
    """Restore what `get_rng_state` returned; the state of an accelerator that is not in use here is left out."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(torch.from_numpy(state.torch))
    accelerator = _accelerator()
    if state.device is not None and accelerator is not None and state.device[0] == accelerator[0]:
        accelerator[1].set_rng_state(state.device[1])


def rng_to_dict(state: RngState) -> dict[str, Any]:
    """Convert to plain containers and tensors, for a checkpoint that is loadable with ``weights_only=True``.

    The accelerator's state is under its type.
    """
    version, internal, gauss = state.python
    name, keys, position, has_gauss, cached = state.numpy
    plain: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.from_numpy(state.torch),
    }
    return plain if state.device is None else plain | dict([state.device])


def rng_from_dict(plain: dict[str, Any]) -> RngState:
    """Invert `rng_to_dict`."""
    version, internal, gauss = plain["python"]
    name, keys, position, has_gauss, cached = plain["numpy"]
    numpy_state = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    device = next(((key, value) for key, value in plain.items() if key not in RngState._fields), None)
    return RngState((version, tuple(internal), gauss), numpy_state, plain["torch"].numpy(), device)


@contextmanager
def fork_rng() -> Iterator[None]:
    """Restore all random states on exit, as `torch.random.fork_rng` does for torch's alone.

    Everything that only a motivated run does happens inside, so that the condition ``never`` trains the base exactly
    as a plain run does.
    """
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
