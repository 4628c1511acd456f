"""The random states of a process: Python, NumPy, torch on the CPU and on the CUDA device in use."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Snapshot = tuple[Any, Any, np.ndarray, Any]
"""What the libraries give, as they give it: cheap to take, and to send from a data worker."""


def snapshot() -> Snapshot:
    """All states of this process (some 20 microseconds)."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state().numpy(), cuda


def go_back_to(states: Snapshot) -> None:
    """Put back what `snapshot` gave."""
    of_python, of_numpy, of_torch, of_cuda = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(torch.from_numpy(of_torch))
    if of_cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(of_cuda)


def to_plain(states: Snapshot) -> dict[str, Any]:
    """A snapshot as plain containers and tensors (loadable with ``weights_only=True``)."""
    (version, internal, gauss), (name, keys, position, has_gauss, cached), of_torch, of_cuda = states
    plain: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.from_numpy(of_torch),
    }
    return plain if of_cuda is None else plain | {"cuda": of_cuda}


def from_plain(states: dict[str, Any]) -> Snapshot:
    """The inverse of `to_plain`."""
    version, internal, gauss = states["python"]
    name, keys, position, has_gauss, cached = states["numpy"]
    of_numpy = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    return (version, tuple(internal), gauss), of_numpy, states["torch"].numpy(), states.get("cuda")


def random_states() -> dict[str, Any]:
    """All states of this process, for a checkpoint."""
    return to_plain(snapshot())


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what `random_states` gave."""
    go_back_to(from_plain(states))


@contextmanager
def forked_random_states() -> Iterator[None]:
    """Whatever is drawn inside leaves the random streams outside as they were.

    Everything that only a motivated run does happens in here, so that the condition ``never`` trains the base exactly
    as a plain run does.
    """
    before = snapshot()
    try:
        yield
    finally:
        go_back_to(before)
