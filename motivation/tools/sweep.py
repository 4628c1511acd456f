"""Many runs of the training programs: make those that are left, several at a time, and resume what was begun.

Everything may be killed at any moment; the same command then goes on. While a run's process lives it holds a lock on a
file in the run's folder. The lock belongs to the open file, which the process inherits from the sweep: it outlives a
sweep that is killed, and keeps two sweeps from making one run at the same time.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType

from motivation.errors import EXIT_FAILED, EXIT_INTERRUPTED, InputError, print_text
from motivation.training.epoch_log import duration
from motivation.training.run_files import RunError
from motivation.training.run_folder import read_run
from motivation.versions import usable_cores

LOCK_FILE, LOG_FILE, SECONDS_FILE = ".lock", "log.txt", "seconds.txt"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, a closed terminal, and what schedulers send before they end a job."""
CODES_OF_SIGNALS = {code for number in SIGNALS for code in (-number, 128 + number)}
"""Exit codes of runs that such a signal has stopped, as Python and as shells have them."""


class State(Enum):
    """How far a run is."""

    DONE = "done"
    RESUME = "to resume"
    NEW = "new"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a training program.

    Attributes:
        folder: of the run.
        arguments: of the program; the folder, the device and ``--resume`` are added.
        needs: folders of the runs that must be done before this one starts.
        launcher: the words before the arguments, see `launcher`.
    """

    folder: Path
    arguments: tuple[str, ...] = ()
    needs: tuple[Path, ...] = ()
    launcher: tuple[str, ...] = (sys.executable, "-m", "motivation", "train")

    @property
    def name(self) -> str:
        """The last part of the folder."""
        return self.folder.name

    @property
    def state(self) -> State:
        """How far the run is, as far as the folder tells; one killed after its last checkpoint still has to resume."""
        with suppress(RunError):
            if read_run(self.folder).completed:
                return State.DONE
        return State.RESUME if any(self.folder.glob("*.pth.tar")) else State.NEW

    def command(self, device: str | None = None) -> list[str]:
        """Return the words that start the run or go on with it; without a device the arguments choose it."""
        words = [*self.launcher, *self.arguments, "--output", str(self.folder.parent), "--experiment", self.name]
        words += ["--device", device] if device else []
        return words + (["--resume", "auto"] if self.state is State.RESUME else [])


def launcher(program: str, processes: int = 1) -> tuple[str, ...]:
    """Return the words that start ``train`` or ``finetune``; several processes of a run are started by torchrun."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}") if processes > 1 else ()
    return (sys.executable, *torchrun, "-m", "motivation", program)


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of all commands that sweep."""
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one per device)")
    parser.add_argument("--devices", nargs="+", metavar="D", help="share the runs out among them: cuda:0 cuda:1")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left, and do nothing")


def split_words(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Split a command's words at ``--`` into its own and those for every run.

    Raises:
        InputError: the runs would leave nothing to report on.

    >>> split_words(["--jobs", "2", "--", "--lr", "0.1"])
    (['--jobs', '2'], ['--lr', '0.1'])
    """
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    own, further = words[:cut], words[cut + 1 :]
    if any(word.partition("=")[0] == "--limit-batches" for word in further):
        raise InputError("--limit-batches leaves no run to report on: give it to one of the commands of --dry-run")
    return own, further


@dataclass
class _Job:
    run: PlannedRun
    device: str | None
    process: subprocess.Popen[bytes]
    began: float


