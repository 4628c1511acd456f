"""Hooks cannot be misspelt; trackers get both models, share, cost and switches; the result says what the counts say."""

import math
import os
import signal
import time

import pytest
from support.processes import finish, run_script, start
from support.program import DIGITS, MOTIVATED, ROOT, load, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from motivation.method.records import Counts, Role
from motivation.tools.train import main
from motivation.training.hooks import EVENTS, Hook, HookList
from motivation.training.loggers import WandbLog, epoch_scalars
from motivation.training.records import EpochRecord, best_epoch
from motivation.training.result import RunResult

FLOPS = {Role.BASE: 1e6, Role.MOTIVATED: 3e6}


def counted(base, motivated, switches, flops=FLOPS):
    updates = dict(zip(Role, (base, motivated)))
    return Counts(updates, switches, {role: count * flops[role] for role, count in updates.items()})


RECORD = EpochRecord(
    3, 1.5, {"loss": 1.0, "top1": 70.0, "top5": 99.0}, None, 0.1, counted(3, 1, switches=2),
    counted(12, 4, switches=8), 7.0,
)  # fmt: skip
"""An epoch of a run whose motivated model was not evaluated."""


def test_every_event_reaches_every_hook_in_order():
    calls = []

    def hook(name):
        made = {event: (lambda self, *a, e=event: calls.append((name, e))) for event in EVENTS}
        return type("Recorder", (Hook,), made)()

    hooks = HookList([hook("a"), hook("b")])
    for event in EVENTS:
        getattr(hooks, event)(*([] if event == "run_end" else [None]))
    assert calls == [(name, event) for event in EVENTS for name in "ab"]


# the result


def test_the_result_says_what_the_counts_say():
    names, flops = {Role.BASE: "small", Role.MOTIVATED: "large"}, {Role.BASE: 1e6, Role.MOTIVATED: 2e6}
    counts = counted(80, 20, 12, flops)
    assert counts - counted(75, 19, 10, flops) == counted(5, 1, 2, flops)
    metrics = [{"loss": 1.0, "top1": top1, "top5": 99.0} for top1 in (90.0, 80.0)]
    records = [
        EpochRecord(0, 1.0, metrics[0], metrics[1], 0.1, counts, counts, 1.0),
        EpochRecord(1, 1.0, metrics[1], metrics[0], 0.1, counts, counts, 2.0),
    ]
    result = RunResult(records, names, "top1", flops, counts, 1 / 6)
    table = result.table()
    assert "base       small                      80.00   99.00   90.00                1.00M" in table
    assert "updates   100: 80 base, 20 motivated; 12 switches" in table
    assert "share     0.2000 (expected 0.1667)" in table
    assert "1.200 x small alone, 0.600 x large alone" in table
    found = result.as_dict()
    assert [found[name]["epoch"] for name in ("last", "best", "best_motivated")] == [1, 0, 1]
    assert (found["share"], found["average_flops"]) == (0.2, 1.2e6)


def test_the_best_epoch_is_that_of_the_lowest_loss_or_of_the_highest_accuracy_and_there_may_be_none():
    losses = [math.nan, 2.0, 1.0, 1.0]
    records = [EpochRecord(epoch, loss, None, None, 0.1, Counts(), Counts(), 1.0) for epoch, loss in enumerate(losses)]
    assert best_epoch(records, Role.BASE, "loss").epoch == 2  # without validation by the training loss
    assert best_epoch(records, Role.BASE, "top1") is best_epoch(records, Role.MOTIVATED, "loss") is None
    assert best_epoch([RECORD], Role.BASE, "top1") is RECORD


# console


@pytest.mark.parametrize("watched", [False, True])
def test_a_progress_bar_is_drawn_on_a_terminal_only(watched, train, monkeypatch, capsys):
    if watched:
        monkeypatch.setattr("motivation.build.outputs.on_terminal", lambda: True)
    train(*MOTIVATED)
    assert ("epoch 2/2" in capsys.readouterr().err) == watched


