"""Where the time of a motivated run goes: training itself, and everything around it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from motivation.build.run import build_run
from motivation.data.loaders import end_workers
from motivation.method.records import DeferredScalar
from motivation.options.parse import parse
from motivation.tools.benchmark.timing import waiter
from motivation.training.hooks import RunView
from motivation.training.loggers import ProgressBar
from motivation.training.loop import train_epoch
from motivation.training.run import Run


class Stopwatch:
    """Adds up the time between pairs of moments: on the device where that works on its own, else on the host."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._moments: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is inside."""
        began = self._now()
        yield
        self._moments.append((began, self._now()))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def seconds(self) -> float:
        """All of it; the device must have done its work."""
        if self._cuda:
            return sum(began.elapsed_time(ended) for began, ended in self._moments) / 1000
        return sum(ended - began for began, ended in self._moments)


@dataclass
class Account:
    """Seconds of an epoch.

    Attributes:
        parts: by what was done; hooks and the condition on the host, switches on the device.
    """

    seconds: float
    updates: int
    switches: int
    share: float
    parts: dict[str, float] = field(default_factory=dict)

    def percent(self, *parts: str) -> float:
        """Of the epoch's time."""
        return 100 * sum(self.parts[part] for part in parts) / self.seconds

    def per_update_us(self, *parts: str) -> float:
        """Microseconds of an update."""
        return 1e6 * sum(self.parts[part] for part in parts) / self.updates


@contextmanager
def opened_run(argv: Sequence[str]) -> Iterator[Run]:
    """A run that is about to train its first epoch, with one progress bar, that nobody sees; ended afterwards.

    Raises:
        StartupError: something is wrong with its options.
    """
    args, text = parse(argv)
    run = build_run(args, text)
    others = [hook for hook in run.hooks.hooks if not isinstance(hook, ProgressBar)]  # there is one on a terminal
    run.hooks.hooks = [*others, ProgressBar(io.StringIO())]
    try:
        view = RunView(run.epochs, 0, run.feed.updates_per_epoch, run.pair.motivated is not None, 0)
        run.hooks.run_start(view)
        yield run
    finally:
        end_workers(run.feed.loader)
        run.hooks.run_end()
        if run.lock is not None:
            run.lock.release()


def account(argv: Sequence[str]) -> Account:
    """Train an epoch of a run and say where its time went; the one before it, to warm up, does not count."""
    with opened_run([*argv, "--epochs=2", "--log-interval=50"]) as run:
        host, device = torch.device("cpu"), run.device
        switching, logging, deciding = Stopwatch(device), Stopwatch(host), Stopwatch(host)
        train_epoch(run, 0)
        run.pair.expand = _timed(run.pair.expand, switching)  # type: ignore[method-assign]
        run.pair.extract = _timed(run.pair.extract, switching)  # type: ignore[method-assign]
        run.hooks.update_end = _timed(run.hooks.update_end, logging)  # type: ignore[method-assign]
        run.pair.observe = _arrived(_timed(run.pair.observe, deciding))  # type: ignore[method-assign]
        waiter(device)()
        before, began = run.pair.counts.copy(), time.perf_counter()
        train_epoch(run, 1)
        waiter(device)()
        seconds = time.perf_counter() - began
        done = run.pair.counts - before
    parts = {
        "switches": switching.seconds, "logs and progress bar": logging.seconds, "condition": deciding.seconds,
    }  # fmt: skip
    return Account(seconds, done.total, done.switches, done.share, parts)


def _timed(call: Callable[..., Any], watch: Stopwatch) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with watch.running():
            return call(*args, **kwargs)

    return timed


def _arrived(observe: Callable[..., Any]) -> Callable[..., Any]:
    """The same once the loss is there: a GPU that is still at work on it is training."""

    def arrived(loss: DeferredScalar, *others: Any) -> Any:
        return observe(DeferredScalar(loss.value), *others)

    return arrived
