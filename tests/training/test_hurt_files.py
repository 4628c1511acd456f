"""What a damaged or foreign file, a signal at the end and a dead worker do to a run: one line, and nothing lost."""

import json
import os
import signal

import pytest
import torch
from support.program import DIGITS, MOTIVATED, load, rows

from motivation.tools.train import main
from motivation.training.checkpoint import write_whole


def changed(run, change):
    """The run's ``last`` with a change, under another name."""
    contents = load(run / "last.pth.tar")
    change(contents)
    write_whole(contents, run / "changed.pth.tar")
    return run / "changed.pth.tar"


def errors(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda contents: contents.update(epoch=-5), "its 'epoch' is -5"),
        (
            lambda contents: contents["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(7)),
            "'optimizer' is damaged",
        ),
        (lambda contents: contents["motivation"].pop("pair"), "'motivation' is damaged"),
        (lambda contents: contents["motivation"]["pair"].pop("condition"), "'motivation' is damaged"),
        (
            lambda contents: contents["motivation"]["savers"]["base"].update(dropped=["../../victim.txt"]),
            "'savers' is damaged",
        ),
        (lambda contents: contents["state_dict"]["conv1.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_one_line(change, said, train, capsys):
    run = train(*MOTIVATED, "--epochs", "1")
    victim = run.parents[1] / "victim.txt"
    victim.write_text("")
    file = changed(run, change)
    capsys.readouterr()
    train(*MOTIVATED, "--epochs", "2", "--resume", file, code=2)
    (line,) = errors(capsys)
    assert said in line
    assert victim.exists()


@pytest.mark.parametrize("hurt", [lambda path: os.truncate(path, 900), lambda path: path.unlink()])
def test_a_finished_run_gets_a_whole_last_again(hurt, train):
    run = train("--epochs", "2")
    whole = load(run / "last.pth.tar")
    hurt(run / "last.pth.tar")
    train("--epochs", "2", "--resume", "auto")
    assert load(run / "last.pth.tar")["epoch"] == whole["epoch"]


def test_a_copied_folder_goes_on_from_the_latest_file(train, caplog):
    run = train(*MOTIVATED, "--epochs", "2")
    for age, name in enumerate(["last", "checkpoint-1", "checkpoint-0"]):  # as a copy may leave it
        os.utime(run / f"{name}.pth.tar", (age, age))
    train(*MOTIVATED, "--epochs", "3", "--resume", "auto")
    assert f"Resumed from {run}/last.pth.tar" in caplog.text
    assert [int(row["epoch"]) for row in rows(run / "updates.csv")] == [0] * 5 + [1] * 5 + [2] * 5


def test_a_new_run_in_an_old_folder_is_the_one_that_resume_auto_goes_on_with(train):
    train("--epochs", "3")
    run = train("--epochs", "1", "--lr", "0.01")
    before = load(run / "last.pth.tar")["args"].lr
    train("--epochs", "2", "--lr", "0.01", "--resume", "auto")
    assert before == load(run / "last.pth.tar")["args"].lr == 0.01
    assert load(run / "last.pth.tar")["epoch"] == 1


def test_a_signal_before_the_first_update_stops_after_it(train, tmp_path):
    (tmp_path / "early.py").write_text(
        "import os, signal\n"
        "from motivation.training.hooks import Hook, register_hook\n"
        "@register_hook('early')\n"
        "class Early(Hook):\n"
        "    def run_start(self, run):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    run = train("--epochs", "1", "--motivation-plugins", tmp_path / "early.py", code=143)
    assert len(rows(run / "updates.csv")) == 1


def test_a_signal_when_the_training_is_over_does_not_cost_the_result(train, tmp_path):
    (tmp_path / "late.py").write_text(
        "import os, signal\n"
        "from motivation.training.hooks import Hook, register_hook\n"
        "@register_hook('late')\n"
        "class Late(Hook):\n"
        "    def run_end(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    run = train("--epochs", "1", "--motivation-plugins", tmp_path / "late.py")
    assert json.loads((run / "result.json").read_text())["completed"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_that_is_killed_is_said_as_what_it_is(train, tmp_path, capsys):
    (tmp_path / "kills.py").write_text(
        "import multiprocessing, os, signal\n"
        "from motivation.training.hooks import Hook, register_hook\n"
        "@register_hook('kills')\n"
        "class Kills(Hook):\n"
        "    def update_end(self, record):\n"
        "        if record.step == 3:\n"
        "            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
    )
    flags = ["-j", "1", "--recovery-interval", "1", "--motivation-plugins", tmp_path / "kills.py"]
    train(*flags, "--epochs", "3", code=1)
    (line,) = errors(capsys)
    assert "DataLoader worker (pid" in line
    assert "out of memory" in line
    assert "cannot be written" not in line


@pytest.mark.parametrize(("name", "code"), [("../x", 2), ("/tmp/x", 2), ("a/../../x", 2)])
def test_a_run_stays_in_its_output_folder(name, code, tmp_path, capsys):
    assert main([*DIGITS, "--output", str(tmp_path / "out"), "--experiment", name]) == code
    (line,) = errors(capsys)
    assert line.startswith(f"error: --experiment {name}: it is the name of a folder in ")
