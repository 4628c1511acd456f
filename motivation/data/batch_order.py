"""The order of an epoch's images: a batch sampler that can skip batches, and a sampler that can replay its passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motivation.method.random_states import RngState, get_rng_state, set_rng_state


class ResumableBatchSampler:
    """Wraps a batch sampler; the next epoch can start at a later batch, and the latest batches are remembered.

    Args:
        batch_sampler: the one to wrap.
        memory: number of batches to remember.

    Attributes:
        recent: indices of the images of the latest batches, by the number of the batch.
    """

    def __init__(self, batch_sampler: Any, memory: int):
        self.batch_sampler, self._memory = batch_sampler, memory
        self.recent: dict[int, list[int]] = {}
        self._skip_batches = self._empty_batches = 0
        self._numbered: Iterator[tuple[int, Any]] = iter(())

    def __getattr__(self, name: str) -> Any:
        if name == "batch_sampler":  # not there yet: while copied or unpickled
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def start_at(self, skip_batches: int, empty_batches: int) -> None:
        """Let the next epoch yield ``empty_batches`` empty batches and then start at batch ``skip_batches``."""
        self._skip_batches, self._empty_batches = skip_batches, empty_batches

    def skip_now(self) -> None:
        """Draw the batches to skip now instead of at the first ``next``."""
        skip, self._skip_batches = self._skip_batches, 0
        for _ in itertools.islice(self._numbered, skip):
            pass

    def __iter__(self) -> Iterator[Any]:
        self.recent = {}
        self._numbered = enumerate(self.batch_sampler)
        return self._one_epoch(self._numbered)

    def _one_epoch(self, numbered: Iterator[tuple[int, Any]]) -> Iterator[Any]:
        self.skip_now()
        while self._empty_batches:
            self._empty_batches -= 1
            yield []
        for index, batch in numbered:
            self.recent[index] = batch
            self.recent.pop(index - self._memory, None)
            yield batch


class ReplayableSampler:
    """Wraps a sampler and records the RNG state at the start of each pass but the epoch's first.

    An epoch that is longer than the data set takes several passes over it, and each draws its order when it starts.

    Args:
        batch_sampler: its ``sampler`` is replaced by this one; a batch sampler without one is left alone.

    Attributes:
        pass_starts: the recorded states of this epoch.
    """

    def __init__(self, batch_sampler: Any):
        self.sampler: Any = getattr(batch_sampler, "sampler", None)
        self.pass_starts: list[RngState] = []
        self._replay: Iterator[RngState] = iter(())
        self._passes = 0
        if self.sampler is not None:
            batch_sampler.sampler = self

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":  # not there yet: while copied or unpickled
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def __len__(self) -> int:
        return len(self.sampler)

    @contextmanager
    def start_epoch(self, replay: list[RngState]) -> Iterator[None]:
        """Start an epoch. Passes that begin inside the context take their order from the states in ``replay``."""
        self.pass_starts, self._passes, self._replay = [], 0, iter(replay)
        try:
            yield
        finally:
            self._replay = iter(())

    def __iter__(self) -> Iterator[Any]:
        self._passes += 1
        if self._passes == 1:
            yield from self.sampler
            return
        now = get_rng_state()
        recorded = next(self._replay, None)
        self.pass_starts.append(recorded or now)
        if recorded is None:
            yield from self.sampler
            return
        set_rng_state(recorded)
        indices = iter(self.sampler)
        first = list(itertools.islice(indices, 1))  # draws the seed of the order
        set_rng_state(now)
        yield from itertools.chain(first, indices)
