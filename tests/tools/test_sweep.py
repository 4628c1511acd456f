"""Many runs as processes: what is started, where, after what, and what happens when something ends badly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from support.program import ROOT

from motivation.errors import InputError
from motivation.tools.sweep import PlannedRun, State, Sweep, _locked, _share_of_cores

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
root = Path(words["--output"])
folder = root / words["--experiment"]
with open(root / "starts.txt", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
def exists(name):
    return (root / (name + "-" + folder.name)).exists()
if exists("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(root / ("started-" + folder.name)).touch()
while exists("hold"):
    time.sleep(0.02)
while len(list(root.glob("started-*"))) < int(os.environ.get("TOGETHER", "0")):
    time.sleep(0.02)
print("a line of the log", flush=True)
if exists("fail"):
    sys.exit("no such thing as \\x1b[31mluck")
if exists("stop"):
    sys.exit(128 + signal.SIGTERM)
(folder / "args.yaml").write_text("model: small")
result = {"completed": True, "share": 0.1, "last": {"base": {"top1": 90.0}}}
(folder / "result.json").write_text(json.dumps(result))
"""
"""Stands in for the training program; files beside the runs' folders tell it what to do."""

DONE = {"completed": True, "share": 0.1, "last": {"base": {"top1": 90.0}}}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def planned(root, *names, needs=()):
    start = (sys.executable, str(root.parent / "program.py"))
    return [PlannedRun(root / name, ("--lr", "0.1"), tuple(root / need for need in needs), start) for name in names]


