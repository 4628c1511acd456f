"""Weights & Biases (offline) and TensorBoard get both models, share, cost and switches."""

import csv
import time

import pytest
from support.program import DIGITS, MOTIVATED
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from motivation.method.records import Counts, Role
from motivation.tools.train import main
from motivation.training.loggers import WandbLog, epoch_scalars
from motivation.training.records import EpochRecord


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def rows(folder):
    with open(folder / "summary.csv") as file:
        return list(csv.DictReader(file))


def test_tensorboard_has_what_the_summary_says(train):
    folder = train(*MOTIVATED, "--log-tensorboard", "--log-interval", "2")
    found, summary = scalars(folder / "tensorboard"), rows(folder)
    for tag, column in {
        "base/top1": "eval_top1",
        "motivated/top1": "motivated_eval_top1",
        "motivation/switches": "switches",
        "motivation/average_flops": "average_flops",
        "train/loss": "train_loss",
    }.items():
        assert found[tag] == {5: pytest.approx(float(summary[0][column])), 10: pytest.approx(float(summary[1][column]))}
    assert found["motivation/share"][5] == pytest.approx(int(summary[0]["motivated_updates"]) / 5)
    assert sorted(found["update/loss"]) == [1, 3, 5, 6, 8, 10]
    assert set(found["update/motivated"].values()) <= {0.0, 1.0}


def test_a_resumed_run_hides_what_it_trains_again(train):
    schedule = ("--sched", "multistep", "--decay-milestones", "1")
    first = train(*MOTIVATED, *schedule, "--log-tensorboard", "--epochs", "2")
    again = train(
        *MOTIVATED, *schedule, "--log-tensorboard", "--epochs", "3", "--resume", first / "checkpoint-0.pth.tar"
    )  # fmt: skip
    found = scalars(again / "tensorboard")["base/top1"]
    assert found == {5 * (int(row["epoch"]) + 1): pytest.approx(float(row["eval_top1"])) for row in rows(again)}
    assert list(found) == [5, 10, 15]


def test_a_plain_run_is_logged_without_motivated_numbers(train):
    found = scalars(train("--log-tensorboard", "--epochs", "1") / "tensorboard")
    assert "base/top1" in found
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


RECORD = EpochRecord(
    3, 1.5, {"loss": 1.0, "top1": 70.0, "top5": 99.0}, None, 0.1, Counts({Role.BASE: 3, Role.MOTIVATED: 1}, 2),
    Counts({Role.BASE: 12, Role.MOTIVATED: 4}, 8), 7.0,
)  # fmt: skip
FLOPS = {Role.BASE: 1e6, Role.MOTIVATED: 3e6}


def test_wandb_gets_timms_columns_and_ours():
    run = Run()
    hook = WandbLog(run, FLOPS)
    hook.epoch_end(RECORD)
    hook.run_end()
    (row,) = run.rows
    assert (row["eval_top1"], row["switches"], row["share"], row["run_average_flops"]) == (70.0, 2, 0.25, 1.5e6)
    assert "motivated_eval_top1" not in row  # it was not evaluated
    assert run.finished == 1


def test_scalars_of_a_run_whose_motivated_model_is_not_evaluated():
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


def test_a_new_run_in_the_same_folder_hides_the_last_one(train):
    train("--log-tensorboard", "--epochs", "3")
    assert list(scalars(train("--log-tensorboard", "--epochs", "1") / "tensorboard")["base/top1"]) == [5]
