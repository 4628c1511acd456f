"""The figures of a run are those of the updates that led to its weights, and the same wherever they are shown."""

import json
import os
import signal
from itertools import pairwise

import pytest
import torch
from support.program import MOTIVATED, load, rows

from motivation.tools.plot.data import expected_share
from motivation.training.loggers import UpdatesCsv
from motivation.training.run_folder import read_run

NAMES = ("base", "motivated")


def result(folder):
    return json.loads((folder / "result.json").read_text())


def summed(folder, column):
    return sum(int(row[column]) for row in rows(folder / "summary.csv"))


def assert_one_figure(folder):
    """All files of a run have the same updates, switches, share and F_avg; return the updates."""
    found, run = result(folder), read_run(folder)
    updates = {name: summed(folder, f"{name}_updates") for name in NAMES}
    counts = load(folder / "last.pth.tar")["motivation"]["pair"]["counts"]
    assert found["updates"] == updates == {name: counts[name] for name in NAMES}
    assert found["switches"] == summed(folder, "switches") == counts["switches"]
    assert found["average_flops"] == pytest.approx(sum(counts["flops"].values()) / sum(updates.values()))
    (folder / "result.json").unlink()  # a report of a run in progress reads summary.csv
    in_progress = read_run(folder)
    for figure in ("share", "average_flops"):
        assert getattr(run, figure) == found[figure] == pytest.approx(getattr(in_progress, figure))
    return updates


def test_going_back_with_the_weights_of_a_later_epoch_counts_what_they_were_trained_by(train, capsys):
    first = train(*MOTIVATED, "--epochs", "3")
    before = result(first)["updates"]
    again = train(*MOTIVATED, "--epochs", "3", "--resume", first / "checkpoint-2.pth.tar", "--start-epoch", "1")
    table = capsys.readouterr().out
    updates = assert_one_figure(again)
    assert sum(updates.values()) == 15 + 10
    assert all(updates[name] > before[name] for name in NAMES)
    assert f"updates   25: {updates['base']} base, {updates['motivated']} motivated" in table


def test_going_back_with_the_weights_of_that_epoch_forgets_what_came_after(train):
    first = train(*MOTIVATED, "--epochs", "3")
    again = train(*MOTIVATED, "--epochs", "3", "--resume", first / "checkpoint-0.pth.tar")
    assert sum(assert_one_figure(again).values()) == 15


@pytest.mark.parametrize(("file", "done"), [("checkpoint-0", 5), ("recovery-1-1", 7), (None, 0)])
def test_passing_over_epochs_forgets_those_that_the_weights_have_not_seen(file, done, train):
    first = train(*MOTIVATED, "--recovery-interval", "2", "--epochs", "2")
    from_there = ["--resume", first / f"{file}.pth.tar"] if file else []
    again = train(*MOTIVATED, "--epochs", "5", *from_there, "--start-epoch", "3")
    assert sum(assert_one_figure(again).values()) == len(rows(again / "updates.csv")) == done + 10
    assert [row["epoch"] for row in rows(again / "summary.csv")] == [*(["0"] if file else []), "3", "4"]


@pytest.mark.parametrize("file", ["recovery-1-1", "last"])
def test_each_update_counts_at_the_image_size_it_had(file, train):
    flags = [*MOTIVATED, "--recovery-interval", "2", "--epochs", "2"]
    first = train(*flags)
    small, done = result(first)["flops"], load(first / f"{file}.pth.tar")["motivation"]["pair"]["counts"]
    again = train(*flags, "--epochs", "3", "--input-size", "1", "16", "16", "--resume", first / f"{file}.pth.tar")
    large = result(again)["flops"]
    assert large["base"] > 3 * small["base"]
    average = result(again)["average_flops"]
    updates = assert_one_figure(again)
    assert sum(updates.values()) == 15
    cost = sum(done[name] * small[name] + (updates[name] - done[name]) * large[name] for name in NAMES)
    assert average == pytest.approx(cost / 15)


@pytest.mark.parametrize("file", ["recovery-1-1", "last"])
def test_a_file_without_the_cost_of_its_updates_counts_them_at_todays(file, train):
    flags = [*MOTIVATED, "--sched", "none"]
    whole = train(*flags, "--epochs", "3", name="whole")
    first = train(*flags, "--recovery-interval", "2", "--epochs", "2")
    path = first / f"{file}.pth.tar"
    contents = torch.load(path, weights_only=False)
    state = contents["motivation"]
    for counts in (
        state["pair"]["counts"],
        *(each[name] for each in state["records"] for name in ("counts", "run_counts")),
    ):
        del counts["flops"], counts["last"]
    torch.save(contents, path)
    again = train(*flags, "--epochs", "3", "--resume", path)
    assert result(again)["average_flops"] == result(whole)["average_flops"]
    assert_one_figure(again)