class Sweep:
    """Makes all runs that are not done.

    Args:
        runs: each after those that it needs.
        jobs: how many at a time; default one per device.
        devices: get equally many runs; None leaves the device to the run's arguments.
        keep_going: after a failure, go on with the runs that do not need the failed one; otherwise start no more.
        say: takes the lines of progress; default `print_text`.
        poll_s: seconds between two looks at the processes.
        grace_s: seconds that a run has to save and end after a signal before it is killed.

    Attributes:
        states: of the runs at the beginning.
        failed: the runs that failed, and those left out because they need one of these.

    Raises:
        InputError: a run needs one that is neither done nor planned before it, or the number of jobs is not positive.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        jobs: int | None = None,
        devices: Sequence[str | None] | None = None,
        keep_going: bool = True,
        say: Callable[[str], None] | None = None,
        poll_s: float = 0.2,
        grace_s: float = 60.0,
    ):
        self.devices = devices or [None]
        self.jobs = len(self.devices) if jobs is None else jobs
        if self.jobs < 1:
            raise InputError(f"--jobs: at least 1, not {jobs}")
        self._say = say or print_text
        self._keep_going, self._poll_s, self._grace_s = keep_going, poll_s, grace_s
        self.states: dict[PlannedRun, State] = {}
        self._done: set[Path] = set()
        for run in runs:
            planned = {one.folder for one in self.states}
            for need in run.needs:
                if PlannedRun(need).state is State.DONE:
                    self._done.add(need)
                elif need not in planned:
                    raise InputError(f"{run.name} needs {need.name}, which is neither done nor planned before it")
            self.states[run] = run.state
        self._waiting = [run for run, state in self.states.items() if state is not State.DONE]
        self._jobs: list[_Job] = []
        self._announced: set[PlannedRun] = set()
        self._began, self._made = time.monotonic(), 0
        self.failed: list[PlannedRun] = []
        self.interrupted = False

    def summary(self) -> str:
        """
        >>> Sweep([PlannedRun(Path("no/such/folder"))]).summary()
        '1 runs: 0 done, 0 to resume, 1 new'
        """
        counts = Counter(self.states.values())
        return f"{len(self.states)} runs: {', '.join(f'{counts[state]} {state.value}' for state in State)}"

    def show_commands(self) -> None:
        """Print the commands of the runs that are left, for a shell."""
        for number, run in enumerate(self._waiting):
            with _locked(run.folder) if run.folder.is_dir() else nullcontext(0) as lock:
                elsewhere = "# made by another process now: " if lock is None else ""
            print_text(elsewhere + shlex.join(run.command(self.devices[number % len(self.devices)])))
        print(f"# {self.summary()}")

    def run(self, again: str) -> int:
        """Make the runs; return 0, or the exit code of a failure or an interruption, after saying so.

        Args:
            again: the command to go on with.

        Raises:
            InputError: a run's folder cannot be used.
        """
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if handlers[number] != signal.SIG_IGN:  # nohup means it
                signal.signal(number, self._interrupt)
        try:
            while (self._jobs or self._may_start()) and not self.interrupted:
                self._start_runs()
                self._collect_ended()
                time.sleep(self._poll_s)
        finally:
            self._end_jobs()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.interrupted:
            print_text(f"Interrupted. To go on: {again}", sys.stderr)
            return EXIT_INTERRUPTED
        if self.failed:
            names = ", ".join(run.name for run in self.failed)
            print_text(f"Failed or left out: {names}. To go on: {again}", sys.stderr)
            return EXIT_FAILED
        return 0

    def _may_start(self) -> bool:
        return bool(self._waiting) and (self._keep_going or not self.failed)

    def _start_runs(self) -> None:
        for run in list(self._waiting):
            if len(self._jobs) >= self.jobs or self.interrupted or not self._may_start():
                return
            if lost := {one.folder for one in self.failed}.intersection(run.needs):
                self._waiting.remove(run)
                self.failed.append(run)
                self._say(f"{self._count()} {run.name} is left out: it needs {lost.pop().name}")
            elif self._done.issuperset(run.needs):
                try:
                    self._start(run)
                except OSError as error:
                    raise InputError(f"{run.folder}: the run cannot be started: {error.strerror}") from error

    def _start(self, run: PlannedRun) -> None:
        """Start a run, unless another process is at it or has finished it meanwhile."""
        run.folder.mkdir(parents=True, exist_ok=True)
        with _locked(run.folder) as lock:
            if lock is None:
                if run not in self._announced:
                    self._say(f"{run.name} is being made by another process; it is waited for")
                self._announced.add(run)
                return
            self._waiting.remove(run)
            if (state := run.state) is State.DONE:
                self._report_done(run, "made by another process")
                return
            used = Counter(job.device for job in self._jobs)
            device = min(self.devices, key=lambda one: used[one])
            with open(run.folder / LOG_FILE, "ab" if state is State.RESUME else "wb") as log:
                process = subprocess.Popen(
                    run.command(device),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_share_of_cores(self.jobs) | os.environ,
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C reaches the sweep alone, which ends the run with its workers
                )
        self._jobs.append(_Job(run, device, process, time.monotonic()))

    def _collect_ended(self) -> None:
        for job in [job for job in self._jobs if job.process.poll() is not None]:
            self._jobs.remove(job)
            code, took_s = job.process.returncode, time.monotonic() - job.began
            with open(job.run.folder / SECONDS_FILE, "a") as file:  # a line for each time that it was at work
                file.write(f"{took_s:.1f}\n")
            took = duration(took_s)
            if code == 0 and job.run.state is State.DONE:
                self._made += 1
                left = len(self._waiting) + len(self._jobs)
                left_s = (time.monotonic() - self._began) / self._made * left
                self._report_done(job.run, f"{took}; about {duration(left_s)} left" if left else took)
            elif code in CODES_OF_SIGNALS:
                self._say(f"{self._count()} {job.run.name} was stopped by a signal after {took}")
                self.interrupted = True
            else:
                self.failed.append(job.run)
                how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
                log = job.run.folder / LOG_FILE
                self._say(f"{self._count()} {job.run.name} {how} after {took}; the end of {log}:")
                for line in last_lines(log):
                    self._say(f"    {line}")

    def _count(self) -> str:
        total = len(self.states)
        return f"[{total - len(self._waiting) - len(self._jobs):{len(str(total))}}/{total}]"

    def _report_done(self, run: PlannedRun, remark: str) -> None:
        self._done.add(run.folder)
        result = read_run(run.folder).result or {}
        metrics = (result.get("last") or {}).get("base") or {}
        figures = [f"top-1 {metrics['top1']:.2f}"] if metrics.get("top1") is not None else []
        figures += [f"share {result['share']:.3f}"] if result.get("share") is not None else []
        self._say(f"{self._count()} {run.name}: {', '.join([*figures, remark])}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            self._grace_s = 0.0  # asked twice
        self.interrupted = True

    def _end_jobs(self) -> None:
        """Ask the runs that are still at work to save and end, then kill them."""
        if self._jobs:
            self._say(f"Stopping {len(self._jobs)} runs, which save a checkpoint first; a second Ctrl-C kills them.")
        for job in self._jobs:
            _signal_group(job, signal.SIGTERM)
        asked = time.monotonic()
        while any(job.process.poll() is None for job in self._jobs) and time.monotonic() - asked < self._grace_s:
            time.sleep(min(self._poll_s, 0.1))
        for job in self._jobs:
            _signal_group(job, signal.SIGKILL)  # also data workers that their run has left behind
            job.process.wait()
        self._jobs = []


@contextmanager
def _locked(folder: Path) -> Iterator[int | None]:
    """Yield a descriptor of the run's lock, or None while another process has it; copies of it keep the lock."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield descriptor if free else None
    finally:
        os.close(descriptor)


def _signal_group(job: _Job, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's word for a group that has ended
        os.killpg(job.process.pid, number)


def _share_of_cores(jobs: int) -> dict[str, str]:
    """Return the environment in which several runs share the cores; the user's own OMP_NUM_THREADS wins over it."""
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs))} if jobs > 1 else {}


def last_lines(file: Path, count: int = 8) -> list[str]:
    """Return the last lines of a log that say something."""
    text = file.read_text(errors="replace") if file.is_file() else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
