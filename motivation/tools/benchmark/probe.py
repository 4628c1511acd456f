"""Runs a training script and measures its updates, in turns with other such processes (see `race`).

    python -m motivation.tools.benchmark.probe OPTIONS SCRIPT ARGUMENTS ...

An update is a step of an optimizer, observed by torch's hooks for the steps of all optimizers, so that it is the same
thing in every script. After each turn the process writes a report and stops itself and its data workers by SIGSTOP.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from argparse import REMAINDER, ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data.dataloader import _BaseDataLoaderIter

import motivation.models  # noqa: F401  (timm's script needs the CIFAR ResNets too)
from motivation.data.workers import end_with_parent
from motivation.method.optimizer_probe import inner_optimizer
from motivation.tools.benchmark.timing import synchronize


class Probe:
    """Counts the updates of each model, and ends a turn after some.

    Args:
        updates: per turn.
        warmup: updates of each model before the first turn.
        models: number of models that are trained; they are told apart by their optimizers.
        since: when the process was started (``time.time()``).
        end_turn: called with a report at the end of the warm-up and of each turn.
    """

    def __init__(
        self, updates: int, warmup: int, models: int, since: float, end_turn: Callable[[dict[str, Any]], None]
    ):
        self._updates, self._warmup, self._models, self._since = updates, warmup, models, since
        self._end_turn = end_turn
        self._model_numbers: dict[int, int] = {}
        self._counts = [0] * models
        self._start_up_s = self._began = 0.0
        self._waited_s = 0.0
        self._graphs: int | None = None  # at the end of the warm-up
        self._depth = 0

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Note that a step begins, perhaps inside another (Lookahead's)."""
        self._depth += not _is_scratch(optimizer)

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Count the update that the outermost step completes."""
        if _is_scratch(optimizer):
            return
        self._depth -= 1
        if self._depth:
            return
        device = optimizer.param_groups[0]["params"][0].device
        if not self._model_numbers:
            synchronize(device)
            self._start_up_s = time.time() - self._since
        self._counts[self._model_numbers.setdefault(id(inner_optimizer(optimizer)), len(self._model_numbers))] += 1
        warming_up = self._graphs is None
        if min(self._counts) >= self._warmup if warming_up else sum(self._counts) >= self._updates:
            synchronize(device)
            self._report(time.perf_counter() - self._began)

    def timed(self, fetch: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that does the same, and whose time counts as waiting for data."""

        def timed(batches: Any) -> Any:
            since = time.perf_counter()
            try:
                return fetch(batches)
            finally:
                self._waited_s += time.perf_counter() - since

        return timed

    def _report(self, seconds: float) -> None:
        graphs = _compiled_graphs()
        if self._graphs is None:
            self._graphs = graphs
        report = {
            "seconds": seconds, "waited_s": self._waited_s, "updates": self._counts,
            "new_graphs": graphs - self._graphs, "start_up_s": self._start_up_s,
        }  # fmt: skip
        self._end_turn(report)
        self._counts = [0] * self._models
        self._waited_s = 0.0
        self._began = time.perf_counter()


def _is_scratch(optimizer: Optimizer) -> bool:
    """Recognize our probing steps, which are of one parameter."""
    return sum(len(group["params"]) for group in optimizer.param_groups) < 2


def _compiled_graphs() -> int:
    """Return the number of graphs that torch.compile has made so far."""
    counters = sys.modules.get("torch._dynamo.utils")
    return counters.counters["stats"]["unique_graphs"] if counters is not None else 0


def main() -> None:
    """Run the script that the command line names."""
    parser = ArgumentParser()
    for name in ("updates", "warmup", "models"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--since", type=float, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=REMAINDER)
    args = parser.parse_args()
    os.setpgid(0, 0)  # a group of its own, so that one signal stops it with its data workers
    end_with_parent()

    def stop(report: dict[str, Any]) -> None:
        args.report.write_text(json.dumps(report))
        os.killpg(0, signal.SIGSTOP)

    probe = Probe(args.updates, args.warmup, args.models, args.since, stop)
    _BaseDataLoaderIter.__next__ = probe.timed(_BaseDataLoaderIter.__next__)  # type: ignore[method-assign,assignment]
    register_optimizer_step_pre_hook(probe.before_step)
    register_optimizer_step_post_hook(probe.after_step)
    sys.argv = [args.script, *args.arguments]
    runpy.run_path(args.script, run_name="__main__")


if __name__ == "__main__":
    main()