@pytest.mark.parametrize("workers", ["0", "1"])
def test_interrupting_a_run_leaves_whole_files(workers, tmp_path):
    argv = [*DIGITS, *MOTIVATED, "--epochs", "500", "-j", workers, "--output", str(tmp_path), "--experiment", "run"]
    log = tmp_path / "log"
    process = start(run_script, ROOT / "train_motivated.py", *argv, log=log)
    summary = tmp_path / "run" / "summary.csv"
    deadline = time.time() + 100
    while not summary.exists() and time.time() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the data workers too
    code, output = finish(process), log.read_text()
    assert code == 130, output[-3000:]
    assert "Traceback" not in output
    assert "share     " in output
    for path in (tmp_path / "run").rglob("*.pth.tar"):
        load(path)
    assert not list((tmp_path / "run").rglob("*.tmp"))


# trackers


def scalars(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_has_what_the_summary_says_and_a_resumed_run_hides_what_it_trains_again(train):
    flags = (*MOTIVATED, "--sched", "multistep", "--decay-milestones", "1", "--log-tensorboard", "--log-interval", "2")
    folder = train(*flags)
    found, summary = scalars(folder), rows(folder / "summary.csv")
    columns = {
        "base/top1": "eval_top1",
        "motivated/top1": "motivated_eval_top1",
        "motivation/switches": "switches",
        "motivation/average_flops": "average_flops",
        "train/loss": "train_loss",
    }
    for tag, column in columns.items():
        assert found[tag] == {5: pytest.approx(float(summary[0][column])), 10: pytest.approx(float(summary[1][column]))}
    assert found["motivation/share"][5] == pytest.approx(int(summary[0]["motivated_updates"]) / 5)
    assert sorted(found["update/loss"]) == [1, 3, 5, 6, 8, 10]
    assert set(found["update/motivated"].values()) <= {0.0, 1.0}
    again = train(*flags, "--epochs", "3", "--resume", folder / "checkpoint-0.pth.tar")
    accuracies = [pytest.approx(float(row["eval_top1"])) for row in rows(again / "summary.csv")]
    assert scalars(again)["base/top1"] == dict(zip((5, 10, 15), accuracies))


def test_tensorboard_hides_the_epochs_that_start_epoch_passes_over(train):
    checkpoint = train("--log-tensorboard", "--epochs", "3") / "checkpoint-0.pth.tar"
    again = train("--log-tensorboard", "--epochs", "3", "--resume", checkpoint, "--start-epoch", "2")
    assert sorted(scalars(again)["base/top1"]) == [5, 15]


def test_a_plain_run_is_logged_without_motivated_numbers_and_a_new_one_in_its_folder_hides_it(train):
    train("--log-tensorboard", "--epochs", "3")
    found = scalars(train("--log-tensorboard", "--epochs", "1"))
    assert list(found["base/top1"]) == [5]
    assert not [tag for tag in found if "motivat" in tag]


def test_tensorboard_that_is_not_installed_is_said_before_the_start(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert main([*DIGITS, "--log-tensorboard"]) == 2
    assert "error: --log-tensorboard: needs the package tensorboard: pip install tensorboard" in capsys.readouterr().err


class Run:
    def __init__(self):
        self.rows, self.finished = [], 0

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.finished += 1


def test_trackers_get_timms_columns_and_ours_and_nothing_that_was_not_measured():
    run = Run()
    hook = WandbLog(run, FLOPS)
    hook.epoch_end(RECORD)
    hook.run_end()
    (row,) = run.rows
    assert (row["eval_top1"], row["switches"], row["share"], row["run_average_flops"]) == (70.0, 2, 0.25, 1.5e6)
    assert "motivated_eval_top1" not in row
    assert run.finished == 1
    named = epoch_scalars(RECORD, FLOPS)
    assert named["motivation/run_share"] == 0.25
    assert not [name for name in named if name.startswith("motivated/")]


def test_wandb_offline(train, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train(*MOTIVATED, "--log-wandb", "--wandb-project", "trial", "--epochs", "1")
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for _ in range(300):  # a process of wandb's own writes it, also after the run has ended
        if b"motivated_eval_top1" in log.read_bytes():
            break
        time.sleep(0.1)
    assert b"motivated_eval_top1" in log.read_bytes()
