"""Training scripts side by side: each in a process of its own, some updates in turns while the others are stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motivation.tools.benchmark.recipes import PACKAGE
from motivation.tools.tables import markdown_table


class RaceError(RuntimeError):
    """A program ended before its last turn; the message has the end of its output."""


@dataclass(frozen=True)
class Program:
    """A training script with its arguments.

    Attributes:
        models: number of models that it trains.
    """

    script: Path
    arguments: tuple[str, ...]
    models: int = 1


@dataclass(frozen=True)
class Turn:
    """A turn of a program.

    Attributes:
        seconds: that it took.
        updates: of each model.
        waited_s: seconds in which the program waited for its data loader; on a GPU this may overlap computation.
    """

    seconds: float
    updates: tuple[int, ...]
    waited_s: float = 0.0

    @property
    def per_update_s(self) -> float:
        """Mean over the models."""
        return self.seconds / sum(self.updates)


@dataclass
class Result:
    """The measurements of a program.

    Attributes:
        start_up_s: from the start of the process to the end of its first update.
        new_graphs: number that torch.compile made after the warm-up.
    """

    start_up_s: float = math.inf
    turns: list[Turn] = field(default_factory=list)
    new_graphs: int = 0

    @property
    def per_update_s(self) -> float:
        """Median over the turns."""
        return statistics.median(turn.per_update_s for turn in self.turns)

    @property
    def waiting(self) -> float:
        """Share of the time in which it waited for data, median over the turns."""
        return statistics.median(turn.waited_s / turn.seconds for turn in self.turns)


class _Process:
    """A running program. `motivation.tools.benchmark.probe` in it stops it, with its data workers, after each turn.

    They form a process group, so that the system ends them, even while they are stopped, when this process is killed.
    """

    def __init__(self, name: str, program: Program, updates: int, warmup: int, folder: Path):
        self.name = name
        self._log, self._report = folder / f"{name}.log", folder / f"{name}.json"
        command = [
            sys.executable, "-m", "motivation.tools.benchmark.probe", f"--updates={updates}", f"--warmup={warmup}",
            f"--models={program.models}", f"--since={time.time()}", f"--report={self._report}",
            str(program.script), *program.arguments,
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})

    def resume(self) -> None:
        """Start its next turn."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def wait(self) -> dict[str, Any]:
        """Wait until it stops at the end of its turn, and return its report.

        Raises:
            RaceError: it has ended instead.
        """
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            last_lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise RaceError(f"{self.name} ended before its last turn, with\n{last_lines}")
        return json.loads(self._report.read_text())

    def end(self) -> None:
        """Kill it, with its data workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # if it has no process group of its own yet
        self._process.wait()


def race(
    programs: Mapping[str, Program], turns: int, updates: int, warmup: int, folder: Path, starts: int = 1
) -> dict[str, Result]:
    """Let programs train in turns.

    Args:
        programs: by name.
        updates: per turn.
        warmup: updates of each model before the first turn.
        folder: for logs.
        starts: how often each program is started, in turns; the shortest start-up counts.

    Raises:
        RaceError: a program ended before its last turn.
    """
    processes: dict[str, _Process] = {}
    results = {name: Result() for name in programs}
    with ExitStack() as running:
        for _ in range(starts):
            running.close()  # ends those of the start before
            for name, program in programs.items():
                processes[name] = _Process(name, program, updates, warmup, folder)
                running.callback(processes[name].end)
                start_up_s = processes[name].wait()["start_up_s"]
                results[name].start_up_s = min(start_up_s, results[name].start_up_s)
        for number in range(turns):
            for name in list(programs)[:: -1 if number % 2 else 1]:
                processes[name].resume()
                report = processes[name].wait()
                results[name].turns.append(Turn(report["seconds"], tuple(report["updates"]), report["waited_s"]))
                results[name].new_graphs = report["new_graphs"]
    return results


def ratios(results: Mapping[str, Result], one: str, other: str) -> list[float]:
    """Return for each round how much faster ``one`` was than ``other``: above 1 is faster."""
    return [
        theirs.per_update_s / own.per_update_s
        for own, theirs in zip(results[one].turns, results[other].turns, strict=True)
    ]


def expected_ratios(results: Mapping[str, Result], motivated: str, base: str, larger: str) -> list[float]:
    """Return for each round the motivated run's time over n_base t_base + n_motivated t_motivated."""
    return [
        turn.seconds / (turn.updates[0] * small.per_update_s + turn.updates[1] * large.per_update_s)
        for turn, small, large in zip(*(results[name].turns for name in (motivated, base, larger)), strict=True)
    ]


def middle(values: Sequence[float]) -> str:
    """Return the median and the middle half."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def race_report(results: Mapping[str, Result], title: str, batch_size: int) -> str:
    """Return a table of the programs, and the ratios of those that are there."""
    rows = [["program", "ms an update", "images/s", "waits for data", "start-up s", "new graphs"]]
    for name, result in results.items():
        speed = f"{1000 * result.per_update_s:.2f}", f"{batch_size / result.per_update_s:.1f}"
        waiting = f"{100 * result.waiting:.1f} %"
        rows.append([name, *speed, waiting, f"{result.start_up_s:.2f}", str(result.new_graphs)])
    lines = [title, "", markdown_table(rows), ""]
    for one, other in (("plain", "timm"), ("on-device", "timm"), ("on-device", "padded")):
        if one in results and other in results:
            lines.append(f"- images/s, {one} / {other}: {middle(ratios(results, one, other))}")
    if {"plain", "larger", "motivated"} <= results.keys():
        found = middle(expected_ratios(results, "motivated", "plain", "larger"))
        base, motivated = (sum(turn.updates[model] for turn in results["motivated"].turns) for model in (0, 1))
        lines.append(
            f"- motivated run, time / (n_base t_base + n_motivated t_motivated): {found}; {base} base, "
            f"{motivated} motivated updates"
        )
    return "\n".join(lines)
