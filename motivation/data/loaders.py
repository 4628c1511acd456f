"""torch's data loader with two additions: it can resume inside an epoch bit for bit, and it names unreadable images.

What a resumed run must restore follows from where random numbers are drawn:

- torch's loader draws a seed when it starts its workers. They persist over the epochs, so later epochs draw none; a
  resumed run starts new workers and must not draw one either.
- The sampler draws its seed at the first batch of the epoch. The position is therefore the random state at the start
  of the epoch and a number of batches to skip (indices only: no image is read again). An epoch longer than the data
  set starts further passes in the middle of training, so the states at those points are stored too.
- The states of a worker change with every batch it makes. Each batch carries them along; those after the worker's last
  *consumed* batch are restored in the new worker of the same number.
- timm's prefetcher holds one batch that is not consumed yet, for which the main process has already drawn numbers.
"""

from __future__ import annotations

import itertools
import pickle
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from motivation.data.batch_order import ReplayableSampler, ResumableBatchSampler
from motivation.data.workers import WorkerInit, dead_worker_text, raise_if_worker_died
from motivation.method.random_states import RngState, get_rng_state, rng_from_dict, rng_to_dict, set_rng_state

LOOK_AT = "look at the options of augmentation and channels, not at the image"

TRANSFORMS = ("torchvision.transforms", "timm.data.transforms", "timm.data.auto_augment", "timm.data.random_erasing")
"""Modules with what is done to an image after it was read."""


class DataError(RuntimeError):
    """An image or a label cannot be used; the message is for the user."""


class CheckedLoader:
    """Wraps a torch loader and reports which image cannot be read, or which label the model does not have.

    Other attributes are those of the wrapped loader.

    Args:
        loader: over a map-style data set, in batches.
        split: name of the split, for messages.
        classes: number of classes of the model; None to leave labels unchecked.

    Attributes:
        workers_run: persistent workers are running, or were running in the run that is resumed.
    """

    def __init__(self, loader: DataLoader, split: str, classes: int | None = None):
        self.loader, self._split, self._classes = loader, split, classes
        self.workers_run = False
        self.collate_fn: Any = loader.collate_fn  # timm's prefetcher asks it whether it mixes
        memory = 4 + (loader.prefetch_factor or 0) * loader.num_workers
        self._batch_sampler = ResumableBatchSampler(loader.batch_sampler, memory)
        self._collate = _Collate(loader.collate_fn, classes)
        loader.collate_fn = self._collate
        self._worker_init = WorkerInit(loader.worker_init_fn)
        loader.worker_init_fn = self._worker_init
        object.__setattr__(loader, "batch_sampler", self._batch_sampler)  # torch forbids setting it after __init__

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not there yet: while copied or unpickled
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
            loader.generator = torch.Generator()  # takes the seed of new workers from here, not from the global stream
        try:
            return iter(loader)
        finally:
            loader.generator = None
            self.workers_run = loader.num_workers > 0 and loader.persistent_workers

    def _next(self, batches: Iterator[Any], index: int) -> Any:
        """Return the next ``(batch, pickled states of its worker)``, None at the end.

        Raises:
            DataError: the batch could not be made.
        """
        try:
            return next(batches, None)
        except Exception as error:  # a data set may raise anything
            if dead_worker_text(error):
                raise
            if isinstance(error, (ConnectionError, EOFError)):
                raise_if_worker_died(getattr(batches, "_workers", ()))
            raise DataError(self._explain(index, error)) from error

    def _explain(self, index: int, error: Exception) -> str:
        """Read the images of the batch one by one to find the culprit."""
        for item in self._batch_sampler.recent.get(index, ()):
            number = item[0] if isinstance(item, tuple) else item  # with the size that --train-img-sizes chose
            place = f"image {number} of the split {self._split!r}{self._file_of(number)}"
            try:
                label = self.loader.dataset[item][1]
            except Exception as item_error:
                if dead_worker_text(item_error):  # the signal came late: its closed pipe was noticed first
                    raise
                if _raised_by_transform(item_error):
                    return f"{place} can be read, but not transformed: {_last_line(item_error)}; {LOOK_AT}"
                return f"{place} cannot be read: {_last_line(item_error)}"
            if _is_out_of_range(label, self._classes):
                return (
                    f"{place} has the label {label}, but the model has {self._classes} classes, 0 to "
                    f"{(self._classes or 0) - 1}: mend the data, or give --num-classes"
                )
        return (
            f"a batch of the split {self._split!r} cannot be made: {_last_line(error)}; each of its images can be "
            f"read; {LOOK_AT}"
        )

    def _file_of(self, item: int) -> str:
        try:
            dataset: Any = self.loader.dataset
            return f" ({dataset.filename(item)})"
        except Exception:  # noqa: BLE001  (few data sets have files, and each fails in its own way)
            return ""


