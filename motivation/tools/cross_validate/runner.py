"""Makes the runs of a plan as processes of their own, several at a time; any of them may be killed at any moment.

A run holds an exclusive lock on a file in its folder for as long as its process lives: the lock belongs to the open
file, which the process inherits, so it outlives whoever started the run, and ends with the run however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from motivation.tools.cross_validate.plan import LOG_FILE, Plan, PlanError, RunSpec, State, run_arguments, run_state
from motivation.training.run_folder import read_run

LOCK_FILE = ".lock"
SCRIPT = Path(__file__).resolve().parents[3] / "train_motivated.py"
_LOG_LINES = 8


@dataclass(frozen=True)
class Resources:
    """What the runs may use.

    Attributes:
        jobs: how many runs at a time.
        devices: shared out evenly among them; None is the one of the runs' own arguments.
        environment: of the processes, beside this one's.
    """

    jobs: int = 1
    devices: Sequence[str | None] = (None,)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """A run in progress."""

    run: RunSpec
    state: State
    device: str | None
    process: subprocess.Popen[bytes]
    began: float


def threads_per_run(jobs: int, on_cpu: bool, environment: Mapping[str, str]) -> dict[str, str]:
    """Several runs on one CPU share its cores, unless the user has set OMP_NUM_THREADS.

    >>> threads_per_run(2, True, {"OMP_NUM_THREADS": "3"}), threads_per_run(1, True, {})
    ({}, {})
    """
    if jobs == 1 or not on_cpu or "OMP_NUM_THREADS" in environment:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // jobs))}


def try_lock(folder: Path) -> int | None:
    """The descriptor of the run's lock, or None while another process has it; closing all copies gives it back.

    Raises:
        PlanError: the file system has no locks, or the folder cannot be written.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise PlanError(f"--output: {folder} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise PlanError(f"--output: files in {folder} cannot be locked: {error.strerror}") from error
    return descriptor


def runs_now(folder: Path) -> bool:
    """Whether a process is at work on the run; nothing is made."""
    if not (folder / LOCK_FILE).is_file():
        return False
    if (descriptor := try_lock(folder)) is None:
        return True
    os.close(descriptor)
    return False


def command_line(plan: Plan, run: RunSpec, state: State, device: str | None, environment: Mapping[str, str]) -> str:
    """What a shell would be told to make the run."""
    assignments = "".join(f"{name}={shlex.quote(value)} " for name, value in environment.items())
    return assignments + shlex.join([sys.executable, str(SCRIPT), *run_arguments(plan, run, state, device)])


def last_lines(file: Path, count: int = _LOG_LINES) -> list[str]:
    """The last lines of a log that say something."""
    text = file.read_text(errors="replace") if file.is_file() else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def duration(elapsed_s: float) -> str:
    """
    >>> duration(27.4), duration(480), duration(7200)
    ('27 s', '8 min', '2.0 h')
    """
    if elapsed_s < 100:
        return f"{elapsed_s:.0f} s"
    return f"{elapsed_s / 60:.0f} min" if elapsed_s < 6000 else f"{elapsed_s / 3600:.1f} h"


class Runner:
    """Makes all runs of a plan that are not done.

    Args:
        plan: what to run; its folder exists.
        resources: how many at a time, and where.
        say: takes the lines of progress.
        script: what each process runs.
        poll_s: seconds between two looks at the processes.
        grace_s: seconds that a process has to end after SIGTERM before it is killed.
    """

    def __init__(
        self,
        plan: Plan,
        resources: Resources,
        say: Callable[[str], None] = print,
        script: Path = SCRIPT,
        poll_s: float = 0.2,
        grace_s: float = 10.0,
    ):
        self.plan, self.resources, self._say, self._script = plan, resources, say, script
        self._poll_s, self._grace_s = poll_s, grace_s
        self.failed: list[RunSpec] = []
        self.interrupted = False
        self._total = len(plan.runs())
        self._finished = 0
        self._jobs: list[Job] = []
        self._elapsed_s: list[float] = []

    def run(self) -> None:
        """Make the runs; afterwards ``failed`` names those that failed, ``interrupted`` whether a signal came.

        Raises:
            PlanError: a run's folder cannot be used.
        """
        waiting = [run for run in self.plan.runs() if run_state(self.plan, run) is not State.DONE]
        self._finished = self._total - len(waiting)
        busy: set[RunSpec] = set()
        previous = self._catch_signals()
        try:
            while (waiting or self._jobs) and not self.interrupted:
                self._start_some(waiting, busy)
                self._reap(waiting)
                time.sleep(self._poll_s)
        finally:
            self._end_jobs()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start_some(self, waiting: list[RunSpec], busy: set[RunSpec]) -> None:
        for run in list(waiting):
            if len(self._jobs) >= self.resources.jobs or self.interrupted:
                return
            folder = self.plan.place(run)
            folder.mkdir(exist_ok=True)
            lock = try_lock(folder)
            if lock is None:
                if run not in busy:
                    busy.add(run)
                    self._say(f"{run.title} is being made by another process already; it is waited for")
                continue
            try:
                waiting.remove(run)
                state = run_state(self.plan, run)  # only now that nobody else is at work on it
                if state is State.DONE:
                    self._finished += 1
                    self._say(self._line(run, None, len(waiting)))
                else:
                    self._jobs.append(self._start(run, state, lock))
            finally:
                os.close(lock)  # the process has its own

    def _start(self, run: RunSpec, state: State, lock: int) -> Job:
        used = Counter(job.device for job in self._jobs)
        device = min(self.resources.devices, key=lambda one: used[one])
        command = [sys.executable, str(self._script), *run_arguments(self.plan, run, state, device)]
        with open(self.plan.place(run) / LOG_FILE, "ab" if state is State.RESUME else "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.resources.environment},
                pass_fds=(lock,),
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we end the run with its workers
            )
        return Job(run, state, device, process, time.monotonic())

    def _reap(self, waiting: list[RunSpec]) -> None:
        for job in list(self._jobs):
            code = job.process.poll()
            if code is None:
                continue
            self._jobs.remove(job)
            elapsed_s = time.monotonic() - job.began
            state = run_state(self.plan, job.run)
            self._finished += 1
            if code == 0 and state is State.DONE:
                self._elapsed_s.append(elapsed_s)
                self._say(self._line(job.run, elapsed_s, len(waiting)))
            else:
                self.failed.append(job.run)
                self._say_failed(job.run, code, elapsed_s)

    def _line(self, run: RunSpec, elapsed_s: float | None, waiting: int) -> str:
        result: dict[str, Any] = read_run(self.plan.place(run)).result or {}
        base = result["last"]["base"] or {}
        text = f"{self._count()} {run.title}: top-1 {base.get('top1', float('nan')):.2f}, share {result['share']:.3f}"
        text += ", made by another process" if elapsed_s is None else f", {duration(elapsed_s)}"
        left_s = self._left_s(waiting)
        return text + (f"; about {duration(left_s)} left" if left_s else "")

    def _left_s(self, waiting: int) -> float:
        """What remains if each run takes the mean of those that were seen; 0 if nothing is known or remains."""
        if not self._elapsed_s:
            return 0.0
        mean, now = sum(self._elapsed_s) / len(self._elapsed_s), time.monotonic()
        running = sum(max(0.0, mean - (now - job.began)) for job in self._jobs)
        return (waiting * mean + running) / self.resources.jobs

    def _count(self) -> str:
        return f"[{self._finished:{len(str(self._total))}}/{self._total}]"

    def _say_failed(self, run: RunSpec, code: int, elapsed_s: float) -> None:
        file = self.plan.place(run) / LOG_FILE
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        self._say(f"{self._count()} {run.title}: {how} after {duration(elapsed_s)}; the end of {file}:")
        for line in last_lines(file):
            self._say(f"    {line}")

    def _catch_signals(self) -> dict[int, Any]:
        previous = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                previous[int(number)] = signal.signal(number, self._interrupt)
        return previous

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            self._grace_s = 0.0  # asked twice
        self.interrupted = True

    def _end_jobs(self) -> None:
        """Terminate what still runs, then kill it."""
        for job in self._jobs:
            _signal_group(job, signal.SIGTERM)
        asked = time.monotonic()
        while any(job.process.poll() is None for job in self._jobs) and time.monotonic() - asked < self._grace_s:
            time.sleep(min(self._poll_s, 0.1))
        for job in self._jobs:
            _signal_group(job, signal.SIGKILL)  # also data workers that their run has left behind
            job.process.wait()
        self._jobs = []


def _signal_group(job: Job, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's word for a group that has ended
        os.killpg(job.process.pid, number)
