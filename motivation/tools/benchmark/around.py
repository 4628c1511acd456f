"""Where the time of a motivated run goes: training itself, and everything around it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from motivation.build.run import build_run
from motivation.data.workers import end_workers
from motivation.method.records import DeferredScalar
from motivation.options.parse import parse
from motivation.tools.benchmark.timing import synchronize
from motivation.tools.tables import markdown_table
from motivation.training.hooks import RunView
from motivation.training.loggers import ProgressBar
from motivation.training.loop import train_epoch
from motivation.training.run import Run


class Stopwatch:
    """Adds up the time of calls: on the device where it is a GPU, which works on its own, else on the host."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._moments: list[tuple[Any, Any]] = []

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self._now()
            result = call(*args, **kwargs)
            self._moments.append((began, self._now()))
            return result

        return timed

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def seconds(self) -> float:
        """The sum; the device must have completed its work."""
        if self._cuda:
            return sum(began.elapsed_time(ended) for began, ended in self._moments) / 1000
        return sum(ended - began for began, ended in self._moments)


@contextmanager
def opened_run(argv: Sequence[str]) -> Iterator[Run]:
    """Build a run that is ready to train its first epoch, with a progress bar that nobody sees, and end it afterwards.

    Raises:
        StartupError: the options cannot be used.
    """
    run = build_run(*parse(argv))
    others = [hook for hook in run.hooks.hooks if not isinstance(hook, ProgressBar)]  # there is one on a terminal
    run.hooks.hooks = [*others, ProgressBar(io.StringIO())]
    try:
        run.hooks.run_start(RunView(run.epochs, 0, run.feed.updates_per_epoch, run.pair.motivated is not None, 0))
        yield run
    finally:
        end_workers(run.feed.loader)
        run.hooks.run_end()
        if run.lock is not None:
            run.lock.release()


def around_table(argv: Sequence[str]) -> str:
    """Train two epochs of a run and return where the time of the second went; the first warms up."""
    with opened_run([*argv, "--epochs=2", "--log-interval=50"]) as run:
        host, device = torch.device("cpu"), run.device
        switching, logging, deciding = Stopwatch(device), Stopwatch(host), Stopwatch(host)
        watches = {"switches": switching, "logs and progress bar": logging, "condition": deciding}
        train_epoch(run, 0)
        run.pair.expand = switching.timed(run.pair.expand)  # type: ignore[method-assign]
        run.pair.extract = switching.timed(run.pair.extract)  # type: ignore[method-assign]
        run.hooks.update_end = logging.timed(run.hooks.update_end)  # type: ignore[method-assign]
        run.pair.observe = _after_arrival(deciding.timed(run.pair.observe))  # type: ignore[method-assign]
        synchronize(device)
        before, began = run.pair.counts.copy(), time.perf_counter()
        train_epoch(run, 1)
        synchronize(device)
        seconds = time.perf_counter() - began
        done = run.pair.counts - before
    rows = [["part", "us an update", "of the time"]]
    for name, watch in watches.items():
        rows.append([name, f"{1e6 * watch.seconds / done.total:.1f}", f"{100 * watch.seconds / seconds:.3f} %"])
    title = f"{done.total} updates in {seconds:.2f} s, {done.switches} switches, share {done.share:.3f}"
    return f"{title}\n\n{markdown_table(rows)}"


def _after_arrival(observe: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for the loss first: a GPU that is still computing it is training, not deciding."""

    def observe_value(loss: DeferredScalar, *others: Any) -> Any:
        return observe(DeferredScalar(loss.value), *others)

    return observe_value