@dataclass(frozen=True)
class _Position:
    """A place in an epoch at which reading starts.

    Attributes:
        skip: number of batches before it.
        epoch_start: random states of this process when the epoch started.
        before_first: random states before the first batch was fetched, if it was fetched already.
        workers_ran_before: persistent workers were running when the epoch started.
        pass_starts: see `ReplayableSampler`.
    """

    skip: int
    epoch_start: RngState
    before_first: RngState | None
    workers_ran_before: bool
    pass_starts: list[RngState]


class ResumableLoader(CheckedLoader):
    """A `CheckedLoader` whose position inside an epoch can be saved (`state_dict`) and resumed from.

    Args:
        draws_here: fetching a batch draws random numbers in this process, because images are made or erased here.
    """

    def __init__(self, loader: DataLoader, split: str, classes: int | None = None, draws_here: bool = True):
        super().__init__(loader, split, classes)
        self._draws_here = draws_here
        self._collate.sends_rng_state = True
        self._sampler = ReplayableSampler(self._batch_sampler.batch_sampler)
        self._resumed: _Position | None = None
        # This process: its state when the epoch started, and before each of the two latest batches was fetched.
        self._epoch_start: RngState | None = None
        self._before_batch: dict[int, RngState] = {}
        # Workers: their states when the epoch started, and after their two latest batches (with the batch's number).
        self._worker_starts: list[RngState | None] = [None] * loader.num_workers
        self._worker_states: list[deque[tuple[int, RngState]]] = [deque(maxlen=2) for _ in range(loader.num_workers)]
        self._workers_ran_before = False
        self._workers_mix = self._mixes

    @property
    def _mixes(self) -> bool:
        return bool(getattr(self.collate_fn, "mixup_enabled", False))

    def state_dict(self, consumed: int | None) -> dict[str, Any]:
        """Return what is needed to resume after ``consumed`` batches of this epoch; None between two epochs."""
        end = len(self) if consumed is None else consumed
        workers = [
            next((state for index, state in reversed(latest) if index < end), start)
            for latest, start in zip(self._worker_states, self._worker_starts, strict=True)
        ]
        state: dict[str, Any] = {
            "workers": [_to_dict(one) for one in workers],
            "workers_run": self.workers_run,
            "workers_mix": self._workers_mix,
        }
        if consumed is not None and self._epoch_start is not None:
            state |= {
                "consumed": consumed,
                "epoch_start": rng_to_dict(self._epoch_start),
                "workers_ran_before": self._workers_ran_before,
                "begun_anew": [rng_to_dict(one) for one in self._sampler.pass_starts],
                "before": _to_dict(self._before_batch.get(consumed)),  # there if it was fetched already
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, before the first iteration.

        With another number of workers, only the position is restored and not the random states of the workers.
        """
        if len(state["workers"]) == len(self._worker_starts):
            self._worker_starts = [_from_dict(one) for one in state["workers"]]
            self.workers_run, self._workers_mix = state["workers_run"], state["workers_mix"]
        if state.get("consumed", len(self)) < len(self):  # else the epoch's batches are all trained on
            self._resumed = _Position(
                state["consumed"],
                rng_from_dict(state["epoch_start"]),
                _from_dict(state["before"]),
                state["workers_ran_before"],
                [rng_from_dict(one) for one in state.get("begun_anew", ())],  # not in older checkpoints
            )

    def __iter__(self) -> Iterator[Any]:
        now = get_rng_state()
        resumed, self._resumed = self._resumed, None
        place = resumed or _Position(0, now, None, self.workers_run, [])
        skip, before_first = place.skip, place.before_first
        self._epoch_start, self._workers_ran_before = place.epoch_start, place.workers_ran_before
        if resumed is not None:
            set_rng_state(place.epoch_start)
        with self._sampler.start_epoch(place.pass_starts):
            batches = self._open(skip)
        if resumed is not None:
            set_rng_state(before_first or now)
        self._before_batch = {}
        for index in itertools.count(skip):
            if self._draws_here:
                self._before_batch = {at: state for at, state in self._before_batch.items() if at == index - 1}
                self._before_batch[index] = get_rng_state()
            item = self._next(batches, index)
            if item is None:
                self._before_batch.pop(index, None)
                return
            batch, worker_state = item
            if worker_state is not None:
                self._worker_states[index % len(self._worker_states)].append((index, pickle.loads(worker_state)))
            yield batch
            if index == skip and before_first is not None:
                set_rng_state(now)

    def _open(self, skip: int) -> Iterator[Any]:
        """Return an iterator that starts with batch ``skip`` of the epoch, made by the worker whose turn it is."""
        workers = len(self._worker_states)
        for number, latest in enumerate(self._worker_states):
            if latest:
                self._worker_starts[number] = latest[-1][1]
                latest.clear()
        empty_batches = skip % workers if workers else 0  # for the workers whose turn has passed
        self._batch_sampler.start_at(skip, empty_batches)
        self._worker_init.states = self._worker_starts
        with self._mixing_as_before():
            iterator = self._iterator(self._workers_ran_before)
        if skip and not workers:
            self._batch_sampler.skip_now()  # while the random state is that of the epoch's start
        for _ in range(empty_batches):
            next(iterator)
        return iterator

    @contextmanager
    def _mixing_as_before(self) -> Iterator[None]:
        """Start new workers with mixing as it was in the old ones, which ``--mixup-off-epoch`` does not reach."""
        mixes = self._mixes
        if not self.workers_run:
            self._workers_mix = mixes
        if not self._worker_states or self._workers_mix == mixes:
            yield
            return
        self.collate_fn.mixup_enabled = self._workers_mix
        try:
            yield
        finally:
            self.collate_fn.mixup_enabled = mixes


def _to_dict(state: RngState | None) -> dict[str, Any] | None:
    return None if state is None else rng_to_dict(state)


def _from_dict(state: dict[str, Any] | None) -> RngState | None:
    return None if state is None else rng_from_dict(state)


class _Collate:
    """Checks labels before collating; in a worker it returns the worker's random states with the batch.

    They are sent as bytes: torch looks into everything else for tensors to pin, 600 numbers one by one.
    """

    def __init__(self, collate: Any, classes: int | None):
        self._collate, self._classes, self.sends_rng_state = collate, classes, False

    def __call__(self, items: list[Any]) -> Any:
        if not items:
            return None, None
        for item in items:
            if _is_out_of_range(item[1], self._classes):
                raise DataError(f"the label {item[1]} is none of {self._classes} classes")
        batch = self._collate(items)
        in_worker = get_worker_info() is not None
        return batch, pickle.dumps(get_rng_state()) if self.sends_rng_state and in_worker else None


def _is_out_of_range(label: Any, classes: int | None) -> bool:
    return classes is not None and isinstance(label, Integral) and not 0 <= int(label) < classes


def _raised_by_transform(error: Exception) -> bool:
    return any(
        frame.f_globals.get("__name__", "").startswith(TRANSFORMS)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind, said = type(error).__name__, lines[-1] if lines else "without a word"
    return said if said.startswith(f"{kind}: ") else f"{kind}: {said}"  # a worker's error ends with both
