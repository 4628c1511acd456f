"""The states of all random generators of a process: Python, NumPy, torch on the CPU and on the current CUDA device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RngState = tuple[Any, Any, np.ndarray, Any]
"""States of Python, NumPy, torch and CUDA as the libraries return them: cheap to take and to send between processes."""


def get_rng_state() -> RngState:
    """Return the states of this process (takes some 20 microseconds)."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state().numpy(), cuda


def set_rng_state(state: RngState) -> None:
    """Restore what `get_rng_state` returned."""
    python_state, numpy_state, torch_state, cuda_state = state
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch.from_numpy(torch_state))
    if cuda_state is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda_state)


def rng_to_dict(state: RngState) -> dict[str, Any]:
    """Convert to plain containers and tensors, for a checkpoint that is loadable with ``weights_only=True``."""
    (version, internal, gauss), (name, keys, position, has_gauss, cached), torch_state, cuda_state = state
    plain: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.from_numpy(torch_state),
    }
    return plain if cuda_state is None else plain | {"cuda": cuda_state}


def rng_from_dict(plain: dict[str, Any]) -> RngState:
    """Invert `rng_to_dict`."""
    version, internal, gauss = plain["python"]
    name, keys, position, has_gauss, cached = plain["numpy"]
    numpy_state = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    return (version, tuple(internal), gauss), numpy_state, plain["torch"].numpy(), plain.get("cuda")


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
