"""torch's loaders, with what they lack: a place inside an epoch that can be saved and gone on with bit for bit, and a
readable line for an image that cannot be read.

Where random numbers are drawn decides what a resumed run must put back:

- torch's loader draws a seed for its workers when they start. Workers stay over the epochs, so later epochs draw none,
  and a resumed run, whose workers are new, must not draw one either;
- the sampler draws its seed at the epoch's first batch; so the place in an epoch is the random state at its start and a
  number of batches to pass over (indices only: no image is read again). In an epoch that is longer than the data set
  it begins anew, in the middle of an update's random numbers, so the states at those points are kept too;
- a worker's own states move with every batch it makes. Each batch brings them along; those after its last batch that
  was *consumed* are put back in the new worker of the same number;
- timm's prefetcher holds one batch that is not consumed yet, and has drawn for it in the main process.
"""

from __future__ import annotations

import ctypes
import itertools
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from motivation.data.batch_order import NumberedBatches, Passes
from motivation.method.random_states import Snapshot, from_plain, go_back_to, snapshot, to_plain


class DataError(RuntimeError):
    """An image or a label that cannot be used; the message is for the user."""


class CheckedLoader:
    """A torch loader that says which image cannot be read, and which label the model does not have.

    What it does not have itself is the loader's.

    Args:
        loader: over a data set whose items have numbers, in batches.
        split: name of the split, for messages.
        classes: of the model; None not to look at labels.

    Attributes:
        workers_run: whether workers that stay are there, or were there in the run that is resumed.
    """

    def __init__(self, loader: DataLoader, split: str, classes: int | None = None):
        self.loader, self._split, self._classes = loader, split, classes
        self.workers_run = False
        self.collate_fn: Any = loader.collate_fn  # timm's prefetcher looks whether it mixes
        self._batches = NumberedBatches(loader.batch_sampler, 4 + (loader.prefetch_factor or 0) * loader.num_workers)
        self._collate = _Collate(loader.collate_fn, classes)
        loader.collate_fn = self._collate
        self._worker_start = _WorkerStart(loader.worker_init_fn)
        loader.worker_init_fn = self._worker_start
        object.__setattr__(loader, "batch_sampler", self._batches)  # torch lets nobody set it later

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = self._iterator(self.workers_run)
        for index in itertools.count():
            item = self._next(batches, index)
            if item is None:
                return
            yield item[0]

    def _iterator(self, workers_ran_before: bool) -> Iterator[Any]:
        loader = self.loader
        if workers_ran_before and loader._iterator is None:
            loader.generator = torch.Generator()  # torch draws no seed for workers that run already
        try:
            return iter(loader)
        finally:
            loader.generator = None
            self.workers_run = loader.num_workers > 0 and loader.persistent_workers

    def _next(self, batches: Iterator[Any], index: int) -> Any:
        """The next ``(batch, states of its worker)``, None at the end.

        Raises:
            DataError: it could not be made.
        """
        try:
            return next(batches, None)
        except Exception as error:  # a data set may raise anything
            raise DataError(self._explanation(index, error)) from error

    def _explanation(self, index: int, error: Exception) -> str:
        """Read the images of the batch one by one, to find the one that is to blame."""
        for item in self._batches.recent.get(index, ()):
            place = f"image {item} of the split {self._split!r}{self._file_of(item)}"
            try:
                label = self.loader.dataset[item][1]
            except Exception as of_item:  # noqa: BLE001  (a data set may raise anything)
                return f"{place} cannot be read: {_one_line(of_item)}"
            if _is_foreign(label, self._classes):
                return (
                    f"{place} has the label {label}, but the model has {self._classes} classes, 0 to "
                    f"{(self._classes or 0) - 1}: mend the data, or give --num-classes"
                )
        return f"a batch of the split {self._split!r} cannot be read: {_one_line(error)}"

    def _file_of(self, item: int) -> str:
        try:
            dataset: Any = self.loader.dataset
            return f" ({dataset.filename(item)})"
        except Exception:  # noqa: BLE001  (few data sets have files, and each fails in its own way)
            return ""


