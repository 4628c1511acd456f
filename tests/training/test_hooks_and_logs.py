"""Hooks cannot be misspelt; the CSV files can be resumed; a progress bar is for people only."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.program import DIGITS, MOTIVATED, load

from motivation.method.records import Counts, Role
from motivation.training.csv_files import append_rows, keep_rows_before
from motivation.training.hooks import EVENTS, Hook, HookList, RunView
from motivation.training.records import EpochRecord
from motivation.training.result import RunResult

ROOT = Path(__file__).parents[2]


def test_a_misspelt_event_is_refused():
    class Mine(Hook):
        def update_ends(self, record):
            pass

    with pytest.raises(ValueError, match="'update_ends', which is no event"):
        HookList([Mine()])


def test_every_event_reaches_every_hook_in_order():
    calls = []

    def hook(name):
        made = {event: (lambda self, *a, e=event: calls.append((name, e))) for event in EVENTS}
        return type("Recorder", (Hook,), made)()

    hooks = HookList([hook("a"), hook("b")])
    for event in sorted(EVENTS):
        getattr(hooks, event)(*([] if event == "run_end" else [None]))
    assert calls == [(name, event) for event in sorted(EVENTS) for name in "ab"]


def test_rows_from_a_resumed_epoch_on_are_dropped(tmp_path):
    path = tmp_path / "summary.csv"
    append_rows(path, [{"epoch": e, "x": x} for e, x in enumerate("abc")])
    keep_rows_before(path, RunView(4, 2, 5, True))
    append_rows(path, [{"epoch": 2, "x": "d"}])
    assert path.read_text().split() == ["epoch,x", "0,a", "1,b", "2,d"]
    keep_rows_before(path, RunView(4, 0, 5, True))
    assert not path.exists()
    assert path.with_name("summary.csv.previous").read_text().split() == ["epoch,x", "0,a", "1,b", "2,d"]
    append_rows(path, [{"epoch": 0, "x": "e"}])
    keep_rows_before(path, RunView(4, 0, 5, True))
    assert path.with_name("summary.csv.previous-2").read_text().split() == ["epoch,x", "0,e"]


def test_rows_behind_the_place_of_a_resume_are_dropped(tmp_path):
    path = tmp_path / "updates.csv"
    rows = [{"epoch": epoch, "update": update, "x": 1.5} for epoch in range(2) for update in range(11)]
    append_rows(path, rows)
    text = path.read_text()
    path.write_bytes(path.read_bytes() + b"1,11,1.")  # cut short by a crash
    keep_rows_before(path, RunView(4, 1, 11, True, start_update=1))
    assert path.read_text().splitlines() == text.splitlines()[:13]
    append_rows(path, rows[12:])
    assert path.read_text() == text
    path.write_bytes(path.read_bytes().rstrip())
    keep_rows_before(path, RunView(4, 2, 11, True))
    assert path.read_text().splitlines() == text.splitlines()[:-1]


@pytest.mark.parametrize("start_update", [0, 1])
@pytest.mark.parametrize("cut", [b"", b"epo", b"epoch,x", b"epoch,x\r"])
def test_a_header_that_a_crash_has_cut_short_is_no_header(cut, start_update, tmp_path):
    path = tmp_path / "summary.csv"
    path.write_bytes(cut)
    keep_rows_before(path, RunView(4, 0, 5, True, start_update=start_update))
    append_rows(path, [{"epoch": 0, "x": "a"}])
    assert [file.name for file in tmp_path.iterdir()] == ["summary.csv"]
    assert path.read_text().split() == ["epoch,x", "0,a"]


def test_a_resumed_run_with_other_columns_keeps_those_of_both(tmp_path):
    path = tmp_path / "summary.csv"
    append_rows(path, [{"epoch": 0, "x": "a"}])
    append_rows(path, [{"epoch": 1, "x": "b", "y": "c"}])
    append_rows(path, [{"epoch": 2, "y": "d"}])
    assert path.read_text().split() == ["epoch,y,x", "0,,a", "1,c,b", "2,d,"]


def test_the_closing_table_says_what_the_counts_say():
    counts = Counts({Role.BASE: 80, Role.MOTIVATED: 20}, 12)
    metrics = [{"loss": 1.0, "top1": top1, "top5": 99.0} for top1 in (90.0, 80.0)]
    records = [
        EpochRecord(0, 1.0, metrics[0], metrics[1], 0.1, counts, counts, 1.0),
        EpochRecord(1, 1.0, metrics[1], metrics[1], 0.1, counts, counts, 2.0),
    ]
    names, flops = {Role.BASE: "small", Role.MOTIVATED: "large"}, {Role.BASE: 1e6, Role.MOTIVATED: 2e6}
    table = RunResult(records, names, "top1", flops, 1 / 6).table()
    assert "base       small                      80.00   99.00   90.00          1.00M" in table
    assert "updates   100: 80 base, 20 motivated; 12 switches" in table
    assert "share     0.2000 (expected 0.1667)" in table
    assert "1.200 x small alone, 0.600 x large alone" in table


def test_counts_subtract_to_those_of_an_epoch():
    before = Counts({Role.BASE: 3, Role.MOTIVATED: 1}, 2)
    after = Counts({Role.BASE: 8, Role.MOTIVATED: 2}, 4)
    assert after - before == Counts({Role.BASE: 5, Role.MOTIVATED: 1}, 2)
    state = after.state_dict()
    restored = Counts()
    restored.load_state_dict(state)
    assert restored == after


def test_no_progress_bar_where_nobody_watches(train, capfd):
    train(*MOTIVATED)
    assert "update/s" not in capfd.readouterr().err


def test_a_progress_bar_on_a_terminal(train, monkeypatch, capsys):
    monkeypatch.setattr("motivation.build.outputs.on_terminal", lambda: True)
    train(*MOTIVATED)
    assert "epoch 2/2" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_interrupting_a_run_leaves_whole_files(workers, tmp_path):
    argv = [*DIGITS, *MOTIVATED, "--epochs", "500", "-j", workers, "--output", str(tmp_path), "--experiment", "run"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_motivated.py"), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    summary = tmp_path / "run" / "summary.csv"
    deadline = time.time() + 100
    while not summary.exists() and time.time() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the data workers too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output[-3000:]
    assert "Traceback" not in output
    assert "share     " in output
    for path in (tmp_path / "run").rglob("*.pth.tar"):
        load(path)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_appending_to_a_long_file_reads_no_more_than_its_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"epoch,loss\n" + b"0,1.0\n" * 50_000 + b"\xff")  # whoever reads on meets what is no text
    append_rows(path, [{"epoch": 1, "loss": 2.0}])
    assert path.read_bytes().endswith(b"\xff1,2.0\r\n")


def test_a_file_with_more_columns_is_rewritten_once_at_most(tmp_path, monkeypatch):
    path = tmp_path / "updates.csv"
    append_rows(path, [{"epoch": 0, "of an older version": "a", "loss": 1.0}])
    append_rows(path, [{"epoch": 1, "loss": 2.0}])
    monkeypatch.setattr("motivation.training.csv_files._rewrite", None)
    append_rows(path, [{"epoch": 2, "loss": 3.0}])
    assert path.read_text().splitlines() == ["epoch,loss,of an older version", "0,1.0,a", "1,2.0,", "2,3.0,"]
