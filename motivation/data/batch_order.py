"""The order of an epoch's images: numbered batches that can be passed over, and passes over the images that begin anew
as they did before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motivation.method.random_states import Snapshot, go_back_to, snapshot


class NumberedBatches:
    """A batch sampler that can begin its next pass further on, and remembers the latest batches.

    Args:
        batches: the sampler inside.
        memory: how many batches to remember.
    """

    def __init__(self, batches: Any, memory: int):
        self.batches, self._memory = batches, memory
        self.recent: dict[int, list[int]] = {}
        self._first = self._blanks = 0
        self._numbered: Iterator[tuple[int, Any]] = iter(())

    def __getattr__(self, name: str) -> Any:
        if name == "batches":
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def begin_at(self, first: int, blanks: int) -> None:
        """Let the next pass begin with batch ``first``, after so many empty ones."""
        self._first, self._blanks = first, blanks

    def pass_over(self) -> None:
        """Pass over the batches before the first one now, not when it is asked for."""
        first, self._first = self._first, 0
        for _ in itertools.islice(self._numbered, first):
            pass

    def __iter__(self) -> Iterator[Any]:
        self.recent = {}
        self._numbered = enumerate(self.batches)
        return self._one_pass(self._numbered)

    def _one_pass(self, numbered: Iterator[tuple[int, Any]]) -> Iterator[Any]:
        self.pass_over()
        while self._blanks:
            self._blanks -= 1
            yield []
        for index, batch in numbered:
            self.recent[index] = batch
            self.recent.pop(index - self._memory, None)
            yield batch


class Passes:
    """Put in the place of a batch sampler's sampler of images, keeps the random states at which it began anew.

    Args:
        batches: the batch sampler; of some other kind, it is left alone.

    Attributes:
        begun_anew: the states, of this epoch; none in an epoch that passes once over the images.
    """

    def __init__(self, batches: Any):
        self.sampler: Any = getattr(batches, "sampler", None)
        self.begun_anew: list[Snapshot] = []
        self._known: Iterator[Snapshot] = iter(())
        self._begun = 0
        if self.sampler is not None:
            batches.sampler = self

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def __len__(self) -> int:
        return len(self.sampler)

    @contextmanager
    def again(self, begun_anew: list[Snapshot]) -> Iterator[None]:
        """An epoch begins; what begins anew inside does so as it did then."""
        self.begun_anew, self._begun, self._known = [], 0, iter(begun_anew)
        try:
            yield
        finally:
            self._known = iter(())

    def __iter__(self) -> Iterator[Any]:
        self._begun += 1
        if self._begun == 1:
            yield from self.sampler
            return
        now = snapshot()
        known = next(self._known, None)
        self.begun_anew.append(known or now)
        if known is None:
            yield from self.sampler
            return
        go_back_to(known)
        indices = iter(self.sampler)
        first = list(itertools.islice(indices, 1))  # its seed is drawn with it
        go_back_to(now)
        yield from itertools.chain(first, indices)