def test_a_motivated_run_counts_the_updates_of_the_plain_run_that_it_goes_on_with(train):
    first = train("--epochs", "1", name="first")
    again = train(*MOTIVATED, "--motivation-condition", "always", "--epochs", "2", "--resume", first / "last.pth.tar")
    found = result(again)
    assert (found["updates"], found["share"]) == ({"base": 5, "motivated": 5}, 0.5)
    assert found["average_flops"] == sum(found["flops"].values()) / 2


def test_a_row_of_the_summary_counts_all_updates_since_the_row_before(train):
    folder = train(*MOTIVATED, "--epochs", "5", "--val-interval", "2")
    summary = rows(folder / "summary.csv")
    assert [row["epoch"] for row in summary] == ["1", "3", "4"]
    assert [sum(int(row[f"{name}_updates"]) for name in NAMES) for row in summary] == [10, 10, 5]
    assert_one_figure(folder)
    again = train(*MOTIVATED, "--epochs", "5", "--val-interval", "2", "--resume", folder / "checkpoint-1.pth.tar")
    assert sum(assert_one_figure(again).values()) == 25


@pytest.mark.parametrize("condition", ["loss", "random", "scheduled", "always", "never"])
def test_a_switch_is_a_change_of_the_model_between_two_updates(condition, train):
    earlier = train(*MOTIVATED, "--motivation-condition", "always", "--epochs", "3", name="earlier")
    given = ["--motivation-scheduled-runs", earlier] if condition == "scheduled" else []
    folder = train(*MOTIVATED, "--motivation-condition", condition, *given, "--epochs", "3")
    active = ["base", *(row["active"] for row in rows(folder / "updates.csv"))]
    found = result(folder)["switches"]
    assert found == sum(one != other for one, other in pairwise(active))
    assert found == {"always": 1, "scheduled": 1, "never": 0}.get(condition, found)
    assert_one_figure(folder)


@pytest.mark.parametrize(
    "flags",
    [(), ("--grad-accum-steps", "2", "-b", "11"), ("--cooldown-epochs", "2",), ("--motivation-condition", "random"),
     ("--motivation-k", "5")],
)  # fmt: skip
def test_the_expected_share_is_one_number(flags, train, caplog, capsys, command):
    caplog.set_level("INFO")
    given = [*MOTIVATED, "--motivation-k", "2", "-b", "10", "--epochs", "3", *flags]
    folder = train(*given)
    table = capsys.readouterr().out
    run, updates = read_run(folder), rows(folder / "updates.csv")
    epochs, length = int(updates[-1]["epoch"]) + 1, int(updates[-1]["update"]) + 1
    expected = 0.5 if "random" in flags else {2: 1 / 6, 5: 1 / 720}[run.k] * max(0, length - run.k - 1) / length
    assert result(folder)["expected_share"] == pytest.approx(expected)
    assert f"(expected {expected:.4f})" in table
    assert f"of {epochs * length} updates should be motivated (share {expected:.4f})" in caplog.text
    assert expected_share(run) == (None if run.k is None else pytest.approx(expected))
    cost = command(
        "cost", "--json", "--model", "resnet8_cifar", *given, "--updates-per-epoch", length, "--input-size", 1, 8, 8
    )
    (row,) = [row for row in json.loads(cost.out)["rows"] if row["this_run"]]
    assert row["share"] == pytest.approx(expected)
    assert row["motivated_updates"] == pytest.approx(expected * epochs * length)


@pytest.mark.parametrize(("step", "when"), [(3, "not measured yet"), (8, "after epoch 0")])
def test_an_interrupted_run_counts_the_updates_made_so_far_and_says_so(step, when, train, monkeypatch, capsys):
    def write(self, record, real=UpdatesCsv.update_end):
        real(self, record)
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(UpdatesCsv, "update_end", write)
        folder = train(*MOTIVATED, code=130)
    table = capsys.readouterr().out
    assert f"updates   {step}: " in table
    assert f"The run has not ended: accuracy {when}; updates, share and cost up to now." in table
    assert sum(result(folder)["updates"].values()) == step == len(rows(folder / "updates.csv"))
    again = train(*MOTIVATED, "--resume", "auto")
    assert sum(assert_one_figure(again).values()) == 10
