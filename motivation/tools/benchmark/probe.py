"""Runs a training script and measures its updates, in turns with other such processes (see `race`).

    python -m motivation.tools.benchmark.probe OPTIONS SCRIPT ARGUMENTS ...

An update is a step of an optimizer, seen by torch's hooks for steps of all optimizers, so it is the same thing in every
script; a step inside a step (Lookahead's optimizer) is a part of it. The process reports on one pipe and waits for its
turns on another, its data workers stopped meanwhile; when the other end of the pipes is gone, it ends with them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from argparse import REMAINDER, ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import motivation.models  # noqa: F401  (timm's script knows the CIFAR ResNets too)
from motivation.method.optimizer_probe import inner_optimizer
from motivation.tools.benchmark.timing import waiter


class Probe:
    """Counts updates by model and hands its turn on after so many.

    Args:
        updates: of a turn.
        warmup: updates of each model before the first turn.
        models: how many are trained: their optimizers are told apart.
        since: when the process was started (``time.time()``).
        reports, turns: file descriptors to write to and to read from.
    """

    def __init__(self, updates: int, warmup: int, models: int, since: float, reports: int, turns: int):
        self._updates, self._warmup, self._models, self._since = updates, warmup, models, since
        self._reports, self._turns = os.fdopen(reports, "w"), os.fdopen(turns)
        self._seen: dict[int, int] = {}
        self._counts: list[int] = []
        self._start_up_s = 0.0
        self._warm = False
        self._began = 0.0
        self._depth = 0

    def begin(self, optimizer: Optimizer, *_: Any) -> None:
        """A step begins, perhaps inside another."""
        self._depth += len(_parameters(optimizer)) > 1

    def end(self, optimizer: Optimizer, *_: Any) -> None:
        """A step was done; with the outermost one an update."""
        parameters = _parameters(optimizer)
        if len(parameters) < 2:
            return  # a scratch step of ours, with one parameter
        self._depth -= 1
        if self._depth:
            return
        if not self._seen:
            waiter(parameters[0].device)()
            self._start_up_s = time.time() - self._since
        model = self._seen.setdefault(id(inner_optimizer(optimizer)), len(self._seen))
        self._counts += [0] * (len(self._seen) - len(self._counts))
        self._counts[model] += 1
        if not self._warm:
            enough = len(self._counts) == self._models and min(self._counts) >= self._warmup
        else:
            enough = sum(self._counts) >= self._updates
        if enough:
            self._hand_on(waiter(parameters[0].device))

    def _hand_on(self, wait: Any) -> None:
        wait()
        turn = {"seconds": time.perf_counter() - self._began, "updates": self._counts, "graphs": _graphs()}
        if not self._warm:
            turn["start_up_s"] = self._start_up_s
        self._warm = True
        workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        _signal_all(workers, signal.SIGSTOP)
        with suppress(BrokenPipeError):
            print(json.dumps(turn), file=self._reports, flush=True)
        if not self._turns.readline():  # whoever gives the turns is gone
            os.killpg(0, signal.SIGKILL)
        _signal_all(workers, signal.SIGCONT)
        self._counts = [0] * len(self._counts)
        self._began = time.perf_counter()


def _signal_all(processes: list[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _graphs() -> int:
    """Graphs that torch.compile has made so far."""
    counters = sys.modules.get("torch._dynamo.utils")
    return counters.counters["stats"]["unique_graphs"] if counters is not None else 0


def main() -> None:
    """Run the script that the command line names."""
    parser = ArgumentParser()
    for name in ("updates", "warmup", "models", "reports", "turns"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--since", type=float, required=True)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=REMAINDER)
    args = parser.parse_args()
    probe = Probe(args.updates, args.warmup, args.models, args.since, args.reports, args.turns)
    register_optimizer_step_pre_hook(probe.begin)
    register_optimizer_step_post_hook(probe.end)
    sys.argv = [args.script, *args.arguments]
    sys.path.insert(0, str(Path(args.script).resolve().parent))
    runpy.run_path(args.script, run_name="__main__")


if __name__ == "__main__":
    main()
