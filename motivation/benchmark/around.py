"""Where the time of a motivated run goes: training itself, and everything around it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from motivation.benchmark.timing import waiter
from motivation.builders import build_run
from motivation.hooks import Hook, RunView
from motivation.loaders import end_workers
from motivation.logging.console import ProgressBar
from motivation.loop import train_epoch
from motivation.options import parse


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


class _SilentBar(ProgressBar):
    """A progress bar as on a terminal."""

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self._bar = tqdm(total=self._run.updates_per_epoch, desc="epoch", file=io.StringIO(), leave=False)


def account(argv: Sequence[str]) -> Account:
    """Train an epoch of a run and say where its time went; the first of two epochs, to warm up, does not count."""
    args, text = parse([*argv, "--epochs=2", "--log-interval=50"])
    run = build_run(args, text)
    bar: Hook = _SilentBar()
    run.hooks.hooks.append(bar)
    host, device = torch.device("cpu"), run.device
    watches = {"switches": Stopwatch(device), "logs and progress bar": Stopwatch(host), "condition": Stopwatch(host)}
    run.switcher.switch = _timed(run.switcher.switch, watches["switches"])  # type: ignore[method-assign]
    run.hooks.update_end = _timed(run.hooks.update_end, watches["logs and progress bar"])  # type: ignore[method-assign]
    run.pair.observe = _timed(run.pair.observe, watches["condition"])  # type: ignore[method-assign]
    try:
        updates = run.feed.updates_per_epoch
        run.hooks.run_start(RunView(2, 0, updates, run.switcher.motivated is not None, 0))
        for epoch in range(2):
            for watch in watches.values():
                watch._moments.clear()
            waiter(device)()
            before, began = run.pair.counts.copy(), time.perf_counter()
            train_epoch(run, epoch)
            waiter(device)()
            seconds = time.perf_counter() - began
        done = run.pair.counts - before
        parts = {name: watch.seconds for name, watch in watches.items()}
        return Account(seconds, updates, done.switches, done.share, parts)
    finally:
        end_workers(run.feed.loader)
        run.hooks.run_end()
        if run.lock is not None:
            run.lock.release()


def _timed(call: Callable[..., Any], watch: Stopwatch) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with watch.running():
            return call(*args, **kwargs)

    return timed
