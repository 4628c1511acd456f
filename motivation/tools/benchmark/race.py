"""Training scripts side by side: each in a process of its own, a few updates in turns while the others stand still."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motivation.training.signals import exit_code


class RaceError(RuntimeError):
    """A program did not get through; the message has the end of what it said."""


@dataclass(frozen=True)
class Turn:
    """Seconds of a turn, and updates of each model in it."""

    seconds: float
    updates: tuple[int, ...]


@dataclass
class Result:
    """What a program did.

    Attributes:
        start_up_s: from its start to the end of its first update.
        new_graphs: that torch.compile made after the warm-up.
    """

    start_up_s: float
    turns: list[Turn] = field(default_factory=list)
    new_graphs: int = 0

    @property
    def per_update_s(self) -> float:
        """Median over the turns."""
        return statistics.median(turn.seconds / sum(turn.updates) for turn in self.turns)


@dataclass(frozen=True)
class Program:
    """A script with its arguments.

    Attributes:
        models: how many it trains.
    """

    script: Path
    arguments: tuple[str, ...]
    models: int = 1


class _Runner:
    """A process of a program, standing still between its turns."""

    def __init__(self, name: str, program: Program, updates: int, warmup: int, log: Path):
        self.name, self._log = name, log
        reports, theirs = os.pipe()
        turns, self._turns = os.pipe()
        command = [
            sys.executable, "-m", "motivation.tools.benchmark.probe", f"--updates={updates}", f"--warmup={warmup}",
            f"--models={program.models}", f"--since={time.time()}", f"--reports={theirs}", f"--turns={turns}",
            str(program.script), *program.arguments,
        ]  # fmt: skip
        root = Path(__file__).resolve().parents[3]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        with open(log, "w") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, pass_fds=(theirs, turns), start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        os.close(theirs)
        os.close(turns)
        self._reports = os.fdopen(reports)

    def report(self) -> dict[str, Any]:
        """Wait for the end of its turn; it stands still then.

        Raises:
            RaceError: it has ended instead.
        """
        line = self._reports.readline()
        if not line:
            said = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise RaceError(f"{self.name} ended before its last turn, with\n{said}")
        return json.loads(line)

    def go_on(self) -> None:
        """Begin its next turn."""
        with suppress(BrokenPipeError):  # something killed it meanwhile; its next report says so
            os.write(self._turns, b"\n")

    def end(self) -> None:
        """Kill it, with its data workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._turns)
        self._reports.close()


def race(
    programs: Mapping[str, Program], turns: int, updates: int, warmup: int, folder: Path, starts: int = 1
) -> dict[str, Result]:
    """Let programs train in turns.

    Args:
        programs: by the name to report them by.
        updates: of a turn.
        warmup: updates of each model that do not count.
        folder: for what the programs say.
        starts: how often each is started, in turns; the shortest start-up counts.

    Raises:
        RaceError: a program ended before its last turn.
    """
    runners: list[_Runner] = []
    results: dict[str, Result] = {}
    graphs: dict[str, int] = {}
    with _unwound_by_signals(), ExitStack() as all_ends:  # all of them, also when one fails
        for start in range(starts):
            for name, program in programs.items():
                with ExitStack() as ends:
                    runner = _Runner(name, program, updates, warmup, folder / f"{name}.log")
                    ends.callback(runner.end)
                    first = runner.report()
                    best = min(first["start_up_s"], results[name].start_up_s if name in results else float("inf"))
                    results[name], graphs[name] = Result(best), first["graphs"]
                    if start + 1 == starts:
                        runners.append(runner)
                        all_ends.push(ends.pop_all())
        for number in range(turns):
            for runner in runners if number % 2 == 0 else reversed(runners):
                runner.go_on()
                turn = runner.report()
                results[runner.name].turns.append(Turn(turn["seconds"], tuple(turn["updates"])))
                results[runner.name].new_graphs = turn["graphs"] - graphs[runner.name]
    return results


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """What asks this process to end takes the way of Ctrl-C: programs that stand still would do so for ever."""

    def unwind(number: int, _: Any) -> None:
        raise SystemExit(exit_code(number))

    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                previous[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ratios(results: Mapping[str, Result], one: str, other: str) -> list[float]:
    """How much faster ``one`` was than ``other`` in each round: above 1 is faster."""
    return [
        (theirs.seconds / sum(theirs.updates)) / (own.seconds / sum(own.updates))
        for own, theirs in zip(results[one].turns, results[other].turns, strict=True)
    ]


def expected_ratios(results: Mapping[str, Result], motivated: str, base: str, larger: str) -> list[float]:
    """Time of a motivated run over n_base t_base + n_motivated t_motivated, with the times of the same round."""
    found = []
    for turn, small, large in zip(results[motivated].turns, results[base].turns, results[larger].turns, strict=True):
        expected = turn.updates[0] * small.seconds / sum(small.updates)
        expected += turn.updates[1] * large.seconds / sum(large.updates)
        found.append(turn.seconds / expected)
    return found


def middle(values: Sequence[float]) -> str:
    """The median and the middle half."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3f} ({low:.3f} to {high:.3f})"