def a_folder(run, result=None, checkpoint=False):
    run.folder.mkdir(parents=True)
    (run.folder / "args.yaml").write_text("model: small")
    if result is not None:
        (run.folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    if checkpoint:
        (run.folder / "last.pth.tar").touch()
    return run.folder


def made(runs, *jobs, **options):
    """Sweep; return the exit code, the sweep and the lines of progress."""
    said = []
    options = {"say": said.append, "poll_s": 0.02, "grace_s": 0.3, **options}
    sweep = Sweep(runs, *jobs, **options)
    return sweep.run("x y z"), sweep, said


def started(root):
    """The arguments of every process so far."""
    file = root / "starts.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def names(root):
    return [words[words.index("--experiment") + 1] for words in started(root)]


def wait_until(true):
    for _ in range(1500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened")


def is_locked(folder):
    with _locked(folder) as lock:
        return lock is None


@pytest.mark.parametrize(
    ("result", "checkpoint", "state"),
    [
        (DONE, True, State.DONE),
        (None, True, State.RESUME),
        ({**DONE, "completed": False}, True, State.RESUME),
        ('{"completed": tr', True, State.RESUME),
        (None, False, State.NEW),
    ],
)
def test_the_state_of_a_run_is_read_from_its_folder(root, result, checkpoint, state):
    (run,) = planned(root, "a")
    a_folder(run, result, checkpoint)
    assert run.state is state


def test_the_folder_and_the_device_come_after_the_arguments(root):
    (run,) = planned(root, "a")
    words = run.command("cuda:1")[len(run.launcher) :]
    assert words == ["--lr", "0.1", "--output", str(root), "--experiment", "a", "--device", "cuda:1"]


def test_all_runs_are_made_once(root):
    runs = planned(root, "a", "b", "c", "d", "e")
    code, _, said = made(runs, 2)
    assert (code, sorted(names(root))) == (0, ["a", "b", "c", "d", "e"])
    assert said[0].startswith("[1/5] ")
    assert said[-1].startswith("[5/5] ")
    assert any(line.startswith("[1/5] ") and ": top-1 90.00, share 0.100, 0 s; about " in line for line in said)
    assert (root / "a" / "log.txt").read_text() == "a line of the log\n"
    assert made(runs)[0] == 0
    assert len(started(root)) == 5


def test_a_begun_run_is_resumed_and_its_log_goes_on(root):
    runs = planned(root, "a", "b")
    (a_folder(runs[0], checkpoint=True) / "log.txt").write_text("before\n")
    made(runs)
    resumed = [words for words in started(root) if "--resume" in words]
    assert [words[words.index("--resume") + 1] for words in resumed] == ["auto"]
    assert (root / "a" / "log.txt").read_text() == "before\na line of the log\n"


def test_a_run_starts_when_those_that_it_needs_are_done(root):
    runs = [
        *planned(root, "first", "second"),
        *planned(root, "both", needs=["first", "second"]),
        *planned(root, "free"),
    ]
    (root / "hold-second").touch()

    def say(line):
        if "free" in line:
            assert "both" not in names(root)
            (root / "hold-second").unlink()

    assert made(runs, 2, say=say)[0] == 0
    assert sorted(names(root)[:3]) == ["first", "free", "second"]
    assert names(root)[3] == "both"


def test_a_need_may_be_done_already(root):
    (first,) = planned(root, "first")
    a_folder(first, DONE)
    assert made(planned(root, "second", needs=["first"]))[0] == 0


@pytest.mark.parametrize("order", [("second",), ("second", "first")])
def test_a_need_that_is_neither_done_nor_planned_before_is_refused(root, order):
    runs = [run for name in order for run in planned(root, name, needs=["first"] if name == "second" else [])]
    with pytest.raises(InputError, match="second needs first, which is neither done nor planned before it"):
        Sweep(runs)


def test_a_failing_run_is_shown_and_the_others_go_on_but_those_that_need_it(root, capsys):
    (root / "fail-a").touch()
    runs = [*planned(root, "a"), *planned(root, "after", needs=["a"]), *planned(root, "last", needs=["after"])]
    code, sweep, said = made([*runs, *planned(root, "b")])
    assert (code, [run.name for run in sweep.failed]) == (1, ["a", "after", "last"])
    assert names(root) == ["a", "b"]
    assert "a failed with exit code 1" in said[0]
    assert said[2] == "    no such thing as \x1b[31mluck"
    assert any("after is left out: it needs a" in line for line in said)
    assert capsys.readouterr().err == "Failed or left out: a, after, last. To go on: x y z\n"
    (root / "fail-a").unlink()
    assert made([*runs, *planned(root, "b")])[0] == 0
    assert names(root) == ["a", "b", "a", "after", "last"]


def test_control_characters_of_a_failing_runs_log_are_escaped(root, capsys):
    (root / "fail-a").touch()
    assert made(planned(root, "a"), say=None)[0] == 1
    assert "    no such thing as \\x1b[31mluck\n" in capsys.readouterr().out


def test_a_failing_run_may_end_the_sweep(root):
    (root / "fail-b").touch()
    code, sweep, _ = made(planned(root, "a", "b", "c"), keep_going=False)
    assert (code, names(root), [run.name for run in sweep.failed]) == (1, ["a", "b"], ["b"])


def test_devices_are_shared_out_evenly(root, monkeypatch):
    monkeypatch.setenv("TOGETHER", "4")  # no run ends before four have started
    assert made(planned(root, *"abcdef"), 4, devices=("cuda:0", "cuda:1"))[0] == 0
    used = Counter(words[words.index("--device") + 1] for words in started(root)[:4])
    assert used == {"cuda:0": 2, "cuda:1": 2}


def test_there_is_a_job_for_each_device(root):
    assert Sweep(planned(root, "a")).jobs == 1
    assert Sweep(planned(root, "a"), devices=("cuda:0", "cuda:1")).jobs == 2
    with pytest.raises(InputError, match="--jobs: at least 1"):
        Sweep(planned(root, "a"), 0)


def test_a_run_of_another_process_is_waited_for_and_then_skipped(root, capsys):
    runs = planned(root, "a", "b", "c")
    folder = a_folder(runs[0])
    said = []
    with _locked(folder) as lock:
        Sweep(runs).show_commands()
        assert "# made by another process now: " in capsys.readouterr().out

        def elsewhere(line):
            said.append(line)
            if sum(words.startswith("[") for words in said) == 2:  # all others are done
                (folder / "result.json").write_text(json.dumps(DONE))
                os.dup2(os.open(os.devnull, os.O_RDONLY), lock)  # gives the lock back

        assert made(runs, say=elsewhere)[0] == 0
    assert "waited for" in said[0]
    assert "made by another process" in said[-1]
    assert "a" not in names(root)


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from motivation.tools.sweep import PlannedRun, Sweep
root = Path(sys.argv[1])
Sweep([PlannedRun(root / "a", ("--lr", "0.1"), (), (sys.executable, str(root.parent / "program.py")))]).run("")
"""


def test_a_run_that_outlives_its_killed_parent_is_not_started_twice(root):
    (root / "hold-a").touch()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(root), str(ROOT)])
    wait_until((root / "started-a").exists)
    parent.kill()
    parent.wait()
    assert is_locked(root / "a")

    said = []

    def say(line):
        said.append(line)
        if len(said) == 2:  # the second parent has noticed, and made another run meanwhile
            (root / "hold-a").unlink()

    code, _, _ = made(planned(root, "a", "b"), say=say)
    assert "waited for" in said[0]
    assert (code, names(root)) == (0, ["a", "b"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_runs_even_deaf_ones(root, number, capsys):
    for word in ("hold", "deaf"):
        (root / f"{word}-a").touch()
    before = signal.signal(number, signal.default_int_handler)  # a suite in the background ignores SIGINT
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    said = []

    def say(line):
        said.append(line)
        wait_until((root / "started-a").exists)
        if len(said) == 1:
            signal.raise_signal(number)

    runs = planned(root, "a", "b", "c")
    code, _, _ = made(runs, 2, say=say)
    assert code == 130
    assert said[1].startswith("Stopping ")
    assert capsys.readouterr().err == "Interrupted. To go on: x y z\n"
    assert not is_locked(root / "a")
    assert runs[0].state is State.NEW
    assert "c" not in names(root)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(number, before)


def test_a_run_that_was_stopped_by_a_signal_interrupts_the_sweep(root):
    (root / "stop-a").touch()
    code, sweep, said = made(planned(root, "a", "b"))
    assert (code, sweep.failed, names(root)) == (130, [], ["a"])
    assert "a was stopped by a signal" in said[0]


def test_a_folder_that_cannot_be_written_is_one_line(root):
    (root / "a").touch()
    with pytest.raises(InputError, match="a: the run cannot be started: File exists"):
        made(planned(root, "a"))


def test_several_runs_share_the_cores(monkeypatch):
    assert _share_of_cores(1) == {}
    assert int(_share_of_cores(1000)["OMP_NUM_THREADS"]) == 1