class ResumableLoader(CheckedLoader):
    """A `CheckedLoader` with a place that can be saved (`state_dict`) and gone on with.

    Args:
        draws_here: whether random numbers are drawn in this process for a batch that is fetched: it is made or erased
            here.
    """

    def __init__(self, loader: DataLoader, split: str, classes: int | None = None, draws_here: bool = True):
        super().__init__(loader, split, classes)
        self._draws_here = draws_here
        self._collate.brings_states = True
        self._passes = Passes(self._batches.batches)
        self._epoch_start: Snapshot | None = None
        self._workers_ran_before = False
        self._workers_mix = self._mixes
        self._before: dict[int, Snapshot] = {}
        self._earlier: list[Snapshot | None] = [None] * loader.num_workers
        self._recent: list[deque[tuple[int, Snapshot]]] = [deque(maxlen=2) for _ in self._earlier]
        self._resumed: dict[str, Any] | None = None

    @property
    def _mixes(self) -> bool:
        return bool(getattr(self.collate_fn, "mixup_enabled", False))

    def state_dict(self, consumed: int | None) -> dict[str, Any]:
        """Everything to go on with, after ``consumed`` batches of this epoch; None between two epochs."""
        end = len(self) if consumed is None else consumed
        latest = [
            next((states for index, states in reversed(recent) if index < end), earlier)
            for recent, earlier in zip(self._recent, self._earlier, strict=True)
        ]
        state: dict[str, Any] = {
            "workers": [None if states is None else to_plain(states) for states in latest],
            "workers_run": self.workers_run,
            "workers_mix": self._workers_mix,
        }
        if consumed is not None and self._epoch_start is not None:
            before = self._before.get(consumed)  # there if it was fetched already
            state |= {
                "consumed": consumed,
                "epoch_start": to_plain(self._epoch_start),
                "workers_ran_before": self._workers_ran_before,
                "begun_anew": [to_plain(states) for states in self._passes.begun_anew],
                "before": None if before is None else to_plain(before),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, before the first iteration.

        Of another number of workers only the place is taken, not the random states of the workers.
        """
        if len(state["workers"]) == len(self._earlier):
            self._earlier = [None if states is None else from_plain(states) for states in state["workers"]]
            self.workers_run, self._workers_mix = state["workers_run"], state["workers_mix"]
        if state.get("consumed", len(self)) < len(self):  # else the epoch's batches are all trained on
            self._resumed = state

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        now, first = snapshot(), 0
        self._epoch_start, self._workers_ran_before = now, self.workers_run
        if resumed is not None:
            first = resumed["consumed"]
            self._epoch_start = from_plain(resumed["epoch_start"])
            self._workers_ran_before = resumed["workers_ran_before"]
            go_back_to(self._epoch_start)
        begun_anew = () if resumed is None else resumed.get("begun_anew", ())  # not in older checkpoints
        with self._passes.again([from_plain(states) for states in begun_anew]):
            batches = self._open(first)
        if resumed is not None:
            go_back_to(from_plain(resumed["before"]) if resumed["before"] else now)
        self._before = {}
        for index in itertools.count(first):
            if self._draws_here:
                self._before = {at: states for at, states in self._before.items() if at == index - 1}
                self._before[index] = snapshot()
            item = self._next(batches, index)
            if item is None:
                self._before.pop(index, None)
                return
            batch, of_worker = item
            if of_worker is not None:
                self._recent[index % len(self._recent)].append((index, of_worker))
            yield batch
            if index == first and resumed is not None and resumed["before"]:
                go_back_to(now)

    def _open(self, first: int) -> Iterator[Any]:
        """An iterator that begins with batch number ``first`` of the epoch, the right worker making it."""
        workers = len(self._recent)
        self._earlier = [
            recent[-1][1] if recent else states for recent, states in zip(self._recent, self._earlier, strict=True)
        ]
        for recent in self._recent:
            recent.clear()
        blanks = first % workers if workers else 0
        self._batches.begin_at(first, blanks)
        self._worker_start.states = self._earlier
        with self._mixing_of_workers():
            iterator = self._iterator(self._workers_ran_before)
        if first and not workers:
            self._batches.pass_over()  # now, for the sampler's seed is of the states of the epoch's start
        for _ in range(blanks):
            next(iterator)
        return iterator

    @contextmanager
    def _mixing_of_workers(self) -> Iterator[None]:
        """New workers mix if those before them did: no worker hears of ``--mixup-off-epoch`` once it runs."""
        mixes = self._mixes
        if not self.workers_run:
            self._workers_mix = mixes
        if not self._recent or self._workers_mix == mixes:
            yield
            return
        self.collate_fn.mixup_enabled = self._workers_mix
        try:
            yield
        finally:
            self.collate_fn.mixup_enabled = mixes


class _Collate:
    """A collate function that looks at labels, and in a worker sends its random states with the batch."""

    def __init__(self, collate: Any, classes: int | None):
        self._collate, self._classes, self.brings_states = collate, classes, False

    def __call__(self, items: list[Any]) -> Any:
        if not items:
            return None, None
        for item in items:
            if _is_foreign(item[1], self._classes):
                raise DataError(f"the label {item[1]} is none of {self._classes} classes")
        batch = self._collate(items)
        return batch, snapshot() if self.brings_states and get_worker_info() is not None else None


class _WorkerStart:
    """A worker's start that puts its random states back, if there are any, and lets it end with its parent.

    Args:
        then: what the worker does at its start besides; called first, with the worker's number.
    """

    def __init__(self, then: Any):
        self._then = then
        self.states: list[Snapshot | None] = []

    def __call__(self, worker: int) -> None:
        end_with_parent()
        if self._then is not None:
            self._then(worker)
        if worker < len(self.states) and (states := self.states[worker]) is not None:
            go_back_to(states)


def end_with_parent() -> None:
    """Let this process be killed when its parent is gone, where the system can (Linux).

    A worker looks for its parent every five seconds only. Until then it holds the sockets that it has inherited, and
    other ranks do not see that theirs is gone.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PR_SET_PDEATHSIG = 1
"""Of Linux' ``prctl.h``."""


def _is_foreign(label: Any, classes: int | None) -> bool:
    return classes is not None and isinstance(label, Integral) and not 0 <= int(label) < classes


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'without a word'}"


def end_workers(loader: Any) -> None:
    """End a loader's data workers now; left to the garbage collector, each would be waited for five seconds."""
    while hasattr(loader, "loader"):
        loader = loader.loader
    for name in ("_iterator", "iterator"):  # torch's persistent workers; timm's loader of several epochs
        iterator = getattr(loader, name, None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()  # an error's traceback may hold it still
        if iterator is not None:
            setattr(loader, name, None)
